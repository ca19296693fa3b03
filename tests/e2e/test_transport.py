"""Compression and message limits of a real server."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.wire.requests import method_path
from tests.serving import running_server

MIB = 1 << 20


def peak_bytes(pid: int) -> int:
    """The most memory that the process has held."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        pytest.skip("needs /proc")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    return 1024 * int(found[1])


def test_a_message_that_unpacks_beyond_the_limit_is_refused_and_takes_no_memory(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    unbounded = [("grpc.max_send_message_length", -1)]
    with (
        running_server(tiny_bundle, tmp_path) as server,
        grpc.insecure_channel(
            server.address, options=unbounded, compression=grpc.Compression.Gzip
        ) as channel,
        Client(server.address) as client,
    ):
        client.predict("I lost my card")
        before = peak_bytes(server.process.pid)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            channel.unary_unary(method_path("Predict"))(bytes(256 * MIB), timeout=60)
        assert peak_bytes(server.process.pid) - before < 20 * MIB
        assert client.predict("I lost my card").label == "card lost"


def test_compressed_calls_are_answered_and_bounded_alike(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path, compression="gzip") as server:
        for word in ("none", "gzip", "deflate"):
            with Client(server.address, compression=word, timeout_s=20) as client:
                found = client.predict_batch(["I lost my card " * 300, "余额"], top_k=0)
                assert [getattr(one, "label", one) for one in found][1] == "余额"
                with pytest.raises(RequestError):
                    client.predict("x" * 5 * MIB)


def test_grpcs_own_core_serves_alike(tiny_bundle: Path, tmp_path: Path) -> None:
    found = []
    for word in ("asyncio", "grpcio"):
        with (
            running_server(tiny_bundle, tmp_path / word, transport=word) as server,
            Client(server.address, timeout_s=20) as client,
        ):
            one = client.predict("I lost my card", top_k=0)
            many = client.predict_batch(["I lost my card", "余额", ""], top_k=0)
            stream = list(client.predict_stream(["余额", "I lost my card"], top_k=0))
            with pytest.raises(RequestError) as refused:
                client.predict("")
            assert client.status().is_ready
            assert server.stop() == 0
        found.append(
            (
                one.answers,
                [getattr(item, "answers", type(item)) for item in many],
                [getattr(item, "answers", type(item)) for item in stream],
                (refused.value.code, refused.value.message, refused.value.hint),
            )
        )
    assert found[0] == found[1]

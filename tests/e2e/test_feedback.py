"""Corrections against a real server process: kept masked, through a kill, and off by default."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from instructrec_deploy.cli.server_process import verb_command
from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import (
    FeedbackInvalid,
    FeedbackOff,
    FeedbackRefused,
    InstructRecError,
    LabelUnknown,
    TaskUnknown,
    TextUndecodable,
)
from instructrec_deploy.core.feedback import Receipt
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_deploy.wire.requests import method_path
from tests.serving import ServerProcess, free_port, running_server

CANARY = "canary-7f3a-暗号"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "feedback.db"


@pytest.fixture(scope="module")
def server(
    tiny_bundle: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(tiny_bundle, folder, feedback=store, metrics_port=free_port()) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, timeout_s=20) as found:
        yield found


def kept(store: Path) -> dict[str, str]:
    """Texts with their right labels."""
    with FeedbackStore.open(store) as opened:
        return {row.feedback.text: row.feedback.right.labels[0] for row in opened.rows()}


def test_a_correction_of_an_answer_is_kept_with_what_the_model_said(
    client: Client, store: Path
) -> None:
    text = "我的钱呢？ where is my refund 🙂"
    prediction = client.predict(text)
    receipt = client.feedback(text, "余额", prediction=prediction, lang="zh", source="agent")
    assert receipt.outcome == "accepted"
    with FeedbackStore.open(store) as opened:
        (row,) = [row.feedback for row in opened.rows() if row.feedback.id == receipt.id]
    assert (row.text, row.task, row.right.labels) == (text, "intent", ("余额",))
    assert row.predicted.labels == (prediction.label,)
    assert (row.model, row.model_version) == (prediction.model, prediction.model_version)
    assert (row.lang, row.source) == ("zh", "agent")


def test_personal_data_never_reaches_the_file(client: Client, store: Path) -> None:
    receipt = client.feedback("电话13812345678，退款到账了吗", "refund")
    assert receipt.text == "电话[PHONE]，退款到账了吗"
    for path in store.parent.iterdir():
        assert b"13812345678" not in path.read_bytes()


def test_the_model_that_is_served_stands_in_where_none_is_named(
    client: Client, store: Path
) -> None:
    receipt = client.feedback("no model named", "refund")
    with FeedbackStore.open(store) as opened:
        (row,) = [row.feedback for row in opened.rows() if row.feedback.id == receipt.id]
    assert (row.model, row.model_version) == ("tiny", client.status().model_version)


def test_sending_twice_changes_nothing_and_another_label_replaces(
    client: Client, store: Path
) -> None:
    outcomes = [client.feedback("twice", label).outcome for label in ("refund", "refund", "余额")]
    assert outcomes == ["accepted", "duplicate", "replaced"]
    assert kept(store)["twice"] == "余额"


@pytest.mark.parametrize(
    ("text", "label", "more", "error"),
    [
        ("x", "no such label", {}, LabelUnknown),
        ("x", "refund", {"task": "no such task"}, TaskUnknown),
        ("x", ["refund", "余额"], {}, FeedbackInvalid),
        ("x", (), {"spans": [{"start": 0, "end": 1, "type": "refund"}]}, FeedbackInvalid),
        ("I will kill you", "refund", {}, FeedbackRefused),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint(
    client: Client, text: str, label: str, more: dict[str, object], error: type[InstructRecError]
) -> None:
    with pytest.raises(error) as caught:
        client.feedback(text, label, **more)
    assert caught.value.hint


def test_undecodable_bytes_are_the_callers_fault(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method_path("Feedback"))(b"\n\x02\xff\xfe", timeout=10)
    metadata = dict(caught.value.trailing_metadata())
    assert metadata["instructrec-code"] == TextUndecodable.code


def test_many_callers_at_once_are_all_kept(client: Client, store: Path) -> None:
    texts = [f"caller {n} 说" for n in range(100)]
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(lambda text: client.feedback(text, "refund"), texts))
    assert {receipt.outcome for receipt in receipts} == {"accepted"}
    assert set(texts) <= set(kept(store))


def test_the_async_client_and_the_command_line_send_corrections(
    server: ServerProcess, store: Path
) -> None:
    async def send() -> Receipt:
        async with AsyncClient(server.address) as found:
            return await found.feedback("async", "refund")

    assert asyncio.run(send()).outcome == "accepted"
    rows = [{"text": f"from a file {n}", "target": "余额"} for n in range(3)]
    done = subprocess.run(
        verb_command("feedback", "add", "-a", server.address, "--json"),
        input="\n".join(json.dumps(row) for row in rows),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["outcome"] for line in done.stdout.splitlines()] == ["accepted"] * 3
    assert kept(store)["from a file 2"] == "余额"


def test_corrections_are_counted_and_no_word_is_written_anywhere(
    server: ServerProcess, client: Client
) -> None:
    client.feedback(CANARY, "refund", source=CANARY)
    for more in ({"label": CANARY}, {"label": "refund", "task": CANARY}):
        with pytest.raises(InstructRecError):
            client.feedback(CANARY, **more)  # type: ignore[arg-type]
    metrics = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
    for outcome in ("accepted", "duplicate", "refused"):
        assert re.search(rf'instructrec_feedback_total{{outcome="{outcome}"}} [1-9]', metrics)
    written = server.stdout + server.stderr + metrics
    assert "canary" not in written
    assert "暗号" not in written


def test_what_a_killed_server_has_acknowledged_is_there(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    texts = [f"第{n}条" for n in range(20)]
    start = running_server(tiny_bundle, tmp_path / "first", feedback=file)
    with start as first, Client(first.address) as client:
        for text in texts:
            assert client.feedback(text, "refund").outcome == "accepted"
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(20)
    assert set(kept(file)) == set(texts)
    with running_server(tiny_bundle, tmp_path / "second", feedback=file) as second:
        with Client(second.address) as client:
            assert client.feedback(texts[0], "refund").outcome == "duplicate"
        assert second.stop() == 0


def test_a_server_without_a_store_says_how_to_get_one(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path) as server, Client(server.address) as client:
        with pytest.raises(FeedbackOff, match="keeps no feedback") as caught:
            client.feedback("x", "refund")
        assert "--feedback" in caught.value.hint
        assert server.stop() == 0


def test_a_server_does_not_start_on_a_file_that_is_no_store(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database " * 500)
    done = subprocess.run(
        verb_command("serve", str(tiny_bundle), "--port", "0", "--feedback", str(file)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "IR-1612" in done.stderr) == (2, True)
    assert file.read_text().startswith("not a database")

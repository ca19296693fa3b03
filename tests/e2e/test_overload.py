"""More than a server can or may do: refused at once, counted, and everybody else is answered."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.client.security import Security
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import Overloaded
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from tests.serving import ServerProcess, free_port, running_server


def metric(server: ServerProcess, name: str) -> float:
    text: str = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def ask_all(address: str, n_calls: int) -> Counter[str]:
    """Outcomes of calls that are all under way at once."""
    async with AsyncClient(address, timeout_s=60) as client:
        calls = [client.predict("I lost my card " * 8, task="intent") for _ in range(n_calls)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(outcome).__name__ for outcome in found)


def test_calls_beyond_the_target_are_refused_and_the_others_answered(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    target = {"target_p99_ms": 0.5}  # what two threads are busy with, and no more
    with running_server(tiny_bundle, tmp_path, overload=target, metrics_port=free_port()) as server:
        with Client(server.address) as client:
            client.predict("I lost my card", task="intent")  # from now on the pace is known
        found = asyncio.run(ask_all(server.address, 200))
        assert set(found) == {"Prediction", "Overloaded"}
        assert found.total() == 200
        assert metric(server, 'instructrec_refused_total{reason="target"}') == found["Overloaded"]
        assert metric(server, "instructrec_in_flight_tokens") == 0
        assert metric(server, "instructrec_pace_tokens") > 0


def test_a_tenant_s_quota_is_its_own(tiny_bundle: Path, tmp_path: Path) -> None:
    entries, keys = {}, {}
    for name, more in (("small", {"tokens_per_s": 0.01, "burst_tokens": 8}), ("large", {})):
        id_, keys[name], kept = new_key()
        entries[id_] = KeyEntry.model_validate({"name": name, "hash": kept, **more})
    write_keys(tmp_path / "keys.toml", entries)
    access = {"keys": str(tmp_path / "keys.toml")}
    with running_server(tiny_bundle, tmp_path / "server", access=access) as server:
        with Client(server.address, security=Security(api_key=keys["small"])) as client:
            assert isinstance(client.predict("I lost my card", task="intent"), Prediction)
            with pytest.raises(Overloaded, match="quota") as caught:
                client.predict("I lost my card", task="intent")
            assert caught.value.retry_after_ms == 10_000
        with Client(server.address, security=Security(api_key=keys["large"])) as client:
            for _ in range(5):
                client.predict("I lost my card", task="intent")

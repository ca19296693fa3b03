"""A server over time: memory under a long load, connections come and gone, calls given up.

    .venv/bin/python benchmarks/serving/endurance.py BUNDLE --out FILE --soak-s 1200

- *soak*: eight callers with single texts, batches and streams, questions of their own, deadlines
  and calls given up, without a pause. Every text is another. Resident memory of the server against
  the texts that were sent: least squares over the second half, MiB for each 10,000 texts.
- *connections*: so many connections, each with a call, opened and closed in waves, and some held
  open together; file descriptors and memory of the server before and after.
- *cancelled*: bursts of 1,000 calls with long texts, of which every second one is given up while
  most of them wait; which part of the computed texts nobody got an answer to. Those that are being
  computed at that moment cannot be stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import grpc.aio

from instructrec_deploy import AsyncClient, InstructRecError
from instructrec_deploy.cli.benchmark.figures import machine_facts
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.cli.server_process import ServerProcess, free_port, running_server
from instructrec_deploy.core.request import Request
from instructrec_deploy.wire.requests import method_path, write_request

MIB = 1 << 20
N_SOAKING = 8
BURST, N_MESSAGES = 1000, 8  # calls at once; shipped messages of one text
DEPTH = "instructrec_queue_depth"
SETTLE_S = 5.0  # after a load, for what it left to go
OWN = [(f"what is asked for, {n}?", [f"answer {n}", "card", "余额", "other"]) for n in range(20)]


class Watched:
    """A server process and what it holds."""

    def __init__(self, server: ServerProcess, metrics_port: int) -> None:
        self.address = server.address
        self._pid = server.process.pid
        self._url = f"http://127.0.0.1:{metrics_port}/metrics"

    def memory_mib(self) -> float:
        """Resident."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def n_files(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self._pid}/fd").iterdir()))

    def metric(self, name: str) -> float:
        """The sum of a metric's lines that begin so."""
        text = urllib.request.urlopen(self._url, timeout=60).read().decode()
        return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(name))


class Texts:
    """Texts without end, no two alike."""

    def __init__(self, seed: int) -> None:
        self._texts = load_texts()
        self._rng = random.Random(seed)
        self.n_made = 0

    def __call__(self) -> str:
        self.n_made += 1
        return f"{self._rng.choice(self._texts)} {self.n_made}"


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through the points, by least squares."""
    n = len(points)
    mean_x, mean_y = (sum(values) / n for values in zip(*points, strict=True))
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)


async def soak(server: Watched, seconds: float) -> dict[str, Any]:
    """Load of every kind; memory all the while."""
    texts, outcomes = Texts(1), Counter[str]()
    end = time.monotonic() + seconds
    points: list[tuple[float, float]] = []

    async def caller(number: int) -> None:
        rng = random.Random(number)
        async with AsyncClient(server.address, timeout_s=60) as client:
            while time.monotonic() < end:
                try:
                    await one_of_all(client, texts, rng)
                    outcomes["ok"] += 1
                except InstructRecError as error:
                    outcomes[error.code] += 1
                except TimeoutError:
                    outcomes["given up"] += 1

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(min(5.0, seconds / 50))
            points.append((texts.n_made, server.memory_mib()))

    await asyncio.gather(watch(), *[caller(number) for number in range(N_SOAKING)])
    half = points[len(points) // 2 :]
    return {
        "seconds": seconds,
        "n_texts": texts.n_made,
        "outcomes": dict(outcomes),
        "memory_mib": [round(y, 1) for _, y in points[:: max(1, len(points) // 20)]],
        "slope_mib_per_10000": round(10_000 * slope(half), 3),
    }


async def one_of_all(client: AsyncClient, texts: Texts, rng: random.Random) -> None:
    """A call of some kind."""
    kind = rng.randrange(6)
    if kind == 0:
        await client.predict_batch([texts() for _ in range(16)])
    elif kind == 1:
        async for _ in client.predict_stream([texts() for _ in range(40)], timeout_s=60):
            pass
    elif kind == 2:
        words, candidates = rng.choice(OWN)
        await client.predict(texts(), instruction=words, candidates=candidates)
    elif kind == 3:
        async with asyncio.timeout(rng.uniform(0, 0.02)):
            await client.predict(texts())
    elif kind == 4:
        await client.predict(texts(), timeout_s=rng.choice((0.002, 0.02, 60)))
    else:
        await client.predict(texts(), text2=texts())


async def connect(address: str, payload: bytes, held_s: float = 0.0) -> None:
    """A connection of its own, a call on it, and away."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=own) as channel:
        await channel.unary_unary(method_path("Predict"))(payload, timeout=120)
        await asyncio.sleep(held_s)


async def connections(server: Watched, n_connections: int, n_held: int) -> dict[str, Any]:
    """Waves of them, then some at once."""
    payload = write_request(Request.of(load_texts()[0])).SerializeToString()

    async def wave(n: int, held_s: float = 0.0) -> None:
        await asyncio.gather(*[connect(server.address, payload, held_s) for _ in range(n)])

    await wave(n_held)  # what so many at once need, is there once
    await asyncio.sleep(SETTLE_S)
    files, memory, most = server.n_files(), server.memory_mib(), 0
    for _ in range(max(1, n_connections // 100)):
        await wave(100)
    holding = asyncio.create_task(wave(n_held, 10.0))
    while not holding.done():
        await asyncio.sleep(0.5)
        most = max(most, server.n_files())
    await holding
    await asyncio.sleep(SETTLE_S)
    return {
        "n_connections": n_connections,
        "n_held_together": n_held,
        "n_files": {"before": files, "most": most, "after": server.n_files()},
        "memory_mib": {"before": round(memory, 1), "after": round(server.memory_mib(), 1)},
        "n_in_flight_after": server.metric("instructrec_requests_in_flight"),
    }


async def cancelled(server: Watched, n_bursts: int) -> dict[str, Any]:
    """Bursts of calls, every second one given up while most of them wait."""
    texts, counts = Texts(2), Counter[str]()
    before = server.metric("instructrec_batch_size_sum")

    async def ask(call: Any) -> None:
        text = " ".join(texts() for _ in range(N_MESSAGES))
        payload = write_request(Request.of(text)).SerializeToString()
        try:
            await call(payload, timeout=600)
            counts["answered"] += 1
        except grpc.aio.AioRpcError as error:
            counts[error.code().name] += 1
        except asyncio.CancelledError:
            counts["given up"] += 1

    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary(method_path("Predict"))
        for _ in range(n_bursts):
            tasks = [asyncio.create_task(ask(call)) for _ in range(BURST)]
            while await asyncio.to_thread(server.metric, DEPTH) < BURST // 2:  # most is there
                if all(task.done() for task in tasks):
                    break
                await asyncio.sleep(0.02)
            for task in tasks[1::2]:
                task.cancel()
            await asyncio.gather(*tasks)
    await asyncio.sleep(SETTLE_S)
    n_computed = int(server.metric("instructrec_batch_size_sum") - before)
    n_dead = n_computed - counts["answered"]
    return {
        "n_calls": n_bursts * BURST,
        "outcomes": dict(counts),
        "n_computed": n_computed,
        "n_computed_for_nobody": n_dead,
        "share_computed_for_nobody": round(n_dead / max(1, n_computed), 5),
    }


async def measure(server: Watched, given: argparse.Namespace) -> dict[str, Any]:
    """Each that is wanted, one behind the other."""
    found: dict[str, Any] = {}
    if given.connections:
        found["connections"] = await connections(server, given.connections, given.held)
        print(json.dumps(found["connections"]), flush=True)
    if given.bursts:
        found["cancelled"] = await cancelled(server, given.bursts)
        print(json.dumps(found["cancelled"]), flush=True)
    if given.soak_s:
        found["soak"] = await soak(server, given.soak_s)
        print(json.dumps(found["soak"]), flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=re.split(r"\n", __doc__)[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--soak-s", type=float, default=1200.0, help="0: none")
    parser.add_argument("--bursts", type=int, default=5, help="of calls half given up; 0: none")
    parser.add_argument("--connections", type=int, default=5000, help="0: none")
    parser.add_argument("--held", type=int, default=500, help="of them, open together")
    parser.add_argument("--note", default="", help="what else the reader should know")
    given = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--metrics-port", str(port)]
        with running_server(given.bundle, Path(folder) / "log", options=options) as server:
            server.wait_ready()
            found = asyncio.run(measure(Watched(server, port), given))
    result = {"machine": machine_facts(), "note": given.note, "bundle": given.bundle.name, **found}
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The load on one server, from a process of its own: closed loop, or open loop with its moments.

`python peer_load.py` reads a plan (JSON) from standard input and writes what came of it. Requests
are made beforehand, answers are not parsed; HTTP and gRPC are spoken by clients of few lines, so
that the load takes little from the server, and as little from one as from another.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from grpc_door import GrpcDoor

from instructrec_deploy.cli.benchmark.load import answer_plan
from instructrec_deploy.core.request import Request
from instructrec_deploy.wire.requests import (
    method_path,
    write_batch_request,
    write_request,
    write_stream_request,
)

CALL_TIMEOUT_S = 30.0
BURST = 16  # calls at one moment, of bursts
PACK = 16  # texts of a batch message
PATHS = {
    "unary": method_path("Predict"),
    "batch": method_path("PredictBatch"),
    "naive": "/peer.Classifier/Predict",
}
Call = Callable[[bytes], Awaitable[Any]]


@dataclass(frozen=True)
class Plan:
    """What is sent, to whom, and when."""

    address: str
    # text, json: HTTP bodies; naive, unary, batch: gRPC; grpcio, stream: by grpcio's own client
    form: str
    texts: list[str]
    path: str = ""  # of HTTP
    n_callers: int = 1  # of a closed loop
    calls_per_s: float = 0.0  # of an open loop; 0: closed
    is_bursty: bool = False
    seconds: float = 3.0
    warm_up_s: float = 1.0
    seed: int = 1


@dataclass
class Measured:
    """What came of it."""

    n_texts: int = 0  # answered within the measured time
    n_all: int = 0  # answered at all, warm-up and what was under way at the end included
    seconds: float = 0.0
    load_cpu_s: float = 0.0  # user and system, of this process, from the warm-up on
    latencies_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)


class HttpDoor:
    """POSTs over kept connections: as many as calls are under way at once."""

    def __init__(self, address: str, path: str) -> None:
        self._host, self._port = address.rsplit(":", 1)
        self._path = path
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, body: bytes) -> bytes:
        """The answer's body.

        Raises:
            RuntimeError: its status is not 200.
        """
        reader, writer = self._free.pop() if self._free else await self._connect()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        n_bytes = int(answer.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        content = await reader.readexactly(n_bytes)
        self._free.append((reader, writer))
        status = answer.split(b" ", 2)[1]
        if status != b"200":
            raise RuntimeError(f"HTTP {status.decode()}")
        return content

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, int(self._port))


def make_payloads(plan: Plan) -> list[bytes]:
    """The requests, ready to be sent; the texts in an order of their own."""
    texts = random.Random(plan.seed).sample(plan.texts, len(plan.texts))
    if plan.form in ("text", "naive"):
        return [text.encode() for text in texts]
    if plan.form == "json":
        return [json.dumps({"text": text}).encode() for text in texts]
    requests = [Request.of(text) for text in texts]
    if plan.form == "batch":
        starts = range(0, len(requests) - PACK + 1, PACK)
        return [write_batch_request(requests[s : s + PACK]).SerializeToString() for s in starts]
    if plan.form == "stream":
        return [write_stream_request([request]).SerializeToString() for request in requests]
    return [write_request(request).SerializeToString() for request in requests]


async def measure(plan: Plan) -> Measured:
    """Warm up, send, and wait for what is under way."""
    endless = itertools.cycle(make_payloads(plan))
    begun_s = cpu_s()
    got = await send(plan, endless)
    got.load_cpu_s = cpu_s() - begun_s
    return got


async def send(plan: Plan, endless: Iterator[bytes]) -> Measured:
    """By the client that the plan's form asks for."""
    if plan.form in ("text", "json"):
        return await run(plan, HttpDoor(plan.address, plan.path).call, endless)
    if plan.form in PATHS:
        path = PATHS[plan.form]
        door = await GrpcDoor.open(plan.address, path, timeout_s=int(CALL_TIMEOUT_S))
        return await run(plan, door.call, endless)
    async with grpc.aio.insecure_channel(plan.address) as channel:
        if plan.form == "stream":
            return await run_stream(plan, channel, endless)
        multi = channel.unary_unary(PATHS["unary"])

        async def call(payload: bytes) -> Any:
            return await multi(payload, timeout=CALL_TIMEOUT_S)

        return await run(plan, call, endless)


def cpu_s() -> float:
    """Processor time of this process so far, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def run(plan: Plan, call: Call, endless: Iterator[bytes]) -> Measured:
    """Closed or open, by the plan."""
    got, errors = Measured(), Counter[str]()
    n_texts = PACK if plan.form == "batch" else 1
    begun_s = time.monotonic() + plan.warm_up_s
    end = begun_s + plan.seconds

    async def one(sent: float) -> None:
        try:
            await call(next(endless))
        except Exception as error:  # noqa: BLE001 whatever it is, it is counted
            name = error.code().name if isinstance(error, grpc.aio.AioRpcError) else repr(error)
            errors[name] += 1
            return
        done = time.monotonic()
        got.n_all += n_texts
        if sent >= begun_s:
            got.latencies_ms.append(1000 * (done - sent))
        if begun_s <= done < end:
            got.n_texts += n_texts

    async def caller() -> None:
        while (now := time.monotonic()) < end:
            await one(now)

    if plan.calls_per_s:
        await send_at(moments(plan), begun_s - plan.warm_up_s, one)
    else:
        await asyncio.gather(*(caller() for _ in range(plan.n_callers)))
    got.seconds = plan.seconds
    got.errors = dict(errors)
    return got


def moments(plan: Plan) -> Iterator[float]:
    """When to send, seconds from the start: at random (Poisson), alone or in bursts."""
    rng = random.Random(plan.seed)
    size = BURST if plan.is_bursty else 1
    moment = 0.0
    while (moment := moment + rng.expovariate(plan.calls_per_s / size)) < (
        plan.warm_up_s + plan.seconds
    ):
        yield from itertools.repeat(moment, size)


async def send_at(
    when: Iterator[float], begun: float, one: Callable[[float], Awaitable[None]]
) -> None:
    """Send each call at its moment, whatever became of those before; late sending counts."""
    tasks: set[asyncio.Task[None]] = set()
    for moment in when:
        wait_s = begun + moment - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

        async def send(moment: float = moment) -> None:
            await one(begun + moment)

        task = asyncio.create_task(send())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def run_stream(plan: Plan, channel: Any, endless: Iterator[bytes]) -> Measured:
    """One stream with so many texts under way: an answer that comes lets a text go."""
    from instructrec_deploy.pb.v1 import instructrec_pb2 as pb

    got = Measured()
    call = channel.stream_stream(method_path("PredictStream"))()
    sent_s: dict[int, float] = {}
    numbers = itertools.count()
    begun_s = time.monotonic() + plan.warm_up_s
    end = begun_s + plan.seconds

    async def send(n_texts: int) -> None:
        now = time.monotonic()
        sent_s.update((next(numbers), now) for _ in range(n_texts))
        # Messages put one behind the other are one message with the items of both.
        await call.write(b"".join(itertools.islice(endless, n_texts)))

    await send(plan.n_callers)
    while sent_s:
        items = pb.PredictStreamResponse.FromString(await call.read()).items
        done = time.monotonic()
        got.n_all += len(items)
        for item in items:
            sent = sent_s.pop(item.number)
            if sent >= begun_s:
                got.latencies_ms.append(1000 * (done - sent))
        if begun_s <= done < end:
            got.n_texts += len(items)
        if done < end:
            await send(len(items))
    await call.done_writing()
    got.seconds = plan.seconds
    return got


if __name__ == "__main__":
    answer_plan(Plan, measure)

"""The load: closed-loop callers in a process of their own, as light as they can be.

`python -m instructrec_deploy.cli.benchmark.load` reads a plan (JSON) from standard input and
writes what it measured (JSON) to standard output. Requests are serialized beforehand and answers
are not parsed, so that on a small machine the load takes little from the server.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import grpc.aio

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.core.errors import InstructRecError, InternalError
from instructrec_deploy.core.request import Request
from instructrec_deploy.wire.requests import (
    method_path,
    write_batch_request,
    write_request,
)

WARM_UP_S = 0.5
CALL_TIMEOUT_S = 60.0
PlanT = TypeVar("PlanT")


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement: `n_callers` callers, each with one call of `n_texts` texts under way."""

    address: str
    texts: Sequence[str]
    n_callers: int
    n_texts: int = 1  # of a call; more than 1: batch messages
    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it. Latencies in milliseconds, of calls."""

    texts_per_s: float
    latencies_ms: list[float]
    errors: dict[str, int]


def run_load(plan: Plan) -> Measured:
    """Run the plan in a process of its own.

    Raises:
        InternalError: that process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InternalError(f"the load process failed: {reason}", hint="is the server running?")
    return Measured(**json.loads(done.stdout))


async def measure(plan: Plan) -> Measured:
    """Call until the time is up; calls that began in time are waited for and counted."""
    requests = [Request.of(text) for text in plan.texts]
    is_single = plan.n_texts == 1
    method = "Predict" if is_single else "PredictBatch"
    if is_single:
        payloads = [write_request(request).SerializeToString() for request in requests]
    else:
        endless = requests * (2 + plan.n_texts // len(requests))
        payloads = [
            write_batch_request(endless[start : start + plan.n_texts]).SerializeToString()
            for start in range(len(requests))
        ]
    async with AsyncClient(plan.address) as client:  # answers are not looked into below
        for outcome in await client.predict_batch(requests[: plan.n_texts]):
            if isinstance(outcome, InstructRecError):
                raise outcome
    async with grpc.aio.insecure_channel(plan.address) as channel:
        load = ClosedLoop(channel.unary_unary(method_path(method)), payloads, plan.n_callers)
        await load.run(WARM_UP_S)
        load.forget()
        begun = time.perf_counter()
        await load.run(plan.seconds)
        elapsed = time.perf_counter() - begun
    n_answered = len(load.latencies_ms) * plan.n_texts
    return Measured(n_answered / elapsed, load.latencies_ms, dict(load.errors))


class ClosedLoop:
    """Callers that each send their next call when the last one is answered."""

    def __init__(
        self,
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes],
        payloads: Sequence[bytes],
        n_callers: int,
    ) -> None:
        self._call = call
        self._payloads = payloads
        self._n_callers = n_callers
        self.forget()

    def forget(self) -> None:
        """Begin to measure anew."""
        self.latencies_ms: list[float] = []
        self.errors: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Send for so long, then wait for what is under way."""
        end = time.perf_counter() + seconds
        await asyncio.gather(*(self._send(number, end) for number in range(self._n_callers)))

    async def _send(self, number: int, end: float) -> None:
        turn = number * 7  # callers begin at different texts
        while (sent := time.perf_counter()) < end:
            turn += 1
            payload = self._payloads[turn % len(self._payloads)]
            try:
                await self._call(payload, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                self.errors[error.code().name] += 1
            else:
                self.latencies_ms.append((time.perf_counter() - sent) * 1000)


def answer_plan(
    plan_type: Callable[..., PlanT], measure: Callable[[PlanT], Coroutine[Any, Any, Any]]
) -> None:
    """What a load process does: a plan (JSON) from standard input, what came of it to output."""
    plan = plan_type(**json.load(sys.stdin))
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):  # not on Windows
        from uvloop import new_event_loop

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        measured = runner.run(measure(plan))
    json.dump(asdict(measured), sys.stdout)


if __name__ == "__main__":
    answer_plan(Plan, measure)

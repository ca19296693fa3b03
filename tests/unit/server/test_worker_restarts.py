"""How a supervisor starts dead workers again: at once, or after a pause that grows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.server.signals import StopSignals
from instructrec_deploy.server.workers.plan import Plan
from instructrec_deploy.server.workers.process import WorkerProcess
from instructrec_deploy.server.workers.supervisor import (
    MAX_PAUSE_S,
    MIN_PAUSE_S,
    SETTLED_S,
    Supervisor,
    next_pause_s,
)

FACTS = {
    "address": "127.0.0.1:1",
    "metrics_address": "",
    "http_address": "",
    "model": "tiny",
    "model_version": "1",
    "load_s": 0.1,
}


class FakeWorker:
    """One that serves for so many seconds, or cannot serve at all (None)."""

    def __init__(self, lives_s: float | None) -> None:
        self.process = SimpleNamespace(pid=1)
        self.loaded, self.ready, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.facts, self.families = FACTS, []
        self.is_retired = False
        self.error = InternalError("it cannot serve")
        self.how_ended = "SIGKILL"
        self.ready_s = lives_s or 0.0
        self._can_serve = lives_s is not None

    async def wait_loaded(self) -> bool:
        (self.loaded if self._can_serve else self.ended).set()
        return self._can_serve

    async def go(self) -> bool:
        self.ready.set()
        return True

    def signal(self, number: int) -> None:
        self.ended.set()


def plan_of(n_workers: int) -> Plan:
    return Plan(
        n_workers=n_workers,
        bundle="bundle",
        settings={},
        host="127.0.0.1",
        metrics_port=0,
        metrics_address="",
        is_pinned=False,
        stop_within_s=1.0,
        log_format="json",
        log_level="error",
        sockets=(),
    )


async def pauses(lives: list[float | None]) -> list[float]:
    """The pauses before the starts of workers that live so long; the last one is let live."""
    waited: list[float] = []
    started: list[FakeWorker] = []
    signals = StopSignals()

    async def start(bundle: str, settings: dict[str, Any]) -> WorkerProcess:
        worker = FakeWorker(lives[len(started)])
        started.append(worker)
        return cast("WorkerProcess", worker)

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    running = asyncio.create_task(
        Supervisor(plan_of(1), start=start, sleep=sleep).run(signals, None)
    )
    for number in range(len(lives)):
        while len(started) <= number or not (
            started[number].ready.is_set() or started[number].ended.is_set()
        ):
            await asyncio.sleep(0)
        if number < len(lives) - 1:
            started[number].ended.set()
    signals.first.set()
    await running
    return waited


def test_one_that_had_settled_is_started_again_at_once() -> None:
    assert asyncio.run(pauses([SETTLED_S + 1, SETTLED_S + 1, 1.0])) == [0.0, 0.0]


def test_the_pause_grows_while_workers_die_young_and_ends_with_one_that_settles() -> None:
    lives = [0.1, 0.1, None, 0.1, SETTLED_S + 1, 0.1, 1.0]
    assert asyncio.run(pauses(lives)) == [0.5, 1.0, 2.0, 4.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("before_s", "lived_s", "pause_s"),
    [
        (0.0, 0.0, MIN_PAUSE_S),
        (MIN_PAUSE_S, 0.0, 2 * MIN_PAUSE_S),
        (MAX_PAUSE_S - 1, SETTLED_S, MAX_PAUSE_S),
        (MAX_PAUSE_S, SETTLED_S + 0.1, 0.0),
    ],
)
def test_a_pause_is_twice_the_last_one_between_its_bounds(
    before_s: float, lived_s: float, pause_s: float
) -> None:
    assert next_pause_s(before_s, lived_s=lived_s) == pause_s

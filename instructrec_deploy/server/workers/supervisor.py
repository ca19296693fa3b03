"""Looks after worker processes: starts them, restarts what died, replaces them one by one, stops.

A worker loads before it listens, so whoever connects finds one that answers. At the start none
listens before all have loaded; afterwards each for itself. One that dies is started anew, at once
if it had lived for a while, else after a growing pause. SIGHUP replaces one worker after the other:
the new one listens, then the old one stops listening and leaves when its callers have gone; where
the new one cannot serve, the old ones stay. SIGTERM and SIGINT drain all of them; a second signal
ends the waiting. This process loads neither gRPC nor an engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.server.logs import LOGGER, set_up_logs
from instructrec_deploy.server.ready import Ready, log_ready, tell_people
from instructrec_deploy.server.signals import StopSignals, process_signals
from instructrec_deploy.server.workers.plan import Plan
from instructrec_deploy.server.workers.process import WorkerProcess

MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0  # before a worker that died young is started again
HASTE_S = 5.0  # from the second signal to the last
SETTLED_S = 10.0  # one that lived so long is started again at once
log = logging.getLogger(f"{LOGGER}.workers")


class Board(Protocol):
    """Where the metrics of all workers are shown."""

    def count_start(self, reason: str) -> None:
        """A worker was started."""

    def count_out(self, worker: WorkerProcess) -> None:
        """It has ended: what it counted stays."""

    def close(self) -> None:
        """Show nothing any more."""


class Supervisor:
    """Of the workers of one plan. For one event loop.

    Args:
        start: makes a worker process; another one in tests.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        start: Callable[..., Coroutine[Any, Any, WorkerProcess]] = WorkerProcess.start,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._plan = plan
        self._start = start
        self._clock = clock
        self._sleep = sleep
        self._bundle = self._follow_link()
        self._slots: list[WorkerProcess | None] = [None] * plan.n_workers
        self._locks = [asyncio.Lock() for _ in self._slots]  # one change of a slot at a time
        self._living: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._board: Board | None = None

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that live, and those that are leaving, too."""
        return list(self._living)

    @property
    def n_listening(self) -> int:
        """How many take new connections."""
        return sum(one.ready.is_set() and not one.is_retired for one in self._living)

    async def run(self, signals: StopSignals, board: Callable[[Supervisor], Board] | None) -> None:
        """Until a signal says to stop.

        Args:
            board: opens where the metrics are shown; None: nowhere.

        Raises:
            InstructRecError: a worker cannot serve at the start, or the metrics not be shown.
        """
        try:
            if board is not None:
                self._board = board(self)
            await self._unless_stopped(signals, self._begin())
            while not signals.first.is_set():
                await self._unless_stopped(signals, signals.reload.wait())
                if signals.reload.is_set() and not signals.first.is_set():
                    signals.reload.clear()
                    await self._unless_stopped(signals, self._replace_all())
        finally:
            await self._stop(signals)
            if self._board is not None:
                self._board.close()
        log.info("stopped")

    async def _begin(self) -> None:
        """All workers, at the same time; then tell everybody."""
        begun_s = self._clock()
        for slot in range(self._plan.n_workers):
            self._slots[slot] = await self._make("start")
        first = [one for one in self._slots if one is not None]
        loads = [asyncio.create_task(one.wait_loaded()) for one in first]
        for load in asyncio.as_completed(loads):
            if not await load:
                break
        if not all(one.loaded.is_set() and not one.ended.is_set() for one in first):
            raise next(one.error for one in first if one.ended.is_set())
        for one in first:
            if not await one.go():
                raise one.error
        for slot, one in enumerate(first):
            self._watch(slot, one)
        facts = {name: first[0].facts[name] for name in Ready.__slots__}
        facts["metrics_address"] = self._plan.metrics_address
        ready = Ready(**{**facts, "load_s": self._clock() - begun_s})
        log_ready(ready)
        tell_people(ready)

    async def _make(self, reason: str) -> WorkerProcess:
        worker = await self._start(self._bundle, self._plan.settings)
        self._living.add(worker)
        if self._board is not None:
            self._board.count_start(reason)
        log.info("worker started", extra={"worker_pid": worker.process.pid, "reason": reason})
        self._spawn(self._count_out(worker))
        return worker

    async def _count_out(self, worker: WorkerProcess) -> None:
        """Wait for its end."""
        await worker.ended.wait()
        self._living.discard(worker)
        if self._board is not None:
            self._board.count_out(worker)
        facts = {"worker_pid": worker.process.pid, "how": worker.how_ended}
        is_meant = worker.is_retired or self._is_stopping
        (log.info if is_meant else log.error)("worker ended", extra=facts)

    def _watch(self, slot: int, worker: WorkerProcess) -> None:
        self._spawn(self._restart(slot, worker))

    async def _restart(self, slot: int, worker: WorkerProcess) -> None:
        """When the worker dies, another one in its place, as often as it takes."""
        pause_s = 0.0
        while True:
            await worker.ended.wait()
            pause_s = next_pause_s(pause_s, lived_s=worker.ready_s)
            if worker.is_retired or self._is_stopping:
                return
            await self._sleep(pause_s)
            async with self._locks[slot]:
                if self._slots[slot] is not worker or self._is_stopping:
                    return
                worker = self._slots[slot] = await self._make("crash")
                is_serving = await worker.wait_loaded() and await worker.go()
                if not is_serving:
                    await worker.ended.wait()
            if not is_serving:
                self._complain("worker cannot serve", worker.error)

    async def _replace_all(self) -> None:
        """A new worker for each, one after the other; the old ones stay where it cannot serve."""
        before, self._bundle = self._bundle, self._follow_link()
        log.info("replacing workers", extra={"n_workers": len(self._slots)})
        for slot in range(len(self._slots)):
            async with self._locks[slot]:
                new = await self._make("replace")
                if not (await new.wait_loaded() and await new.go()):
                    await new.ended.wait()
                    if slot == 0:  # what dies from now on is started again as it was
                        self._bundle = before
                    self._complain("workers not replaced", new.error)
                    return
                old, self._slots[slot] = self._slots[slot], new
                self._watch(slot, new)
            if old is not None and not old.ended.is_set():
                old.retire()
                await old.ended.wait()
        log.info("workers replaced", extra={"n_workers": len(self._slots)})

    async def _stop(self, signals: StopSignals) -> None:
        """Drain all; what does not end in time is killed."""
        self._is_stopping = True
        await self._tell_all(signal.SIGTERM, self._plan.stop_within_s, signals.second)
        await self._tell_all(signal.SIGTERM, HASTE_S)  # the second one: do not wait for callers
        await self._tell_all(signal.SIGKILL, HASTE_S)
        for task in self._tasks:
            task.cancel()

    async def _tell_all(
        self, number: int, within_s: float, unless: asyncio.Event | None = None
    ) -> None:
        """Send a signal to all that live, and wait for their end, or for the event."""
        if not self._living:
            return
        for worker in self._living:
            worker.signal(number)
        ended = asyncio.gather(*[worker.ended.wait() for worker in self._living])
        tasks: list[asyncio.Future[Any]] = [ended]
        if unless is not None:
            tasks.append(asyncio.create_task(unless.wait()))
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)  # those that wait for an end have their turn

    async def _unless_stopped(self, signals: StopSignals, work: Coroutine[Any, Any, Any]) -> None:
        """Do the work; give it up where a signal says to stop."""
        tasks = [asyncio.create_task(work), asyncio.create_task(signals.first.wait())]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if tasks[0] in done:
            tasks[0].result()

    def _follow_link(self) -> str:
        """Where the bundle lies now; with `--watch` workers follow the link by themselves."""
        plan = self._plan
        return os.path.realpath(plan.bundle) if plan.is_pinned else plan.bundle

    def _complain(self, event: str, error: InstructRecError) -> None:
        what = {"code": error.code, "reason": error.message, "hint": error.hint}
        log.error(event, extra=what)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def next_pause_s(before_s: float, *, lived_s: float) -> float:
    """How long to wait before a dead worker is started again.

    Args:
        before_s: the wait before its own start; 0.0 where there was none.
        lived_s: for how long it had lived, if it was ever ready.
    """
    if lived_s > SETTLED_S:
        return 0.0
    return min(MAX_PAUSE_S, max(MIN_PAUSE_S, 2 * before_s))


def supervise(plan: Plan) -> None:
    """Run the plan until SIGTERM or SIGINT.

    Raises:
        InstructRecError: as `Supervisor.run`.
    """
    set_up_logs(format=plan.log_format, level=plan.log_level)
    asyncio.run(_supervise(plan))


async def _supervise(plan: Plan) -> None:
    with process_signals() as signals:
        board = partial(_open_board, plan) if plan.metrics_port else None
        await Supervisor(plan).run(signals, board)


def _open_board(plan: Plan, supervisor: Supervisor) -> Board:
    from instructrec_deploy.server.workers.board import MetricsBoard  # prometheus_client: 5 MB

    return MetricsBoard(supervisor, plan.host, plan.metrics_port)

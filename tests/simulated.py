"""A server without threads, in simulated time: queue, admission, workers of a known speed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from instructrec_deploy.core.errors import Overloaded
from instructrec_deploy.runtime.admission import Admission, OverloadSettings, Stay
from instructrec_deploy.runtime.batching import BatchingSettings, BatchQueue


@dataclass
class Caller:
    """Sends texts at random moments, whatever becomes of them (an open loop)."""

    tokens_per_s: float
    n_tokens: int = 200
    name: str = ""
    share: float = 1.0

    def arrivals(self, seconds: float, rng: random.Random) -> Iterator[float]:
        now = 0.0
        while (now := now + rng.expovariate(self.tokens_per_s / self.n_tokens)) < seconds:
            yield now


@dataclass
class Outcome:
    """What one caller got."""

    latencies_s: list[float] = field(default_factory=list)
    n_refused: int = 0
    n_tokens: int = 0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Simulation:
    """`run` gives for each caller what it got; the same seed gives the same.

    A batch takes a worker (its padded tokens + `call_tokens`) / `worker_tokens_per_s` seconds,
    more or less by `noise`.
    """

    def __init__(
        self,
        overload: OverloadSettings,
        batching: BatchingSettings = BatchingSettings(),
        *,
        n_workers: int = 2,
        worker_tokens_per_s: float = 5000.0,
        noise: float = 0.1,
        seed: int = 1,
    ) -> None:
        self.now = 0.0
        self._rng = random.Random(seed)
        self._settings = batching.fitted()
        self._n_workers = n_workers
        self._speed = worker_tokens_per_s
        self._noise = noise
        pace = self._settings.pace(n_workers)
        self.queue: BatchQueue[tuple[Caller, Stay]] = BatchQueue(
            self._settings.hurried(overload.due_s),
            clock=lambda: self.now,
            pace=pace,
            max_batch_s=overload.max_batch_s,
        )
        self.admission = Admission(overload, pace=pace, clock=lambda: self.now, n_workers=n_workers)

    def run(self, callers: list[Caller], seconds: float) -> list[Outcome]:
        """Let them call for so long, then finish what was accepted."""
        outcomes = {id(caller): Outcome() for caller in callers}
        orders = itertools.count()
        events: list[tuple[float, int, Caller | list[tuple[Caller, Stay]]]] = [
            (self.now + moment, next(orders), caller)
            for caller in callers
            for moment in caller.arrivals(seconds, self._rng)
        ]
        heapq.heapify(events)
        n_idle = self._n_workers
        while events:
            self.now, _, event = heapq.heappop(events)
            if isinstance(event, Caller):
                self._receive(event, outcomes[id(event)])
            else:
                n_idle += 1
                for caller, stay in event:
                    outcome = outcomes[id(caller)]
                    outcome.latencies_s.append(self.now - stay.came_s)
                    outcome.n_tokens += stay.n_tokens
                    self.admission.leave(stay, is_answered=True)
            while n_idle and (entries := self.queue.take(n_takers=n_idle).batch):
                n_idle -= 1
                n_tokens = sum(entry.n_tokens for entry in entries)
                padded = len(entries) * max(entry.n_tokens for entry in entries)
                spent = (padded + self._settings.call_tokens) / self._speed
                spent *= 1 + self._noise * self._rng.uniform(-1, 1)
                self.queue.pace.note(n_tokens, spent)
                batch = [entry.payload for entry in entries]
                heapq.heappush(events, (self.now + spent, next(orders), batch))
        return [outcomes[id(caller)] for caller in callers]

    def _receive(self, caller: Caller, outcome: Outcome) -> None:
        try:
            self.admission.check(caller.name)
            self.queue.reserve(tenant=caller.name)
        except Overloaded:
            outcome.n_refused += 1
            return
        stay = self.admission.enter(Stay(caller.n_tokens, caller.name, caller.share))
        self.queue.put(
            (caller, stay), n_tokens=caller.n_tokens, tenant=caller.name, share=caller.share
        )

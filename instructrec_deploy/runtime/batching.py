"""Which waiting requests are computed together: a data structure without threads.

A free worker takes the most urgent request of the tenant whose turn it is and those nearest to it
in length, under a budget of padded tokens. A request waits while every worker is busy, and company
gathers meanwhile; a moment longer only for callers that were just answered (`gathering`). Batching
in order of arrival would pad a batch of mixed lengths to 2.5 to 3 times its tokens, which on CPU is
slower than no batching at all.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import Field

from instructrec_deploy.core.errors import DeadlinePassed, Overloaded
from instructrec_deploy.core.settings import Section
from instructrec_deploy.runtime.pace import Pace, retry_ms
from instructrec_deploy.runtime.turns import Turns
from instructrec_deploy.runtime.twins import Twins

PayloadT = TypeVar("PayloadT")
MIXED_S = 10.0  # so long after several tenants asked, more are expected to
SHORT_CALLS = 16  # tokens of a short batch, in calls: what calls cost is a sixteenth of it
MAX_RIDERS = 256  # of a batch, read with others of it; their answers are made one by one
END = 1 << 62  # behind the last place
LENGTH_MEMORY = 0.1  # weight of the newest request in the moving mean of lengths
CPU_FIT = {"max_batch_tokens": 1024, "max_batch_items": 64, "call_tokens": 6}
GPU_FIT = {"max_batch_tokens": 16_384, "max_batch_items": 256, "call_tokens": 2048}


class BatchingSettings(Section):
    """How requests queue and meet; 0 means "as fits the engine" (`fitted`)."""

    max_batch_tokens: int = Field(default=0, ge=0)  # padded tokens of one batch
    max_batch_items: int = Field(default=0, ge=0)
    max_queue_items: int = Field(default=2048, ge=1)  # waiting; one more is refused at once
    call_tokens: int = Field(default=0, ge=0)  # padded tokens worth spending to save a call
    # A request without a deadline, or with a late one, is as urgent as one due this long after it
    # came; so an early deadline goes first and no one starves.
    patience_s: float = Field(default=1.0, gt=0.0)
    # Refuse at once what would be late anyway, by the pace measured so far.
    use_admission: bool = True
    # Read texts that are equal once while they are in flight.
    join_equal: bool = True
    # A free worker waits so long for a caller that was just answered to come back, and longer for
    # several, before it begins with less than its share of them; 0: it does not wait.
    gather_ms: float = Field(default=0.5, ge=0.0)

    def fitted(self, *, is_gpu: bool = False, batch_tokens: int = 0) -> BatchingSettings:
        """The same with its zeros filled in; `batch_tokens`: as measured, 0 where nothing was.

        On CPU a call costs as much as 5 to 8 tokens (MiniLM int8: 5.1 ms for one text of 24
        tokens, 4.3 ms each for eight); allowing 16 made 32 callers' batches 27 % padding and cost
        10 % of the throughput. Where attention alone computes padding, more gained nothing,
        too (docs/adr/0010-unpadded-graphs.md). A GPU is idle with less than some thousand tokens.
        """
        fits = GPU_FIT if is_gpu else CPU_FIT
        if batch_tokens:
            fits = fits | {"max_batch_tokens": batch_tokens}
        return self.model_copy(update={k: v for k, v in fits.items() if not getattr(self, k)})

    def hurried(self, target_s: float) -> BatchingSettings:
        """The same where a request without a deadline is due after so many seconds."""
        return self.model_copy(update={"patience_s": min(self.patience_s, target_s)})

    def share_tokens(self, n_tokens: float, n_workers: int) -> float:
        """Tokens of a batch while so many are in flight: what the workers have is alike.

        A worker that took all that waits would leave the next one little, and have its own callers
        wait. A short batch it is at least. Of settings that are fitted.
        """
        return max(SHORT_CALLS * self.call_tokens, n_tokens / n_workers)

    def pace(self, n_workers: int) -> Pace:
        """A pace to learn, for so many workers; of settings that are fitted."""
        return Pace(
            n_workers=n_workers, call_tokens=self.call_tokens, batch_tokens=self.max_batch_tokens
        )


@dataclass(slots=True, eq=False)
class Entry(Generic[PayloadT]):
    """One waiting request."""

    payload: PayloadT
    n_tokens: int
    arrived_s: float
    deadline_s: float
    urgency_s: float
    order: int
    tenant: str = ""
    share: float = 1.0
    reading: Hashable = None  # equal to that of those which are read with it
    n_due: int = 0  # see `turns.Waiting`
    is_waiting: bool = True


@dataclass(slots=True)
class Taken(Generic[PayloadT]):
    """What `take` gives: a batch to compute, and what came too late to be."""

    batch: list[Entry[PayloadT]] = field(default_factory=list)
    n_read: int = 0  # of the batch; those behind read the same as one of these
    expired: list[Entry[PayloadT]] = field(default_factory=list)

    @property
    def padded_tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.n_read * max((e.n_tokens for e in self.batch), default=0)


class BatchQueue(Generic[PayloadT]):
    """Waiting requests. Not thread-safe: its owner holds a lock.

    A request is first given a place (`reserve`: refused at once where there is none), later put
    in with its length known (`put`), then taken, or discarded. A place that is not used is given
    back (`release`).

    Args:
        clock: monotonic seconds; the same clock as the deadlines'.
        pace: how fast those are that take batches; its owner tells it. One worker's where None.
        max_batch_s: how long a batch of several may take a worker.
    """

    def __init__(
        self,
        settings: BatchingSettings = BatchingSettings(),
        *,
        clock: Callable[[], float],
        pace: Pace | None = None,
        max_batch_s: float = math.inf,
    ) -> None:
        self._settings = settings.fitted()
        self._clock = clock
        self.pace = pace or self._settings.pace(1)
        self._max_batch_s = max_batch_s
        self._orders = itertools.count()
        self._turns: Turns[Entry[PayloadT]] = Turns(credit_tokens=self._settings.max_batch_tokens)
        self._twins: Twins[Entry[PayloadT]] = Twins()
        self._by_length: list[tuple[int, int, Entry[PayloadT]]] = []
        self._by_deadline: list[tuple[float, int, Entry[PayloadT]]] = []  # a heap, cleaned lazily
        self._n_reserved = 0
        self._last_tenant: str | None = None
        self._mixed_s = -math.inf  # when a request came that was not of the last one's tenant
        self._mean_tokens = 0.0  # moving mean of a request's length; 0.0: not known yet

    def __len__(self) -> int:
        """Requests that can be taken."""
        return len(self._turns)

    @property
    def n_waiting(self) -> int:
        """Requests that have a place: those that can be taken and those still to be put in."""
        return len(self._turns) + self._n_reserved

    @property
    def n_waiting_tokens(self) -> float:
        """Tokens of all that have a place; of those still to be put in, by the mean so far."""
        return self._turns.n_tokens + self._n_reserved * self._mean_tokens

    def reserve(self, deadline_s: float | None = None, *, tenant: str = "") -> None:
        """Take a place for a request that is still to be tokenized.

        Raises:
            Overloaded: no place, or it would not be answered before its deadline.
            DeadlinePassed: the deadline has passed already.
        """
        now = self._clock()
        if deadline_s is not None and deadline_s <= now:
            raise DeadlinePassed(
                "the deadline had passed when the request came", hint="allow more time"
            )
        if self.n_waiting >= self._settings.max_queue_items:
            raise Overloaded(
                f"{self.n_waiting} requests are waiting, the limit",
                hint="try again later, or add workers",
                retry_after_ms=retry_ms(self.pace.wait_s(self.n_waiting_tokens) / 2),
                reason="queue",
            )
        if deadline_s is not None and self._settings.use_admission:
            self._check_wait(now, deadline_s, tenant)
        self._n_reserved += 1

    def release(self) -> None:
        """Give a reserved place back."""
        self._n_reserved -= 1

    def put(
        self,
        payload: PayloadT,
        *,
        n_tokens: int,
        deadline_s: float | None = None,
        arrived_s: float | None = None,
        tenant: str = "",
        share: float = 1.0,
        reading: Hashable = None,
    ) -> Entry[PayloadT]:
        """Put a request in at the place reserved for it.

        Args:
            n_tokens: its length.
            deadline_s: when its answer is worth nothing any more; None for never.
            arrived_s: when it came; now where None.
            tenant: who sent it.
            share: of the workers that the tenant gets beside one of 1.0.
            reading: those of which it is equal are computed as one; None for none.
        """
        self._n_reserved -= 1
        arrived = self._clock() if arrived_s is None else arrived_s
        deadline = math.inf if deadline_s is None else deadline_s
        urgency = min(deadline, arrived + self._settings.patience_s)
        times = arrived, deadline, urgency
        entry = Entry(payload, n_tokens, *times, next(self._orders), tenant, share, reading)
        entry.n_due = n_tokens if self._twins.add(reading, entry) else 0
        self._turns.add(entry)
        if tenant != self._last_tenant:
            self._mixed_s = self._clock() if self._last_tenant is not None else -math.inf
            self._last_tenant = tenant
        insort(self._by_length, (n_tokens, entry.order, entry))
        mean = self._mean_tokens or n_tokens
        self._mean_tokens = mean + LENGTH_MEMORY * (n_tokens - mean)
        if deadline < math.inf:
            heapq.heappush(self._by_deadline, (deadline, entry.order, entry))
        return entry

    def discard(self, entry: Entry[PayloadT]) -> bool:
        """Drop a request; False where it was taken or dropped before."""
        if not entry.is_waiting:
            return False
        self._remove(entry)
        return True

    def take(
        self, *, n_takers: int = 1, n_coming: int = 0, share_tokens: float = math.inf
    ) -> Taken[PayloadT]:
        """Take the most urgent request of whose turn it is, and its nearest in length.

        The batch keeps `max_batch_tokens` (padded) unless its one item exceeds it, takes at most
        its share of what waits, and no company for which the most urgent would miss its deadline.
        What reads the same as one of the batch comes along, without limit and free of charge.

        Args:
            n_takers: workers that are free now, the caller included: they share what waits.
            n_coming: requests that are expected at any moment, and are shared, too.
            share_tokens: padded tokens of a batch that leaves the other workers theirs.
        """
        taken: Taken[PayloadT] = Taken(expired=list(self._drop_expired()))
        first = self._turns.first()
        if first is not None:
            share = math.ceil((len(self._turns) + n_coming) / max(1, n_takers))
            limit = min(share, self._settings.max_batch_items)
            taken.batch = self._batch(first, limit, share_tokens)
            taken.n_read = len(taken.batch)
            taken.batch += self._riders(taken.batch)
        for entry in taken.batch:
            self._remove(entry)
        return taken

    def _batch(
        self, first: Entry[PayloadT], limit: int, share_tokens: float
    ) -> list[Entry[PayloadT]]:
        """A request with its company, which is charged to its tenants."""
        budget = min(self._budget_tokens(first), share_tokens)
        low = bisect_left(self._by_length, (first.n_tokens, -1))  # of like ones the oldest first
        high = low - 1
        self._turns.charge(first)
        now = self._clock()
        batch, longest, readings = [first], first.n_tokens, {first.reading} - {None}
        can_shrink = can_grow = True  # while the next shorter, the next longer fit
        while len(batch) < limit:
            side = self._nearer(low if can_shrink else 0, high if can_grow else END, first.n_tokens)
            if side == 0:
                break
            entry = self._by_length[low - 1 if side < 0 else high + 1][2]
            if not self._is_worth(len(batch), longest, entry.n_tokens, budget):
                can_shrink, can_grow = can_shrink and side > 0, can_grow and side < 0
                continue
            low, high = (low - 1, high) if side < 0 else (low, high + 1)
            if entry is first or entry.reading in readings:
                continue
            if self._turns.may_ride(entry, now, budget):
                self._turns.charge(entry)
                if entry.reading is not None:
                    readings.add(entry.reading)
                batch.append(entry)
                longest = max(longest, entry.n_tokens)
        return batch

    def _riders(self, batch: list[Entry[PayloadT]]) -> list[Entry[PayloadT]]:
        """Those that read the same as one of the batch."""
        twins = (twin for entry in batch for twin in self._twins.of(entry.reading))
        return list(itertools.islice((t for t in twins if t not in batch), MAX_RIDERS))

    def take_all(self) -> list[Entry[PayloadT]]:
        """Empty the queue, most urgent first."""
        entries = list(self._turns)
        for entry in entries:
            self._remove(entry)
        return entries

    def _budget_tokens(self, first: Entry[PayloadT]) -> float:
        """Padded tokens of a batch in which this request still meets its deadline.

        While several tenants ask, batches are short: whoever comes next waits for the whole batch
        of another. One that cannot, even alone, is no reason to compute a small batch.
        """
        both = [first, *self._twins.of(first.reading)]
        in_time = self.pace.tokens_in(min(e.deadline_s for e in both) - self._clock())
        budget = min(self._settings.max_batch_tokens, self.pace.tokens_in(self._max_batch_s))
        if self._clock() - self._mixed_s < MIXED_S:
            budget = min(budget, SHORT_CALLS * self._settings.call_tokens)
        return min(budget, in_time) if in_time >= first.n_tokens else budget

    def _is_worth(self, n_items: int, longest: int, length: int, budget: float) -> bool:
        """Whether one more of this length fits the budget and wastes less than its own call."""
        padded = (n_items + 1) * max(longest, length)
        waste = padded - n_items * longest - length
        return padded <= budget and waste <= self._settings.call_tokens

    def _nearer(self, low: int, high: int, length: int) -> int:
        """-1: the one before `low` is nearer; 1: the one behind `high`; 0: there is neither."""
        below = length - self._by_length[low - 1][0] if low > 0 else math.inf
        last = len(self._by_length) - 1
        above = self._by_length[high + 1][0] - length if high < last else math.inf
        if below == above == math.inf:
            return 0
        return -1 if below < above else 1

    def _drop_expired(self) -> Iterator[Entry[PayloadT]]:
        now = self._clock()
        while self._by_deadline and self._by_deadline[0][0] <= now:
            entry = heapq.heappop(self._by_deadline)[2]
            if entry.is_waiting:
                self._remove(entry)
                yield entry

    def _remove(self, entry: Entry[PayloadT]) -> None:
        entry.is_waiting = False
        self._turns.remove(entry)
        heir = self._twins.remove(entry.reading, entry)
        if heir is not None:
            self._turns.fall_due(heir)
        del self._by_length[bisect_left(self._by_length, (entry.n_tokens, entry.order))]
        # The heap forgets taken entries now and then, so that it does not outgrow the queue.
        if len(self._by_deadline) > 2 * len(self._turns) + 64:
            self._by_deadline = [row for row in self._by_deadline if row[2].is_waiting]
            heapq.heapify(self._by_deadline)

    def _check_wait(self, now: float, deadline_s: float, tenant: str) -> None:
        urgency = min(deadline_s, now + self._settings.patience_s)
        n_tokens = self._turns.tokens_before(tenant, urgency)
        n_tokens += self._n_reserved * self._mean_tokens
        own_s = self.pace.batch_s(self._mean_tokens)
        late_s = now + self.pace.wait_s(n_tokens) + own_s - deadline_s
        if n_tokens and late_s > 0:
            raise Overloaded(
                f"the answer would come {round(late_s * 1000)} ms too late",
                hint="allow more time, or try again later",
                retry_after_ms=retry_ms(late_s),
                reason="deadline",
            )

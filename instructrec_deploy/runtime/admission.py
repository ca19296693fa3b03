"""Whom the scheduler lets in, so that those let in are answered within the latency target.

What is in flight is counted in tokens. By Little's law a server that computes `rate` tokens a
second holds its target while at most `target * rate` tokens are in flight; the rate is measured,
and the share of that bound which really keeps the target is learned from the answers' latencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from pydantic import Field

from instructrec_deploy.core.errors import Overloaded
from instructrec_deploy.core.settings import Section
from instructrec_deploy.runtime.pace import Pace, retry_ms
from instructrec_deploy.runtime.twins import Twins

BATCH_SHARE = 0.25  # of the target that one batch may take: those behind it wait for it, too
# Tenants that have little in flight are let in beside one that fills the limit, until all that is
# in flight takes this many times the target.
MOST_FULL = 2.0


class OverloadSettings(Section):
    """`[overload]`: how soon answers are due, and who may ask how much."""

    # 99 of 100 accepted texts are answered this soon after they came; what would take longer is
    # refused at once. 0: no target; then deadlines and `batching.max_queue_items` alone limit.
    target_p99_ms: float = Field(default=0.0, ge=0.0)
    # Tokens a second that a tenant may have read over time, where its key says nothing else; 0: as
    # many as it likes. And at most at once; 0: ten seconds of it.
    tenant_tokens_per_s: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    tenant_burst_tokens: int = Field(default=0, ge=0)

    @property
    def due_s(self) -> float:
        """Seconds in which an answer is due; infinity without a target."""
        return self.target_p99_ms / 1000 or math.inf

    @property
    def max_batch_s(self) -> float:
        """Seconds that a batch of several may take; infinity without a target."""
        return BATCH_SHARE * self.due_s


class TargetShare:
    """Which share of the target the expected wait may be: more while answers keep the target.

    Additive increase, multiplicative decrease. A late answer cuts the share, but only once for all
    that was in flight: it waited behind what had been let in before. One in time raises it a
    little, at most once in the time of the target (a tenant's short waits say nothing about
    another's long ones), and not while there is room, for then nobody waits.

    Source: D.-M. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for
    congestion avoidance in computer networks" (1989), with the round trips of TCP Reno.
    """

    CUT = 0.1
    RISE = 0.01  # a tenth of a cut: one step in eleven or so is one
    AIM = 0.9  # of the target: answers later than that cut, so that few are later than the target
    LEAST, MOST = 0.1, 2.0  # the pace may be wrong by that much, in either direction

    def __init__(self) -> None:
        self.share = 0.8
        self.n_late = 0
        self._cut_s = self._step_s = float("-inf")

    def note(self, *, came_s: float, now_s: float, target_s: float, is_full: bool) -> None:
        """Learn from an answer: when its request came, and whether there was much to do."""
        latency_s = now_s - came_s
        self.n_late += latency_s > target_s
        if latency_s > self.AIM * target_s:
            if came_s >= self._cut_s:
                self.share = max(self.LEAST, self.share * (1 - self.CUT))
                self._cut_s = self._step_s = now_s
        elif is_full and now_s - self._step_s >= target_s:
            self.share = min(self.MOST, self.share + self.RISE)
            self._step_s = now_s


@dataclass(slots=True, eq=False)
class Stay:
    """A request that was let in, until it leaves."""

    n_tokens: int  # as far as it is known
    tenant: str = ""  # who sends it; "" for anyone
    share: float = 1.0  # its tenant's, beside others
    came_s: float = 0.0
    reading: Hashable = None  # see `Admission.measure`
    n_due: int = 0  # what it counts for: nothing beside one that reads the same


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the workers are."""

    n_tokens: int  # in flight: waiting or being computed
    limit_tokens: float  # in flight at most; 0.0: no target, or no pace yet
    tokens_per_s: float  # of all workers; 0.0: not known yet
    wait_s: float  # until all that is in flight is done
    n_tenants: int  # with something in flight
    n_late: int  # answers later than the target, since the start


class Admission:
    """Counts what is in flight and refuses what would be late. Its owner holds a lock.

    Args:
        pace: how fast the workers are.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: OverloadSettings,
        *,
        pace: Pace,
        clock: Callable[[], float],
        n_workers: int = 1,
    ) -> None:
        self._target_s = settings.target_p99_ms / 1000  # 0.0: none
        self._pace = pace
        self._clock = clock
        self._n_workers = n_workers
        self._share = TargetShare()
        self._twins: Twins[Stay] = Twins()
        self._n_items = 0
        self._n_tokens = 0
        self._by_tenant: dict[str, int] = {}  # tokens in flight; only those that have some
        self._shares: dict[str, float] = {}  # of the same tenants

    @property
    def n_tokens(self) -> int:
        """In flight."""
        return self._n_tokens

    def load(self) -> Load:
        """What is in flight now, and how much may be."""
        limit = 0.0
        if self._target_s and self._pace.token_s:
            limit = self._n_workers * self._pace.tokens_in(self._allowed_s)
        return Load(
            n_tokens=self._n_tokens,
            limit_tokens=limit,
            tokens_per_s=self._pace.tokens_per_s,
            wait_s=self._pace.wait_s(self._n_tokens),
            n_tenants=len(self._by_tenant),
            n_late=self._share.n_late,
        )

    def check(self, tenant: str = "") -> None:
        """Refuse what would wait too long; how long it is itself does not count against it.

        Tenants are served in turn, so one waits for its own tokens and as many of each other (more
        or fewer, by their shares); one that has less than half its part is not to blame for a late
        answer. An idle worker is
        never kept from work.

        Args:
            tenant: who asks; "" for anyone.

        Raises:
            Overloaded: it would wait longer than the target allows.
        """
        if not self._target_s or self._n_items < self._n_workers:
            return
        own = self._by_tenant.get(tenant, 0)
        turns = own * sum(self._shares.values()) / self._shares[tenant] if own else 0.0
        wait_s = self._pace.wait_s(min(self._n_tokens, turns))
        if wait_s <= self._allowed_s or 2 * turns <= self._n_tokens:
            wait_s = self._pace.wait_s(self._n_tokens)
            if wait_s <= MOST_FULL * self._target_s:
                return
        raise Overloaded(
            f"a wait of {round(wait_s * 1000)} ms is expected, longer than the target allows",
            hint="try again later, or send less at a time",
            retry_after_ms=retry_ms(wait_s),
            reason="target",
        )

    def enter(self, stay: Stay) -> Stay:
        """Count a request as in flight from now on."""
        stay.came_s = self._clock()
        self._n_items += 1
        self._add(stay, stay.n_tokens)
        return stay

    def measure(self, stay: Stay, n_tokens: int, reading: Hashable = None) -> None:
        """A request has been read: its true length, and what it shares with those of like reading.

        Of these only one counts, as only one is computed.
        """
        stay.n_tokens, stay.reading = n_tokens, reading
        self._add(stay, (n_tokens if self._twins.add(reading, stay) else 0) - stay.n_due)

    def leave(self, stay: Stay, *, is_answered: bool) -> None:
        """A request has ended."""
        if is_answered and self._target_s:
            is_full = 2 * self._pace.wait_s(self._n_tokens) >= self._allowed_s
            self._share.note(
                came_s=stay.came_s, now_s=self._clock(), target_s=self._target_s, is_full=is_full
            )
        self._n_items -= 1
        heir = self._twins.remove(stay.reading, stay)
        if heir is not None:
            self._add(heir, heir.n_tokens - heir.n_due)
        self._add(stay, -stay.n_due)

    def _add(self, stay: Stay, n_tokens: int) -> None:
        stay.n_due += n_tokens
        self._n_tokens += n_tokens
        due = self._by_tenant.get(stay.tenant, 0) + n_tokens
        if due:
            self._by_tenant[stay.tenant], self._shares[stay.tenant] = due, stay.share
        else:
            self._by_tenant.pop(stay.tenant, None)
            self._shares.pop(stay.tenant, None)

    @property
    def _allowed_s(self) -> float:
        return self._share.share * self._target_s

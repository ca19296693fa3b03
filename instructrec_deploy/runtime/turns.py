"""Whose turn it is: tenants that wait share the workers by tokens; in a tenant, the most urgent."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

MAX_IDLE_LINES = 64  # lines kept for what their tenants are ahead; the oldest news are forgotten


class Waiting(Protocol):
    """What stands in a line."""

    tenant: str
    n_tokens: int
    n_due: int  # tokens by which more is to be computed: none beside one that reads the same
    urgency_s: float
    order: int
    share: float


EntryT = TypeVar("EntryT", bound=Waiting)


@dataclass(slots=True)
class Line(Generic[EntryT]):
    """The requests of one tenant, by urgency."""

    tag: float  # the virtual time at which its next request begins
    entries: list[tuple[float, int, EntryT]] = field(default_factory=list)
    n_tokens: int = 0
    share: float = 1.0  # what its tenant gets beside one of 1.0


class Turns(Generic[EntryT]):
    """Lines of waiting requests, one for each tenant. Not thread-safe: its owner holds a lock.

    Virtual time is counted in tokens. The line with the earliest start tag is next; what is taken
    moves its tag on by its tokens over its tenant's share. A line that was empty goes on where it
    ended, but starts no further back than `credit_tokens` before the present virtual time, as that
    of a new tenant does: who asks for less than a part of the workers has the few texts of one
    moment read one after the other, not in turn with those of a tenant that floods them. Nobody
    saves up more than that, or owes more for what no one else wanted.

    Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time fair queueing" (1996); ours adds companions
    (`may_ride`), which are taken before their turn because they fit a batch, and the credit, as
    schedulers of processes give it to those that sleep.

    Args:
        credit_tokens: what a tenant of share 1.0 keeps at most of its unused turns.
    """

    def __init__(self, credit_tokens: float = 0.0) -> None:
        self._credit_tokens = credit_tokens
        self._lines: dict[str, Line[EntryT]] = {}
        self._time = 0.0
        self._n_entries = 0
        self._n_busy = 0  # lines in which something waits
        self.n_tokens = 0  # of all that waits

    def __len__(self) -> int:
        """Requests that wait."""
        return self._n_entries

    def __iter__(self) -> Iterator[EntryT]:
        """All that wait, the most urgent first."""
        rows = [row for line in self._lines.values() for row in line.entries]
        return iter([entry for _, _, entry in sorted(rows, key=lambda row: row[:2])])

    def add(self, entry: EntryT) -> None:
        """Put a request into its tenant's line."""
        line = self._lines.get(entry.tenant)
        if line is None:
            line = self._lines[entry.tenant] = Line(-math.inf)
        if not line.entries:
            line.tag = max(line.tag, self._time - self._credit_tokens / entry.share)
            self._n_busy += 1
        line.share = entry.share
        insort(line.entries, (entry.urgency_s, entry.order, entry))
        line.n_tokens += entry.n_due
        self.n_tokens += entry.n_due
        self._n_entries += 1

    def remove(self, entry: EntryT) -> None:
        """Take a request out of its line."""
        line = self._lines[entry.tenant]
        del line.entries[bisect_left(line.entries, (entry.urgency_s, entry.order))]
        line.n_tokens -= entry.n_due
        self.n_tokens -= entry.n_due
        self._n_entries -= 1
        if not line.entries:
            self._n_busy -= 1
            if len(self._lines) - self._n_busy > MAX_IDLE_LINES:
                self._forget()

    def fall_due(self, entry: EntryT) -> None:
        """A waiting request is to be read itself: the one that it would have joined is gone."""
        self._lines[entry.tenant].n_tokens += entry.n_tokens - entry.n_due
        self.n_tokens += entry.n_tokens - entry.n_due
        entry.n_due = entry.n_tokens

    def first(self) -> EntryT | None:
        """Whose turn it is; virtual time moves on to it."""
        lines = [line for line in self._lines.values() if line.entries]
        if not lines:
            return None
        line = min(lines, key=lambda line: (line.tag, line.entries[0][:2]))
        self._time = max(self._time, line.tag)
        return line.entries[0][2]

    def charge(self, entry: EntryT) -> None:
        """A waiting request is to be computed: its tenant's next turn comes later."""
        line = self._lines[entry.tenant]
        line.tag += entry.n_tokens / line.share

    def may_ride(self, entry: EntryT, now_s: float, ahead_tokens: float) -> bool:
        """Whether a request may be computed before its tenant's turn.

        The tenant may be ahead by no more than so many tokens, and what is overdue goes first: a
        line that only ever rides with its young ones would never get to its old ones.
        """
        if self._n_busy == 1:
            return True
        line = self._lines[entry.tenant]
        is_passed = line.entries[0][0] <= now_s < entry.urgency_s
        return line.tag <= self._time + ahead_tokens and not is_passed

    def tokens_before(self, tenant: str, urgency_s: float) -> float:
        """About how many tokens come before a new request of that urgency.

        Those of its tenant that are more urgent, and as many of each other tenant that waits, more
        or fewer by their shares.
        """
        line = self._lines.get(tenant)
        if line is None or not line.entries:
            return 0.0
        n_before = bisect_left(line.entries, (urgency_s, -math.inf))
        own = line.n_tokens * n_before / len(line.entries)
        shares = sum(line.share for line in self._lines.values() if line.entries)
        return min(own * shares / line.share, self.n_tokens)

    def _forget(self) -> None:
        """Drop empty lines whose tenants are not ahead; of the others keep the latest.

        A tenant that is forgotten comes back as a new one, with all its credit.
        """
        idle = [name for name, line in self._lines.items() if not line.entries]
        over = len(idle) - MAX_IDLE_LINES
        for index, name in enumerate(idle):
            if index < over or self._lines[name].tag <= self._time:
                del self._lines[name]

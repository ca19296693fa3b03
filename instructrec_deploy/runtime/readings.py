"""What the encoder reads just now, and requests that read the same and came for it meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from instructrec_deploy.runtime.tickets import Ticket


@dataclass(slots=True, eq=False)
class Reading:
    """A batch while the encoder reads it."""

    keys: frozenset[Hashable]
    texts: frozenset[Hashable]  # what its requests brought
    joined: list[Ticket] = field(default_factory=list)


class Readings:
    """What is being read, and who came for it. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Reading] = {}

    def begin(self, tickets: Sequence[Ticket]) -> Reading:
        """From now on others may join these."""
        jobs = [ticket.job for ticket in tickets if ticket.job.reading is not None]
        reading = Reading(
            frozenset(job.reading for job in jobs), frozenset(job.request.texts for job in jobs)
        )
        self._by_key.update(dict.fromkeys(reading.keys, reading))
        return reading

    def join(self, ticket: Ticket) -> bool:
        """Have a ticket answered from what is being read; False where that is something else."""
        reading = self._by_key.get(ticket.job.reading)
        if reading is None:
            return False
        reading.joined.append(ticket)
        return True

    def end(self, reading: Reading) -> list[Ticket]:
        """It is read: nobody joins any more. Who did."""
        for key in reading.keys:
            if self._by_key.get(key) is reading:
                del self._by_key[key]
        joined, reading.joined = reading.joined, []
        return joined


def pick_twins(arrivals: deque[Ticket], reading: Reading, limit: int) -> list[Ticket]:
    """Take those out of the arrivals that brought a text which is being read."""
    found = [ticket for ticket in arrivals if ticket.job.request.texts in reading.texts][:limit]
    for ticket in found:
        arrivals.remove(ticket)
    return found

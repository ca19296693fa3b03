"""The tickets of a scheduler that have not ended, and the three ways in which one ends."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.runtime.admission import Admission
from instructrec_deploy.runtime.batching import BatchQueue
from instructrec_deploy.runtime.gathering import Gathering
from instructrec_deploy.runtime.observer import DropReason, Observer
from instructrec_deploy.runtime.pipeline import Outcome
from instructrec_deploy.runtime.tickets import Ticket, deliver


class OpenTickets:
    """Counts those that hold a place or are being computed, and gives back what they held.

    Args:
        lock: of the scheduler; methods take it, so call them without it.
        admission, queue: what tickets hold places in.
        gathering: told of those that are answered.
        observer: hears of those that end without an answer.
    """

    def __init__(
        self,
        lock: threading.Lock,
        admission: Admission,
        queue: BatchQueue[Ticket],
        gathering: Gathering,
        observer: Observer,
    ) -> None:
        self.n_tickets = 0  # changes under the lock
        self.ended = threading.Condition(lock)  # told when there are fewer
        self._admission = admission
        self._queue = queue
        self._gathering = gathering
        self._observer = observer

    def begin(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those that are to be computed: who waits for them can cancel them no more."""
        begun = [ticket for ticket in tickets if ticket.future.set_running_or_notify_cancel()]
        if len(begun) < len(tickets):
            self.refuse([t for t in tickets if t.future.cancelled()], None, "cancelled")
        return begun

    def finish(self, tickets: Sequence[Ticket], outcomes: Iterable[Outcome]) -> None:
        """End tickets with what was computed."""
        with self.ended:  # first: a caller may be back before the last one is told
            self._gathering.leave(len(tickets))
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            deliver(ticket.future, outcome)
        self._close(tickets, is_answered=True)

    def refuse(
        self, tickets: Iterable[Ticket], error: InstructRecError | None, reason: DropReason | None
    ) -> None:
        """End open tickets without an answer; None for those their owners cancelled."""
        tickets = list(tickets)
        if not tickets:
            return
        gone = self._close(tickets)
        for ticket in gone:
            if error is not None and not ticket.future.done():
                deliver(ticket.future, error)
        if gone and reason is not None:
            self._observer.dropped(reason, len(gone))

    def _close(self, tickets: Iterable[Ticket], *, is_answered: bool = False) -> list[Ticket]:
        """Count tickets as ended and give back their places; those that were open until now."""
        with self.ended:
            gone = [ticket for ticket in tickets if ticket.is_open]
            for ticket in gone:
                ticket.is_open = False
                ticket.entry = ticket.future.on_cancel = None  # no circles: gone with the last user
                if ticket.stay is not None:
                    self._admission.leave(ticket.stay, is_answered=is_answered)
                if ticket.has_place:
                    ticket.has_place = False
                    self._queue.release()
            self.n_tickets -= len(gone)
            self.ended.notify_all()
        return gone

"""A request inside the scheduler, and how its future gets its end."""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InstructRecError,
    InternalError,
    Unavailable,
)
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.admission import Stay
from instructrec_deploy.runtime.batching import Entry
from instructrec_deploy.runtime.jobs import Job, place_rows
from instructrec_deploy.runtime.observer import BatchStats

ResultT = TypeVar("ResultT")
log = logging.getLogger(__name__)


class Answering(Future[Prediction]):
    """The answer to a request; `on_cancel` is called when its owner cancels it."""

    on_cancel: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """See `Future`. Cheaper than a callback, which every future that is answered runs, too."""
        is_cancelled = super().cancel()
        if is_cancelled and self.on_cancel is not None:
            self.on_cancel()
        return is_cancelled


@dataclass(slots=True, eq=False)
class Ticket:
    """A request inside the scheduler. Its flags change under the scheduler's lock."""

    job: Job
    future: Answering
    is_open: bool = True  # not ended yet
    has_place: bool = True  # a place in the queue is reserved for it
    stay: Stay | None = None  # what it counts for among all in flight
    entry: Entry[Ticket] | None = None  # set once it is in the queue
    n_missing: int = 0  # instructions still to be prepared

    def is_wanted(self, now_s: float) -> bool:
        """Whether anyone still waits for the answer."""
        return not self.future.cancelled() and not self.is_late(now_s)

    def is_late(self, now_s: float) -> bool:
        """Whether its deadline has passed."""
        return self.job.deadline_s is not None and self.job.deadline_s <= now_s


def batch_stats(tickets: Sequence[Ticket], *, lane: int, inference_s: float) -> BatchStats:
    """What a computed batch of tickets was."""
    rows, places = place_rows([ticket.job for ticket in tickets])
    lengths = [len(row) for row in rows]
    return BatchStats(
        lane=lane,
        n_items=len(tickets),
        n_joined=len(tickets) - len(set(places)),
        n_tokens=sum(lengths),
        n_padded_tokens=max(lengths) * len(lengths),
        inference_s=inference_s,
    )


def deliver(future: Future[ResultT], outcome: ResultT | InstructRecError) -> bool:
    """End a future that nobody has ended; False where its owner had cancelled it."""
    if not future.running() and not future.set_running_or_notify_cancel():
        return False
    if isinstance(outcome, InstructRecError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return True


def known_error(fault: Exception) -> InstructRecError:
    """What a caller gets to see: an error of ours itself; of a fault an id that stands in the log.

    The fault's own words may hold a text, so the log gets its type and where it was raised.
    """
    if isinstance(fault, InstructRecError):
        return fault
    error_id = uuid.uuid4().hex[:12]
    where = "".join(traceback.format_tb(fault.__traceback__))
    log.error("internal error %s: %s\n%s", error_id, type(fault).__name__, where)
    return InternalError(f"internal error {error_id}", hint="give this id to whoever runs it")


def late_error() -> DeadlinePassed:
    """What a caller gets whose time was up."""
    return DeadlinePassed("the deadline passed while the request waited", hint="allow more time")


def closing_error() -> Unavailable:
    """What a caller gets whose request waits while the scheduler ends."""
    return Unavailable("the server is closing", hint="try again with another server")

"""What the scheduler tells whoever counts. Called by its threads, outside its lock: be quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from instructrec_deploy.core.errors import OverloadReason

DropReason = Literal["expired", "cancelled", "closed"]


@dataclass(slots=True)
class BatchStats:
    """One computed batch."""

    lane: int
    n_items: int
    n_joined: int  # of the items: answered from the reading of an equal text
    n_tokens: int  # real ones
    n_padded_tokens: int  # computed, padding included
    inference_s: float
    n_waiting: int = 0  # requests still waiting when it was done


class Observer:
    """Hears of everything and does nothing; override what you count."""

    def queued(self, n_waiting: int) -> None:
        """A request was admitted; so many wait now."""

    def batch_done(self, stats: BatchStats) -> None:
        """A batch was computed."""

    def dropped(self, reason: DropReason, n_items: int) -> None:
        """Requests that had been queued, or came too late to be, were not computed, and why."""

    def refused(self, reason: OverloadReason) -> None:
        """A request was refused at once, before it counted as queued."""

    def prepared(self, n_candidates: int, seconds: float) -> None:
        """An instruction was prepared, in this much computing time."""

"""Corrections of callers, kept by a thread of their own: a disk's sync must not hold up answers."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from instructrec_deploy.core.errors import FeedbackOff, Overloaded
from instructrec_deploy.core.feedback import Feedback, Receipt
from instructrec_deploy.core.manifest import TaskBook
from instructrec_deploy.runtime.feedback_intake import Check, FeedbackIntake
from instructrec_deploy.runtime.feedback_store import FeedbackSettings, FeedbackStore
from instructrec_deploy.runtime.jobs import GuardLike

MAX_WAITING = 256  # corrections waiting for the disk, each some kilobytes; a second or two of them


class FeedbackDesk:
    """Takes corrections one after another, or says that none are taken.

    Args:
        intake: None where the server has no store.
    """

    def __init__(self, intake: FeedbackIntake | None) -> None:
        self._intake = intake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def submit(self, feedback: Feedback) -> Future[Receipt]:
        """Queue a correction; the future is done when it is on the disk.

        Raises:
            FeedbackOff: the server has no store.
            Overloaded: too many are waiting.
        """
        if self._intake is None:
            raise FeedbackOff(
                "this server keeps no feedback",
                hint="start it with `instructrec serve --feedback FILE` (setting feedback.file)",
            )
        if not self._waiting.acquire(blocking=False):
            raise Overloaded(f"{MAX_WAITING} corrections are waiting", hint="try again")
        future = self._thread.submit(self._intake.take, feedback)
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def close(self) -> None:
        """Keep what was accepted, then close the store."""
        self._thread.shutdown()
        if self._intake is not None:
            self._intake.close()


def open_desk(
    settings: FeedbackSettings,
    *,
    book: TaskBook,
    guard: GuardLike | None,
    check: Check | None = None,
) -> FeedbackDesk:
    """A desk with the store of the settings, or with none.

    Raises:
        FeedbackUnusable: the file cannot be used.
    """
    if not settings.file:
        return FeedbackDesk(None)
    store = FeedbackStore.open(settings.file, settings, create=True)
    return FeedbackDesk(FeedbackIntake(store, book=book, guard=guard, check=check))

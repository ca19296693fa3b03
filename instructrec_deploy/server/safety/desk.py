"""What is kept of safety decisions, by a thread of its own: a disk must not hold up answers."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.jobs import GuardLike
from instructrec_deploy.runtime.review_intake import cases_of
from instructrec_deploy.runtime.review_store import ReviewStore
from instructrec_deploy.safety.keys import load_keys
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.safety.audit import AuditLog
from instructrec_deploy.server.safety.settings import SafetySettings

MAX_WAITING = 4096  # decisions waiting for the disk, each with its text; some megabytes
AUDIT, CASES = "instructrec_safety_audit_total", "instructrec_safety_cases_total"
log = logging.getLogger(f"{LOGGER}.safety")


class SafetyDesk:
    """Writes down what was decided; what cannot be written is counted and told, answers go on.

    Args:
        audit: None where nothing is to be written.
        review: the queue for cases that a person is to look at; None for none.
        guard: masks the texts of those cases.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        audit: AuditLog | None = None,
        review: ReviewStore | None = None,
        guard: GuardLike | None = None,
    ) -> None:
        self._metrics = metrics
        self._audit = audit
        self._review = review
        self._guard = guard
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="safety-desk")
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to do."""
        return self._audit is not None or self._review is not None

    def note(self, request: Request, answered: Future[Prediction]) -> None:
        """Queue what was decided about a request that has been answered. Any thread."""
        if answered.cancelled() or answered.exception() is not None:
            return
        prediction = answered.result()
        is_asked = self._review is not None and any(v.review for v in prediction.verdicts)
        is_told = self._audit is not None and any(v.findings for v in prediction.verdicts)
        if not (is_asked or is_told):
            return
        if not self._waiting.acquire(blocking=False):
            if is_told:
                self._count(AUDIT, "dropped")
            if is_asked:
                self._count(CASES, "dropped")
            return
        self._thread.submit(self._keep, request, prediction)

    def close(self) -> None:
        """Write what waits, then close the files."""
        self._thread.shutdown()
        if self._review is not None:
            self._review.close()
        if self._audit is not None:
            try:
                self._audit.close()
            except OSError as error:
                log.error("audit log not closed", extra={"reason": error.strerror})

    def _keep(self, request: Request, prediction: Prediction) -> None:
        try:
            if self._audit is not None:
                self._write(self._audit, request, prediction)
            if self._review is not None:
                self._queue(self._review, request, prediction)
        finally:
            self._waiting.release()

    def _write(self, audit: AuditLog, request: Request, prediction: Prediction) -> None:
        try:
            self._count(AUDIT, "written", audit.write(request, prediction))
        except OSError as error:
            log.error("audit line not written", extra={"reason": error.strerror})
            self._count(AUDIT, "failed")

    def _queue(self, review: ReviewStore, request: Request, prediction: Prediction) -> None:
        for case in cases_of(request, prediction, self._guard):
            try:
                self._count(CASES, "kept" if review.add(case) else "again")
            except InstructRecError as error:
                log.error("case not kept for review", extra={"reason": error.message})
                self._count(CASES, "failed")

    def _count(self, name: str, outcome: str, n: int = 1) -> None:
        self._metrics.metric(name, outcome).inc(n)


def open_safety_desk(
    settings: SafetySettings, metrics: Metrics, *, guard: GuardLike | None = None
) -> SafetyDesk:
    """A desk with the files of the settings, or with none.

    Raises:
        FileUnusable, ReviewUnusable: a file cannot be used.
        SafetyKeyMissing: the audit log has no key.
    """
    audit = AuditLog(Path(settings.audit), load_keys()) if settings.audit else None
    review = ReviewStore.open(settings.review, create=True) if settings.review else None
    return SafetyDesk(metrics, audit=audit, review=review, guard=guard)

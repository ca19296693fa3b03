"""Waiting in which who came last is woken first."""

from __future__ import annotations

import threading
from types import TracebackType


class LastInFirstOut:
    """A condition on a lock, as `threading.Condition`, that wakes the last who began to wait.

    `threading.Condition` wakes who waits longest. Of two idle workers that is the one whose
    processor's caches have forgotten the model: a single caller's texts would go to and fro between
    them, and take a quarter more time each.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._waiting: list[threading.Lock] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def wait(self, timeout_s: float | None = None) -> None:
        """Let go of the lock until woken, or until so much time has passed. Holds it again then."""
        gate = threading.Lock()
        gate.acquire()
        self._waiting.append(gate)
        self._lock.release()
        is_woken = False
        try:
            is_woken = gate.acquire(timeout=-1 if timeout_s is None else timeout_s)
        finally:
            self._lock.acquire()
            if not is_woken and gate in self._waiting:  # else somebody woke it just now
                self._waiting.remove(gate)

    def notify(self, n: int = 1) -> None:
        """Wake up to n of those who wait. Holds the lock."""
        for _ in range(min(n, len(self._waiting))):
            self._waiting.pop().release()

    def notify_all(self) -> None:
        """Wake all who wait. Holds the lock."""
        self.notify(len(self._waiting))

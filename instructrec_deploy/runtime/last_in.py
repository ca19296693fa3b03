"""Waiting in which who came last is woken first."""

from __future__ import annotations

import threading


class LastInFirstOut(threading.Condition):
    """A condition that wakes the last who began to wait.

    `threading.Condition` wakes who waits longest. Of two idle workers that is the one whose
    processor's caches have forgotten the model: a single caller's texts would go to and fro between
    them, and take a quarter more time each.
    """

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__(lock)
        self._gates: list[threading.Lock] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until woken, or for so many seconds; False where they passed first."""
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)
        self.release()
        is_woken = False
        try:
            is_woken = gate.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            self.acquire()
            if not is_woken and gate in self._gates:  # else somebody woke it just now
                self._gates.remove(gate)
        return is_woken

    def notify(self, n: int = 1) -> None:
        """Wake up to n of those who wait. Holds the lock."""
        for _ in range(min(n, len(self._gates))):
            self._gates.pop().release()

    def notify_all(self) -> None:
        """Wake all who wait. Holds the lock."""
        self.notify(len(self._gates))

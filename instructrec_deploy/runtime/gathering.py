"""When a free worker waits a moment before it begins: callers that were just answered come back.

Many callers send their next text when they have the answer to the last one. A batch ends, its
answers go out, and the first caller is back while the others are still being told: a worker that
takes that one text computes it alone, and the others wait until it is done. Meanwhile the event
loop has the processor, so that waiting costs little.
"""

from __future__ import annotations

import math
from collections.abc import Callable

CALL_SHARE = 0.2  # of the wait: what each caller who is away adds, for they are told in turn
HURRY = 20.0  # waits; with a text that is due within so many nobody is waited for
MOST = 10.0  # waits; so long after the first text came it is begun, whoever is missing


class Gathering:
    """Who was answered and is not back yet. Not thread-safe: its owner holds a lock.

    Args:
        wait_s: how long one caller takes to come back, at most; 0.0: nobody is waited for.
        clock: monotonic seconds.
    """

    def __init__(self, wait_s: float, *, clock: Callable[[], float]) -> None:
        self._wait_s = wait_s
        self._clock = clock
        self._n_away = 0
        self._moved_s = self._first_s = -math.inf  # somebody left or came; the first of those here
        self._is_hurried = False

    @property
    def n_away(self) -> int:
        """Callers that are expected."""
        return self._n_away

    def leave(self, n_callers: int) -> None:
        """So many texts are about to be answered."""
        if self._wait_s:
            self._n_away += n_callers
            self._moved_s = self._clock()

    def come(self, *, is_first: bool, deadline_s: float | None = None) -> None:
        """A text came. `is_first`: no other one waits."""
        if not self._wait_s:
            return
        now = self._clock()
        if is_first:
            self._first_s = now
            self._is_hurried = False
        if now - self._moved_s >= self._patience_s:
            self._n_away = 0
        elif self._n_away:
            self._n_away -= 1
        self._moved_s = now
        if deadline_s is not None and deadline_s - now < HURRY * self._wait_s:
            self._is_hurried = True

    def wait_s(self, n_here: int, n_free: int) -> float:
        """How long to wait for the next one; 0.0: begin.

        Args:
            n_here: texts that wait.
            n_free: workers without work, who share them with those that are expected.
        """
        if self._n_away <= n_here * (n_free - 1) or self._is_hurried:
            return 0.0
        now = self._clock()
        ends_s = min(self._moved_s + self._patience_s, self._first_s + MOST * self._wait_s)
        if ends_s <= now:
            self._n_away = 0
            return 0.0
        return ends_s - now

    @property
    def _patience_s(self) -> float:
        """How long nobody may have come or left before those who are away are given up."""
        return self._wait_s * (1.0 + CALL_SHARE * self._n_away)

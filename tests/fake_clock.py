"""A clock for what waits: seconds pass when a test says so."""

from __future__ import annotations


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

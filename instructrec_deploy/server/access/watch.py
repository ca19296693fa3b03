"""Notices that files have changed, looking at them now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

Stamp = tuple[int, int, int] | None  # modified, size, inode; None: not there


class FileWatch:
    """Says once of each change that there was one. Cheap to ask on every call."""

    def __init__(
        self,
        paths: Sequence[Path],
        interval_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember the files as they are; make it before they are read, or a change is missed."""
        self._paths = tuple(paths)
        self._interval_s = interval_s
        self._clock = clock
        self._seen = self._look()
        self._looked_s = clock()

    def has_changed(self) -> bool:
        """Whether a file is another than at the last look, if the interval has passed."""
        now = self._clock()
        if now - self._looked_s < self._interval_s:
            return False
        self._looked_s = now
        found = self._look()
        if found == self._seen:
            return False
        self._seen = found
        return True

    def _look(self) -> tuple[Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

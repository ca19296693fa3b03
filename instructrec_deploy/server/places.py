"""Where bundles lie, and whether what lies there has changed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Stamp = tuple[tuple[str, int, int, int], ...]  # file, modified, size, inode


@dataclass(frozen=True, slots=True)
class Place:
    """A bundle's folder as it lies there now; another one as soon as a file in it changes."""

    name: str  # of the model; "" as its manifest says
    folder: Path  # symbolic links are resolved
    stamp: Stamp


class Source(Protocol):
    """What is to be served."""

    def look(self) -> Mapping[str, Sequence[Place]]:
        """The bundles of each model, oldest version first. Reads folders, no bundles."""

    def choose(self, name: str, places: Sequence[Place]) -> Sequence[Place]:
        """Which of them to serve, oldest first."""


class OneBundle:
    """One folder, or a symbolic link that is pointed to another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def look(self) -> Mapping[str, Sequence[Place]]:
        """See `Source`."""
        return {"": (look_at(self.folder),)}

    def choose(self, name: str, places: Sequence[Place]) -> Sequence[Place]:
        """See `Source`."""
        return places[-1:]


def look_at(folder: Path, name: str = "") -> Place:
    """The folder as it is now; without files where there is none."""
    real = Path(os.path.realpath(folder))
    found = []
    for path in sorted(real.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # gone while we looked: the next look sees it
            continue
        if not path.is_dir():
            entry = (path.relative_to(real).as_posix(), stat.st_mtime_ns, stat.st_size, stat.st_ino)
            found.append(entry)
    return Place(name, real, tuple(found))

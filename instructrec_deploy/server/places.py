"""Where bundles lie, and whether what lies there has changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from instructrec_deploy.core.bundle import MANIFEST_FILE
from instructrec_deploy.core.errors import ConfigError, FileMissing

NUMBERED = re.compile(r"v?\d+(?:[._-]\d+)*", re.ASCII)  # names of releases that order themselves
Stamp = tuple[tuple[str, int, int, int], ...]  # file, modified, size, inode


@dataclass(frozen=True, slots=True)
class Place:
    """A bundle's folder as it lies there now; another one as soon as a file in it changes."""

    name: str  # of the model; "" as its manifest says
    folder: Path  # symbolic links are resolved
    stamp: Stamp
    release: str = ""  # the version's folder in a repository


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


class Repository:
    """FOLDER/MODEL/RELEASE/bundle.json: several models, of each the newest versions or given ones.

    Releases that are numbers (1, 2, 10; v1.2; 2026-11-26) are ordered by them, others by the time
    that their bundle was made.

    Args:
        latest: how many of the newest versions of a model are served.
        pins: MODEL=RELEASE; of a model that is named here, these releases alone.

    Raises:
        FileMissing: no such folder.
        ConfigError: a pin has another form.
    """

    def __init__(self, folder: Path, *, latest: int = 1, pins: Sequence[str] = ()) -> None:
        if not folder.is_dir():
            raise FileMissing(
                f"no model repository {folder}", hint="a folder with MODEL/RELEASE/bundle.json"
            )
        self.folder = folder
        self._latest = latest
        self._pins: dict[str, set[str]] = {}
        for pin in pins:
            name, equals, release = pin.partition("=")
            if not (name and equals and release):
                raise ConfigError(
                    "models.pins takes MODEL=RELEASE", hint='for example pins = ["bank=3"]'
                )
            self._pins.setdefault(name, set()).add(release)

    def look(self) -> Mapping[str, Sequence[Place]]:
        """See `Source`."""
        found = {}
        for folder in _subfolders(self.folder):
            releases = [sub for sub in _subfolders(folder) if (sub / MANIFEST_FILE).is_file()]
            if releases:
                ordered = _in_order(releases)
                found[folder.name] = [look_at(sub, folder.name, sub.name) for sub in ordered]
        return found

    def choose(self, name: str, places: Sequence[Place]) -> Sequence[Place]:
        """See `Source`."""
        if name in self._pins:
            return [place for place in places if place.release in self._pins[name]]
        return places[-self._latest :]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith((".", "_"))
    )


def _in_order(releases: Sequence[Path]) -> list[Path]:
    """Oldest first."""
    if all(NUMBERED.fullmatch(folder.name) for folder in releases):
        return sorted(releases, key=lambda f: [int(n) for n in re.findall(r"\d+", f.name)])
    return sorted(releases, key=lambda f: (_created(f), f.name))


def _created(folder: Path) -> str:
    """When the bundle was made (ISO 8601), as its manifest says; "" where it says nothing."""
    try:
        raw = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):  # told when it is opened
        return ""
    return str(raw.get("created", "")) if isinstance(raw, dict) else ""


def look_at(folder: Path, name: str = "", release: str = "") -> Place:
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
    return Place(name, real, tuple(found), release)

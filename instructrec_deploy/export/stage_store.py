"""What the stages of an export made, kept by a hash of all that it was made from.

WORK/NAME-HASH/product      the stage's product, a file or a folder
WORK/NAME-HASH/stage.json   its figures; written last, so that a product with it is whole
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec_deploy import __version__
from instructrec_deploy.core.bundle import hash_file

PRODUCT = "product"
FIGURES_FILE = "stage.json"
KEY_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Made:
    """A stage that is done."""

    name: str
    key: str
    product: Path
    figures: dict[str, Any]
    is_reused: bool


class StageStore:
    """A folder of products."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], dict[str, Any]],
        *,
        can_resume: bool = False,
    ) -> Made:
        """The product of a stage: the one that is there already, else a new one.

        Args:
            name: of the stage.
            inputs: all that decides the product, as plain data.
            build: makes it at the path it is given and returns its figures.
            can_resume: it goes on with what an interrupted call has left there.
        """
        content = json.dumps({"version": __version__, "stage": name, **inputs}, sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()[:KEY_DIGITS]
        home = self.folder / f"{name}-{key}"
        product, file = home / PRODUCT, home / FIGURES_FILE
        known = _read(file)
        if known is not None and product.exists():
            return Made(name, key, product, known, True)
        if not can_resume:
            shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        figures = build(product)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        part.replace(file)
        return Made(name, key, product, figures, False)


def hash_folder(folder: Path) -> str:
    """SHA-256 over the hashes of all files below, by path; links are not followed."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest.update(f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()


def _read(file: Path) -> dict[str, Any] | None:
    """The figures of a whole product; None where it is not one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

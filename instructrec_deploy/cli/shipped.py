"""Data files that come with the package: `shipped:customer_service/en_intents.jsonl`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from instructrec_deploy.core.errors import FileMissing

PREFIX = "shipped:"


def find_data(name: str) -> Path:
    """The file a user means: one that comes with the package, or a path.

    Raises:
        FileMissing: no such shipped file.
    """
    if not name.startswith(PREFIX):
        return Path(name)
    spec = find_spec("instructrec_training")
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place) / "data" / name.removeprefix(PREFIX)
        if file.is_file():
            return file
    raise FileMissing(f"no data file {name}", hint="shipped:customer_service/en_intents.jsonl")

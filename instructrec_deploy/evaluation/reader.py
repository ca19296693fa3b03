"""Read labelled data files: JSON lines, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructrec_deploy.core.errors import FileMissing, RowInvalid
from instructrec_deploy.core.example import Example, parse_object

ANY_SPLIT = "all"  # of a row: it states no split and belongs to each


def read_examples(path: str | Path, split: str | None = None) -> list[Example]:
    """Read a data file, whole or one split of it.

    Args:
        path: `.jsonl` or `.jsonl.gz`, UTF-8, one object a line; empty lines are skipped.
        split: keep the rows of this split, and the rows that state none. None or "all": every row.

    Raises:
        FileMissing: no such file.
        RowInvalid: a line is not usable (the message names it), or no row is left.
    """
    source = Path(path)
    examples = list(iter_examples(source))
    if not examples:
        raise RowInvalid(f"{source} has no rows", hint='write {"text": ..., "target": ...} lines')
    if split is None or split == ANY_SPLIT:
        return examples
    kept = [e for e in examples if e.split in (split, ANY_SPLIT)]
    if not kept:
        known = ", ".join(sorted({e.split for e in examples}))
        raise RowInvalid(
            f"{source} has no rows of split {split!r}", hint=f"its splits: {known}; or all"
        )
    return kept


def iter_examples(source: Path) -> Iterator[Example]:
    """The rows of a data file one after another; errors as `read_examples`."""
    for where, row in iter_objects(source):
        yield Example.from_row(row, where=where)


def iter_objects(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its place; errors as `read_examples`."""
    if not source.is_file():
        raise FileMissing(f"no data file {source}", hint="name a .jsonl or .jsonl.gz file")
    for number, line in enumerate(_lines(source), start=1):
        if line.strip():
            where = f"{source}:{number}"
            yield where, parse_object(line, where=where)


def _lines(source: Path) -> Iterator[str]:
    is_zipped = source.suffix == ".gz"
    number = 0
    try:
        with gzip.open(source, "rb") if is_zipped else source.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                # utf-8-sig on the first line: a byte order mark is no part of the row
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise RowInvalid(
            f"{source}:{number}: not valid UTF-8", hint="save the file as UTF-8"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RowInvalid(
            f"{source}: damaged gzip file after line {number}", hint="copy the file again"
        ) from error

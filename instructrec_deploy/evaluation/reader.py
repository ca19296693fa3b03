"""Read labelled data files: JSON lines, tables and JSON lists, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instructrec_deploy.core.errors import FileMissing, RowInvalid
from instructrec_deploy.core.example import Example, parse_object
from instructrec_deploy.evaluation.formats import (
    DELIMITERS,
    json_rows,
    known_form,
    rename,
    table_rows,
)

NO_COLUMNS: Mapping[str, str] = {}
ANY_SPLIT = "all"  # of a row: it states no split and belongs to each


def read_examples(
    path: str | Path, split: str | None = None, *, columns: Mapping[str, str] | None = None
) -> list[Example]:
    """Read a data file, whole or one split of it.

    Args:
        path: UTF-8; `.gz` may follow each ending. `.jsonl`: one object a line, empty lines are
            skipped. `.csv`, `.tsv`: the first line names the columns. `.json`: a list of rows in
            Alpaca's form, ShareGPT's or ours.
        split: keep the rows of this split, and the rows that state none. None or "all": every row.
        columns: our field -> the file's column, for files that call their columns otherwise.

    Raises:
        FileMissing: no such file.
        RowInvalid: a line is not usable (the message names it), or no row is left.
    """
    source = Path(path)
    examples = list(iter_examples(source, columns=columns or {}))
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


def iter_examples(source: Path, *, columns: Mapping[str, str] = NO_COLUMNS) -> Iterator[Example]:
    """The rows of a data file one after another; errors as `read_examples`."""
    for where, row in iter_objects(source, columns=columns):
        yield Example.from_row(row, where=where)


def iter_objects(
    source: Path, *, columns: Mapping[str, str] = NO_COLUMNS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a data file as objects, each with its place; errors as `read_examples`."""
    if not source.is_file():
        raise FileMissing(
            f"no data file {source}", hint="name a .jsonl, .csv, .tsv or .json file, or its .gz"
        )
    ending, where = Path(source.name.removesuffix(".gz")).suffix.lower(), str(source)
    if ending in DELIMITERS:
        delimiter = DELIMITERS[ending]
        yield from table_rows(_lines(source), delimiter=delimiter, columns=columns, where=where)
    elif ending == ".json":
        yield from json_rows("".join(_lines(source)), columns=columns, where=where)
    else:
        yield from _json_lines(source, columns)


def _json_lines(source: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_lines(source), start=1):
        if line.strip():
            where = f"{source}:{number}"
            row = rename(parse_object(line, where=where), columns, where=where)
            yield where, known_form(row, where=where)


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

"""Data files in other people's forms, row by row in ours: CSV, TSV, Alpaca and ShareGPT JSON.

A row is a JSON object with our field names (`text`, `target`, `split`, `id`, ...). Errors name
the file and the row, never what stands in it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from instructrec_deploy.core.errors import RowInvalid

Row = dict[str, Any]
DELIMITERS = {".csv": ",", ".tsv": "\t"}
LABEL_COLUMN = "label"  # what most tables call the target
ROLES = {  # ShareGPT's `from` -> ours
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def rename(row: Mapping[str, Any], columns: Mapping[str, str], *, where: str) -> Row:
    """A row under our field names.

    Args:
        row: as it stands in the file.
        columns: our field -> the file's column; fields not named keep their names.
        where: file and row, for the error.

    Raises:
        RowInvalid: the file has no such column.
    """
    missing = [theirs for theirs in columns.values() if theirs not in row]
    if missing:
        raise RowInvalid(
            f"{where}: no column {missing[0]!r}",
            hint=f"the row has: {', '.join(map(str, row)) or 'nothing'}",
        )
    taken = set(columns.values()) | set(columns)
    kept = {name: value for name, value in row.items() if name not in taken}
    return kept | {ours: row[theirs] for ours, theirs in columns.items()}


def table_rows(
    lines: Iterator[str], *, delimiter: str, columns: Mapping[str, str], where: str
) -> Iterator[tuple[str, Row]]:
    """Rows of a table whose first line names the columns, each with its place in the file.

    Without a mapping the columns are `text` and `target` or `label`. Quotes as in RFC 4180; in
    tab-separated files, too.

    Raises:
        RowInvalid: no header, or a row with more or fewer cells than it.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(header):
            raise RowInvalid(
                f"{where}:1: the header has an empty or a repeated column name",
                hint="the first line names the columns, each once",
            )
        mapping = columns or _default_columns(header)
        for cells in reader:
            place = f"{where}:{reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise RowInvalid(
                    f"{place}: {len(cells)} cells, the header names {len(header)} columns",
                    hint="put cells that hold the delimiter or a line break into double quotes",
                )
            yield place, rename(dict(zip(header, cells, strict=True)), mapping, where=place)
    except csv.Error as error:
        raise RowInvalid(
            f"{where}:{reader.line_num}: not a valid table: {error}",
            hint='write quotes inside a cell twice: ""',
        ) from error


def json_rows(text: str, *, columns: Mapping[str, str], where: str) -> Iterator[tuple[str, Row]]:
    """Rows of a JSON file: a list of objects in Alpaca's, ShareGPT's or our own form.

    Raises:
        RowInvalid: not JSON, not a list, or a row in none of the forms.
    """
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowInvalid(f"{where}: not valid JSON", hint="a list of objects, UTF-8") from error
    if not isinstance(rows, list):
        raise RowInvalid(
            f"{where}: a JSON {type(rows).__name__}, not a list",
            hint="wrap the rows into [ ], or write one object a line into a .jsonl file",
        )
    for number, row in enumerate(rows, start=1):
        place = f"{where} row {number}"
        if not isinstance(row, dict):
            raise RowInvalid(
                f"{place}: a JSON {type(row).__name__}, not an object",
                hint='write {"instruction": ..., "output": ...}, {"conversations": [...]} '
                'or {"text": ..., "target": ...}',
            )
        yield place, known_form(rename(row, columns, where=place), where=place)


def known_form(row: Row, *, where: str) -> Row:
    """An Alpaca or ShareGPT row as one of ours; any other row as it is."""
    if "text" not in row and "conversations" in row:
        return _from_sharegpt(row, where=where)
    if "text" not in row and "instruction" in row:
        return _from_alpaca(row, where=where)
    return row


def _default_columns(header: Sequence[str]) -> dict[str, str]:
    is_labelled = LABEL_COLUMN in header and "target" not in header
    return {"target": LABEL_COLUMN} if is_labelled else {}


def _from_alpaca(row: Row, *, where: str) -> Row:
    """`input` is the text, or the instruction itself where there is no input."""
    for name in ("instruction", "input", "output"):
        if not isinstance(row.get(name, ""), str):
            raise RowInvalid(
                f"{where}: field {name!r} is of type {type(row[name]).__name__}, not a string",
                hint="Alpaca rows hold strings: instruction, input, output",
            )
    if not row.get("output"):
        raise RowInvalid(f"{where}: no `output`", hint="the output is the label or the answer")
    rest = {k: v for k, v in row.items() if k not in ("input", "output", "instruction")}
    found = {"text": row.get("input") or row["instruction"], "target": row["output"], **rest}
    return found | ({"instruction": row["instruction"]} if row.get("input") else {})


def _from_sharegpt(row: Row, *, where: str) -> Row:
    """The last answer is the target, the user's words before it are the text.

    `messages` holds all turns before that answer, as `{role, content}`.
    """
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowInvalid(
            f"{where}: `conversations` is no list of objects",
            hint='write [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]',
        )
    messages = [_message(turn, where=f"{where} turn {n}") for n, turn in enumerate(turns, 1)]
    if isinstance(row.get("system"), str) and row["system"]:
        messages = list(chain([{"role": "system", "content": row["system"]}], messages))
    is_answered = len(messages) > 1 and messages[-1]["role"] == "assistant"
    asked = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    if not is_answered or not asked:
        raise RowInvalid(
            f"{where}: the conversation does not end with an answer to a user's turn",
            hint="leave turns behind the last answer out",
        )
    rest = {k: v for k, v in row.items() if k not in ("conversations", "system")}
    return {
        "text": asked,
        "target": messages[-1]["content"],
        "messages": messages[:-1],
        **rest,
    }


def _message(turn: Mapping[str, Any], *, where: str) -> dict[str, str]:
    role = ROLES.get(str(turn.get("from", turn.get("role", ""))))
    content = turn.get("value", turn.get("content"))
    if role is None or not isinstance(content, str):
        raise RowInvalid(
            f"{where}: no known speaker in `from`, or no string in `value`",
            hint=f"speakers: {', '.join(ROLES)}",
        )
    return {"role": role, "content": content}

"""One line of a data file: what stands in it and what may be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instructrec_deploy.core.errors import RowInvalid


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text. `target` is a label's words, or a list for span and text tasks."""

    text: str
    target: Any
    id: str = ""
    task: str = "classification"
    dataset: str = ""
    lang: str = ""
    split: str = "all"
    text2: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)  # its file and line, for errors

    @property
    def name(self) -> str:
        """What an error calls the row: its file and line, and its id."""
        place = f"{self.where}: " if self.where else ""
        return f"{place}row {self.id or '(without id)'}"

    def fault(self, what: str, hint: str) -> RowInvalid:
        """An error about the row, to be raised: what is wrong with it, and what to do."""
        return RowInvalid(f"{self.name}: {what}", hint=hint)

    @classmethod
    def from_json(cls, line: str, *, where: str) -> Example:
        """Parse one JSON line. `where` (file and line) goes into the error.

        Raises:
            RowInvalid: not JSON, not an object, or `text` missing (with no `history` in its place)
                or not a string.
        """
        return cls.from_row(parse_object(line, where=where), where=where)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, where: str) -> Example:
        """Build from a parsed object; unknown fields are kept in `extra`."""
        known = {"text", "target", "id", "task", "dataset", "lang", "split", "text2"}
        for name in known - {"target"}:
            if name in row and not isinstance(row[name], str):
                raise RowInvalid(
                    f"{where}: field {name!r} is of type {type(row[name]).__name__}, not a string",
                    hint="put strings into quotes",
                )
        if "text" not in row and "history" not in row:
            raise RowInvalid(f"{where}: no field 'text'", hint='every line needs a "text"')
        return cls(
            text=row.get("text", ""),
            target=row.get("target"),
            extra={k: v for k, v in row.items() if k not in known},
            where=where,
            **{k: row[k] for k in known - {"text", "target"} if k in row},
        )


def parse_object(line: str, *, where: str) -> dict[str, Any]:
    """A JSON line that must be an object. `where` (file and line) goes into the error.

    Raises:
        RowInvalid: not JSON, or no object.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowInvalid(
            f"{where}: not valid JSON", hint="one JSON object a line, UTF-8"
        ) from error
    if not isinstance(row, dict):
        raise RowInvalid(
            f"{where}: a JSON {type(row).__name__}, not an object",
            hint='write {"text": ..., "target": ...}',
        )
    return row

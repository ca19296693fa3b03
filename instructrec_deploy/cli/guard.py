"""`instructrec guard`: the safety filter by itself, on lines of JSON, without a bundle."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, cast

import typer

if TYPE_CHECKING:
    from instructrec_deploy.core.errors import InstructRecError
    from instructrec_deploy.safety.guard import Guard
    from instructrec_deploy.safety.restore import Cipher

DIRECTIONS = ("input", "output")


def guard(
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines; left out or -: standard input.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="A safety.toml, or a bundle that has one. [the default]"),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring encrypted values back, with the key.")
    ] = False,
) -> None:
    """Check texts: {"id", "text", "direction"} a line in, what the policy says about each out.

    A line out: {"id", "action": allow|flag|mask|block, "text" as it may go on, "spans" of personal
    data in the text as sent, "categories" of content}. A line that cannot be read comes out as
    {"id", "error"}, and the exit code is 2 at the end. No text but the checked one comes out.
    """
    from instructrec_deploy.core.errors import InstructRecError

    answer = _Restorer() if restore else _Checker(_open_guard(policy))
    n_bad = 0
    with ExitStack() as stack:
        for number, line in enumerate(_lines(file, stack), start=1):
            row: dict[str, Any] = {}
            try:
                row = _read_row(line, number)
                told = answer(row)
            except InstructRecError as error:
                n_bad += 1
                told = {"error": _explain(error)}
            known = {"id": row["id"]} if "id" in row else {}
            sys.stdout.write(json.dumps({**known, **told}, ensure_ascii=False) + "\n")
            sys.stdout.flush()  # whoever waits for this answer sends the next line after it
    if n_bad:
        typer.echo(f"{n_bad} lines could not be read", err=True)
        raise typer.Exit(2)


class _Checker:
    """A row in, the guard's answer out."""

    def __init__(self, guard: Guard) -> None:
        from instructrec_deploy.safety.policy import ContentPolicy

        self._guard = guard
        self._content = frozenset(ContentPolicy.model_fields)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        direction = cast("Literal['input', 'output']", row.get("direction", "input"))
        guarded = self._guard.check_text(row["text"], direction)
        found = guarded.verdict.findings
        return {
            "action": guarded.verdict.action,
            "text": guarded.text,
            "spans": [
                {"type": f.category, "start": f.start, "end": f.end}
                for f in found
                if f.category not in self._content and f.start >= 0
            ],
            "categories": sorted({f.category for f in found if f.category in self._content}),
            "policy_version": guarded.verdict.policy_version,
        }


class _Restorer:
    """A masked row in, the row with its values back out."""

    def __init__(self) -> None:
        from instructrec_deploy.core.errors import SafetyKeyMissing
        from instructrec_deploy.safety.keys import KEY_ENV, KEY_FILE_ENV, load_keys
        from instructrec_deploy.safety.restore import Cipher

        keys = load_keys()
        if keys is None:
            raise SafetyKeyMissing(
                "--restore needs the key that the values were encrypted with",
                hint=f"name its file in {KEY_FILE_ENV}, or put it into {KEY_ENV}",
            )
        self._cipher: Cipher = Cipher(keys)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        restored = self._cipher.restore(row["text"])
        return {
            "text": restored.text,
            "n_restored": restored.n_restored,
            "n_left": restored.n_left,
        }


def _open_guard(policy: Path | None) -> Guard:
    from instructrec_deploy.core.bundle import SAFETY_FILE, read_text
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.safety.guard import Guard
    from instructrec_deploy.safety.keys import load_keys

    if policy is None:
        return Guard(keys=load_keys())
    path = policy / SAFETY_FILE if policy.is_dir() else policy
    return Guard.from_toml(read_text(path), where=str(path), error=ConfigError, keys=load_keys())


def _lines(file: Path | None, stack: ExitStack) -> Iterator[bytes]:
    """Lines that are not blank."""
    from instructrec_deploy.core.errors import FileMissing

    stream: BinaryIO = sys.stdin.buffer
    if file is not None and str(file) != "-":
        if not file.is_file():
            raise FileMissing(f"no file {file}", hint="JSON lines; - reads standard input")
        stream = stack.enter_context(file.open("rb"))
    return (line for line in stream if line.strip())


def _read_row(line: bytes, number: int) -> dict[str, Any]:
    """A row with a text.

    Raises:
        RowInvalid: it has none, or is no JSON object; what it holds is not repeated.
    """
    from instructrec_deploy.core.errors import RowInvalid

    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RowInvalid(
            f"line {number}: no JSON in UTF-8", hint='{"id": "1", "text": "..."} on each line'
        ) from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise RowInvalid(f'line {number}: no string "text"', hint='{"id": "1", "text": "..."}')
    if row.get("direction", "input") not in DIRECTIONS:
        raise RowInvalid(
            f"line {number}: direction is neither input nor output", hint="leave it out for input"
        )
    return row


def _explain(error: InstructRecError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "hint": error.hint}

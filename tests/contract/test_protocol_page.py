"""`docs/protocols.md` tells the status of every error that a call can end with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from instructrec_deploy.core.errors import InstructRecError

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"
# Of files, settings and bundles: they end a program, never a call. IR-1000 is nobody's own.
LOCAL = re.compile(r"IR-(1000|1203|15\d\d|16(?!11)\d\d|17\d\d)")


def told() -> dict[str, set[str]]:
    """Status by code, from the table; `IR-a to IR-b` stands for every code between."""
    found: dict[str, set[str]] = {}
    for status, codes in re.findall(r"^\| ([A-Z_]+) \| ([^|]*IR-[^|]*) \|", PAGE.read_text(), re.M):
        for first, last in re.findall(r"IR-(\d+)(?: to IR-(\d+))?", codes):
            for number in range(int(first), int(last or first) + 1):
                found.setdefault(f"IR-{number}", set()).add(status)
    return found


def errors(kind: type[InstructRecError] = InstructRecError) -> Iterator[type[InstructRecError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from errors(child)


def test_the_page_tells_the_status_of_every_error_of_a_call() -> None:
    wanted = {e.code: {e.grpc_status} for e in errors() if not LOCAL.fullmatch(e.code)}
    assert len(wanted) > 20
    found = told()
    assert {code: found.get(code) for code in wanted} == wanted

"""What a check found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from instructrec_deploy.core.errors import InstructRecError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    name: str
    verdict: Verdict
    message: str
    hint: str = ""
    code: str = ""  # IR-nnnn, where a check failed with an error


def ok(name: str, message: str) -> Finding:
    """It is well."""
    return Finding(name, "ok", message)


def warn(name: str, message: str, hint: str) -> Finding:
    """It works, and could be better."""
    return Finding(name, "warn", message, hint)


def tried(name: str, look: Callable[[], Finding]) -> Finding:
    """What a look finds; an error on purpose is a failure, with its hint."""
    try:
        return look()
    except InstructRecError as error:
        return Finding(name, "fail", error.message, error.hint, error.code)

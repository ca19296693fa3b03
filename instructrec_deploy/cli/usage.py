"""A wrong command line in our form: code, message, hint (and what was probably meant)."""

from __future__ import annotations

import difflib
import re
from typing import Any

import typer

from instructrec_deploy.core.errors import UsageInvalid

# What typer raises for a wrong command line. Its name moved between versions (click's own, then a
# copy in typer), this way to it did not.
UsageFault: Any = typer.BadParameter.__mro__[1]


def is_bare_call(fault: Any) -> bool:
    """Whether nothing is wrong but that no verb was named: the help is the answer."""
    return type(fault).__name__ == "NoArgsIsHelpError"


def explain_usage(fault: Any) -> UsageInvalid:
    """The error for a fault that typer found; values of arguments are left out of it."""
    context = fault.ctx
    path = context.command_path if context else "instructrec"
    words, _, _ = fault.format_message().replace("Value error, ", "").partition(" Did you mean")
    words = re.sub(r" \((Possible options: .*)\)$", "", words, flags=re.DOTALL)
    words = re.sub(r"^(Got unexpected extra arguments?).*", r"\1", words, flags=re.DOTALL)
    near = ", ".join(_near(fault, words, context))
    hint = f"did you mean {near}? " if near else ""
    message = f"{path}: {words[:1].lower()}{words[1:]}".rstrip(".")
    return UsageInvalid(message, hint=f"{hint}`{path} --help` says what there is")


def _near(fault: Any, words: str, context: Any) -> list[str]:
    """Options or verbs like the one that does not exist."""
    options = getattr(fault, "possibilities", None)
    if options:
        return sorted(options)
    unknown = re.match(r"No such command '(.*)'", words)
    if unknown is None or context is None:
        return []
    known = context.command.list_commands(context)
    return difflib.get_close_matches(unknown.group(1), known, n=1)

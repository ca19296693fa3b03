"""A wrong command line in our form: code, message, hint (and what was probably meant)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Sequence
from typing import Any

import typer

from instructrec_deploy.core.errors import UsageInvalid

LIKENESS = 0.7  # of an option to the one that was meant: typer guesses more widely
# What typer raises for a wrong command line. Its name moved between versions (click's own, then a
# copy in typer), this way to it did not.
UsageFault: Any = typer.BadParameter.__mro__[1]


def is_bare_call(fault: Any) -> bool:
    """Whether nothing is wrong but that no verb was named: the help is the answer."""
    return type(fault).__name__ == "NoArgsIsHelpError"


def explain_usage(
    fault: Any, words: Sequence[str] = (), verbs: Container[str] = ()
) -> UsageInvalid:
    """The error for a fault that typer found; values of arguments are left out of it.

    Args:
        words: of the command line; the first may be one of the `verbs`. Typer does not always say
            which command it was about.
    """
    context = fault.ctx
    verb = f" {words[0]}" if words and words[0] in verbs else ""
    path = context.command_path if context else f"instructrec{verb}"
    told, _, _ = fault.format_message().replace("Value error, ", "").partition(" Did you mean")
    told = re.sub(r" \((Possible options: .*)\)$", "", told, flags=re.DOTALL)
    told = re.sub(r"^(Got unexpected extra arguments?).*", r"\1", told, flags=re.DOTALL)
    near = ", ".join(_near(fault, told, context))
    hint = f"did you mean {near}? " if near else ""
    message = f"{path}: {told[:1].lower()}{told[1:]}".rstrip(".")
    return UsageInvalid(message, hint=f"{hint}`{path} --help` says what there is")


def _near(fault: Any, told: str, context: Any) -> list[str]:
    """Options or verbs like the one that does not exist."""
    options = getattr(fault, "possibilities", None)
    if options:
        return sorted(difflib.get_close_matches(fault.option_name, options, cutoff=LIKENESS))
    unknown = re.match(r"No such command '(.*)'", told)
    if unknown is None or context is None:
        return []
    known = context.command.list_commands(context)
    return difflib.get_close_matches(unknown.group(1), known, n=1)

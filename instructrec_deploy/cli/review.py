"""`instructrec review`: a person works through the cases that the safety policy is unsure about."""

from __future__ import annotations

import getpass
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.runtime.review_store import Decision, Kept, Verdict

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Look at cases of the safety filter, decide them, hand them to a recipe.",
)

StoreArgument = Annotated[Path, typer.Argument(metavar="QUEUE", help="The file of the queue.")]
CaseArgument = Annotated[str, typer.Argument(metavar="ID", help="The case, or how its id begins.")]
ByOption = Annotated[str, typer.Option("--by", help="Who decides. [the user's name]")]
NoteOption = Annotated[str, typer.Option("--note", help="Why; without personal data.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]


@app.command("list")
def show_all(
    store: StoreArgument,
    status: Annotated[str, typer.Option(help="open, approved, corrected, or all.")] = "open",
    limit: Annotated[int, typer.Option(help="At most N, the oldest first; 0: all.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List cases: when, what was found and done, how often it came; no texts."""
    from itertools import islice

    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.runtime.review_store import ReviewStore

    if status not in ("open", "approved", "corrected", "all"):
        raise ConfigError("--status is no status", hint="open, approved, corrected or all")
    with ReviewStore.open(store) as opened:
        found = opened.cases(status="" if status == "all" else status)
        for kept in islice(found, limit or None):
            facts = _facts(kept)
            del facts["text"]
            typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else _line(kept))


@app.command("show")
def show(store: StoreArgument, case: CaseArgument, as_json: JsonOption = False) -> None:
    """Show one case with its text, personal data masked, and what was decided."""
    from instructrec_deploy.runtime.review_store import ReviewStore

    with ReviewStore.open(store) as opened:
        kept = opened.case(case)
    facts = _facts(kept)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    typer.echo(_line(kept))
    typer.echo(facts["text"] or "(no text was kept)")
    for finding in kept.case.findings:
        place = f" {finding['start']}-{finding['end']}" if finding["start"] >= 0 else ""
        typer.echo(f"  {finding['category']} {finding['rule']} {finding['score']}{place}")
    for one in kept.decisions:
        right = ", ".join(one.categories) or "nothing"
        note = f" ({one.note})" if one.note else ""
        typer.echo(f"  {one.created[:19]} {one.by}: {one.verdict}, {right}{note}")


@app.command("approve")
def approve(
    store: StoreArgument, case: CaseArgument, by: ByOption = "", note: NoteOption = ""
) -> None:
    """Say that what was found is right."""
    from instructrec_deploy.runtime.review_store import ReviewStore

    with ReviewStore.open(store) as opened:
        found = opened.case(case).case
        kept = opened.decide(found.id, _decision("approved", found.categories, by, note))
    typer.echo(_line(kept))


@app.command("correct")
def correct(
    store: StoreArgument,
    case: CaseArgument,
    categories: Annotated[
        str, typer.Option("--categories", "-c", help="What is right, by comma.")
    ] = "",
    nothing: Annotated[
        bool, typer.Option("--nothing", help="There is nothing to be found.")
    ] = False,
    by: ByOption = "",
    note: NoteOption = "",
) -> None:
    """Say what should have been found: categories, or nothing."""
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.runtime.review_store import ReviewStore
    from instructrec_deploy.safety.policy import ContentPolicy, PersonalDataPolicy

    right = tuple(sorted({word.strip() for word in categories.split(",") if word.strip()}))
    if bool(right) is nothing:
        raise ConfigError("what is right?", hint="either --categories A,B or --nothing")
    known = [*ContentPolicy.model_fields, *PersonalDataPolicy.model_fields]
    with ReviewStore.open(store) as opened:
        found = opened.case(case).case
        if not set(right) <= {*known, *found.categories}:
            raise ConfigError(
                "--categories names one that no policy knows", hint=f"there are: {', '.join(known)}"
            )
        kept = opened.decide(found.id, _decision("corrected", right, by, note))
    typer.echo(_line(kept))


@app.command("export")
def export(
    store: StoreArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file; else standard output.")
    ] = None,
) -> None:
    """Write decided cases as rows of a data file: text, and the kinds of content it holds."""
    from instructrec_deploy.runtime.review_store import ReviewStore, training_row
    from instructrec_deploy.safety.policy import PersonalDataPolicy
    from instructrec_deploy.safety.restore import TOKEN_CATEGORY

    masked = {*PersonalDataPolicy.model_fields, TOKEN_CATEGORY, "guard_failure"}
    with ReviewStore.open(store) as opened, ExitStack() as stack:
        stream = stack.enter_context(out.open("w", encoding="utf-8")) if out else sys.stdout
        for kept in opened.cases():
            row = training_row(kept, masked)
            if row is not None:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _decision(verdict: Verdict, categories: tuple[str, ...], by: str, note: str) -> Decision:
    from instructrec_deploy.runtime.review_store import Decision

    return Decision(verdict, categories, by or getpass.getuser(), note)


def _facts(kept: Kept) -> dict[str, Any]:
    from dataclasses import asdict

    decisions = [asdict(one) for one in kept.decisions]
    return asdict(kept.case) | {
        "status": kept.status,
        "n_seen": kept.n_seen,
        "decisions": decisions,
    }


def _line(kept: Kept) -> str:
    case = kept.case
    done = (
        f"{case.action} (dry run of {case.dry_run_action})" if case.dry_run_action else case.action
    )
    who = f" from {case.caller}" if case.caller else ""
    return (
        f"{case.id[:8]}  {case.created[:19]}  {kept.status}  {case.direction} {done}: "
        f"{', '.join(case.categories)}; seen {kept.n_seen}x{who}"
    )

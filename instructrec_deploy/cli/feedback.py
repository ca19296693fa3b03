"""`instructrec feedback`: corrected answers, kept in a file until the next tuning."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.core.feedback import Feedback, Receipt, Target
    from instructrec_deploy.runtime.feedback_store import Kept

MAX_NAMED = 12  # labels of a task named by `stats`

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Keep corrected answers, look at them, hand them to a recipe.",
)

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="The file they are kept in.")]
TaskOption = Annotated[str, typer.Option(help="Only of this task.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]


@app.command("add")
def add(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STORE] [TEXT]",
            help="The file (not with --address; made where missing), then a text; "
            "no text: JSON lines on standard input.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[str, typer.Option("--label", "-l", help="The right label.")] = "",
    task: Annotated[str, typer.Option(help="A task of the bundle; empty: its default.")] = "",
    predicted: Annotated[str, typer.Option(help="What the model said.")] = "",
    lang: Annotated[str, typer.Option(help="The text's language: en, zh, ...")] = "",
    source: Annotated[str, typer.Option(help="Who says so: agent, survey, ...")] = "",
    address: Annotated[
        str, typer.Option("--address", "-a", help="Send it to a server: HOST:PORT")
    ] = "",
    bundle: Annotated[
        Path | None,
        typer.Option(help="Its policy masks, its tasks are checked; else the default policy."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds, of one call.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Keep corrections; one that is printed as kept survives a crash.

    A JSON line has "text" and "target" (a label, or spans), and may have "task", "predicted",
    "text2", "head", "tail", "lang", "source": the form of data files and of `feedback export`.
    """
    from instructrec_deploy.core.errors import ConfigError, InstructRecError, NotFound, RequestError

    given = list(words or [])
    if not address and not given:
        raise ConfigError("no store and no --address", hint="instructrec feedback add STORE TEXT")
    if address and bundle:
        raise ConfigError("--address and --bundle", hint="the server checks with its own bundle")
    store = None if address else Path(given.pop(0))
    if len(given) > 1:
        raise ConfigError("more than one text", hint="one text, or JSON lines on standard input")
    if not given and sys.stdin.isatty():
        raise ConfigError("no text", hint="give a text, or JSON lines on standard input")
    shared = {"target": label, "task": task, "predicted": predicted, "lang": lang}
    shared["source"] = source
    rows = [({"text": given[0]}, "the text")] if given else _stdin_rows()
    first_error: InstructRecError | None = None
    with ExitStack() as stack:
        take = _open_taker(stack, store, address, bundle, timeout_s)
        for row, where in rows:
            try:
                receipt = take(_feedback_of(row, where, shared))
            except (RequestError, NotFound) as error:  # this row's fault; others end the verb
                first_error = first_error or error
                _tell_error(error, where, as_json=as_json)
            else:
                _tell_receipt(receipt, as_json=as_json)
    if first_error is not None:
        raise typer.Exit(first_error.exit_code)


@app.command("list")
def show(
    store: StoreArgument,
    task: TaskOption = "",
    with_text: Annotated[bool, typer.Option("--with-text", help="Show the texts, too.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Earlier answers that were replaced, too.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Only the last N; 0: all.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List what is kept: when, which task, what the model said and what is right; no texts."""
    from collections import deque

    from instructrec_deploy.runtime.feedback_store import FeedbackStore

    with FeedbackStore.open(store) as opened:
        kept = opened.rows(task=task, with_history=history)
        for one in deque(kept, maxlen=limit) if limit else kept:
            facts = _facts(one, with_text=with_text)
            typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else _line(facts))


@app.command("export")
def export(
    store: StoreArgument,
    task: TaskOption = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file; else standard output.")
    ] = None,
) -> None:
    """Write the answers that count as rows of a data file; their splits are those of tuning."""
    from instructrec_deploy.runtime.feedback_store import FeedbackStore

    with FeedbackStore.open(store) as opened, ExitStack() as stack:
        stream = stack.enter_context(out.open("w", encoding="utf-8")) if out else sys.stdout
        for one in opened.rows(task=task):
            row = {**one.feedback.to_row(), "dataset": "feedback", "split": one.feedback.split}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


@app.command("stats")
def stats(
    store: StoreArgument,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count what is kept: by task, label, language, source; corrected against confirmed."""
    from instructrec_deploy.runtime.feedback_store import FeedbackStore

    with FeedbackStore.open(store) as opened:
        facts = count_rows(opened.rows(with_history=True)) | {"size_bytes": opened.size_bytes}
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    typer.echo(
        f"{facts['n']} answers, {facts['n_replaced']} replaced ones kept as history, "
        f"{facts['size_bytes'] / 1e6:.1f} MB"
    )
    for name, found in facts["tasks"].items():
        labels = list(found["labels"].items())
        more = f", {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
        listed = ", ".join(f"{label} {n}" for label, n in labels[:MAX_NAMED])
        typer.echo(
            f"{name or '(no task)'}: {found['n']} ({found['n_corrected']} corrected, "
            f"{found['n_confirmed']} confirmed, {found['n_unsaid']} without what the model said); "
            f"{listed}{more}"
        )


def count_rows(rows: Iterator[Kept]) -> dict[str, Any]:
    """Plain counts of a store's rows, history included."""
    n_replaced = 0
    tasks: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.replaced_by:
            n_replaced += 1
            continue
        feedback = row.feedback
        found = tasks.setdefault(
            feedback.task,
            {"n": 0, "n_corrected": 0, "n_confirmed": 0, "n_unsaid": 0}
            | {name: Counter() for name in ("labels", "langs", "sources", "splits")},
        )
        found["n"] += 1
        if feedback.predicted.is_empty:
            found["n_unsaid"] += 1
        else:
            is_right = feedback.right.agrees(feedback.predicted)
            found["n_confirmed" if is_right else "n_corrected"] += 1
        found["labels"].update(_labels(feedback.right))
        found["langs"][feedback.lang or "(not said)"] += 1
        found["sources"][feedback.source or "(not said)"] += 1
        found["splits"][feedback.split] += 1
    for found in tasks.values():
        for name in ("labels", "langs", "sources", "splits"):
            found[name] = dict(found[name].most_common())
    return {
        "n": sum(found["n"] for found in tasks.values()),
        "n_replaced": n_replaced,
        "tasks": tasks,
    }


def _open_taker(
    stack: ExitStack, store: Path | None, address: str, bundle: Path | None, timeout_s: float
) -> Callable[[Feedback], Receipt]:
    """Who keeps a correction: a server, or this process."""
    from instructrec_deploy.core.bundle import SAFETY_FILE, open_bundle, read_text

    if store is None:
        from instructrec_deploy.client.security import Security
        from instructrec_deploy.client.sync import Client

        client = Client(address, timeout_s=timeout_s, security=Security.from_environ())
        return stack.enter_context(client).feedback
    from instructrec_deploy.runtime.feedback_intake import FeedbackIntake
    from instructrec_deploy.runtime.feedback_store import FeedbackStore
    from instructrec_deploy.safety.guards import PolicyGuards
    from instructrec_deploy.safety.keys import load_keys

    opened = open_bundle(bundle) if bundle else None
    policy = read_text(opened.path(SAFETY_FILE)) if opened else ""
    guard = PolicyGuards.from_toml(policy, where=SAFETY_FILE, keys=load_keys())
    kept = stack.enter_context(FeedbackStore.open(store, create=True))
    book, check = opened.tasks if opened else None, None
    if opened and any(part.input.entities for part in guard.policy.parts()):
        from instructrec_deploy.runtime.pipeline import Pipeline

        model = Pipeline.open(opened, guard=guard)
        stack.callback(model.close)
        check = model.checks.checked
    return FeedbackIntake(kept, book=book, guard=guard, check=check).take


def _stdin_rows() -> Iterator[tuple[Any, str]]:
    """Each line of standard input with its place; what is no JSON object is its own fault."""
    from instructrec_deploy.cli.predict import read_lines

    for number, line in enumerate(read_lines(sys.stdin.buffer), start=1):
        where = f"row {number}"
        yield line.error or line.fields or {"text": line.text}, where


def _feedback_of(row: Any, where: str, shared: dict[str, str]) -> Feedback:
    """A row with what the command line says besides; the row's own words come first."""
    from instructrec_deploy.core.errors import InstructRecError
    from instructrec_deploy.core.feedback import Feedback
    from instructrec_deploy.core.task import ROW_KINDS

    if isinstance(row, InstructRecError):
        raise row
    if row.get("task") in ROW_KINDS:  # rows of data files name the kind of their task there
        row = {name: value for name, value in row.items() if name != "task"}
    return Feedback.from_row({k: v for k, v in shared.items() if v} | row, where=where)


def _tell_receipt(receipt: Receipt, *, as_json: bool) -> None:
    masked = bool(receipt.text)
    if as_json:
        typer.echo(json.dumps({"id": receipt.id, "outcome": receipt.outcome, "masked": masked}))
    else:
        typer.echo(f"{receipt.outcome} {receipt.id}{' (masked)' if masked else ''}")


def _tell_error(error: Any, where: str, *, as_json: bool) -> None:
    from instructrec_deploy.cli.report import error_facts, report_error

    if as_json:
        typer.echo(json.dumps({"where": where, "error": error_facts(error)}, ensure_ascii=False))
    else:
        report_error(error)


def _facts(row: Kept, *, with_text: bool) -> dict[str, Any]:
    feedback = row.feedback
    facts: dict[str, Any] = {
        "id": feedback.id,
        "created": feedback.created,
        "task": feedback.task,
        "right": _words(feedback.right),
        "predicted": _words(feedback.predicted),
        "lang": feedback.lang,
        "source": feedback.source,
        "model": feedback.model,
        "model_version": feedback.model_version,
        "split": feedback.split,
        "replaced_by": row.replaced_by,
    }
    return facts | ({"text": feedback.text} if with_text else {})


def _line(facts: dict[str, Any]) -> str:
    was = f" (was {facts['predicted']})" if facts["predicted"] else ""
    gone = f" [replaced by {facts['replaced_by'][:8]}]" if facts["replaced_by"] else ""
    text = "  " + " ".join(facts["text"].split()) if "text" in facts else ""
    when, id8 = facts["created"][:19], facts["id"][:8]
    return f"{id8}  {when}  {facts['task']}: {facts['right']}{was}{gone}{text}"


def _words(target: Target) -> str:
    """A target without any of the text: labels, or how many spans of which types."""
    if target.spans is None:
        return ", ".join(target.labels)
    counts = Counter(span.type for span in target.spans)
    return ", ".join(f"{kind} x {n}" for kind, n in counts.items()) or "nothing to mark"


def _labels(target: Target) -> list[str]:
    if target.spans is None:
        return list(target.labels)
    return [span.type for span in target.spans]

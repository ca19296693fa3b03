"""`instructrec predict`: ask a bundle or a server about texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from instructrec_deploy.core.errors import InstructRecError, RequestError
from instructrec_deploy.core.task import ROW_KINDS

if TYPE_CHECKING:
    from instructrec_deploy.cli.asking import Asked, Asker
    from instructrec_deploy.core.instruction import Candidate
    from instructrec_deploy.core.request import Mark
    from instructrec_deploy.core.result import Prediction, Span

WORD_FIELDS = ("instruction", "kind", "task", "prepared_id", "decision", "none_label", "text2")
STDIN = "-"  # as a text: standard input
MAX_TIMEOUT_S = 86_400.0  # longer than gRPC can count is no time at all
N_MOVING = 5  # words that are shown
CHUNK = 1024  # lines of standard input that are answered together


def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE] [TEXT]...",
            help="The bundle folder (not with --address), then texts; none or -: standard input.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[str, typer.Option("--address", "-a", help="Ask a server: HOST:PORT")] = "",
    model: Annotated[str, typer.Option("--model", help="Which of a server's models.")] = "",
    task: Annotated[str, typer.Option(help="A task of the bundle; empty: its default.")] = "",
    instruction: Annotated[
        str,
        typer.Option(
            "--instruction", "-i", help="What is asked; without candidates, of the task's labels."
        ),
    ] = "",
    kind: Annotated[
        str, typer.Option(help="Of a question without a task: classification, ner, qa, ...")
    ] = "",
    candidates: Annotated[str, typer.Option(help="The answers to choose from: a,b,c")] = "",
    candidate: Annotated[
        list[str] | None, typer.Option("--candidate", "-c", help="One answer; repeatable.")
    ] = None,
    prepared_id: Annotated[str, typer.Option(help="Id of a prepared instruction.")] = "",
    top_k: Annotated[int, typer.Option(help="How many scores; 0: all.")] = 5,
    decision: Annotated[
        str, typer.Option(help="one or any of the candidates; empty: as the task says.")
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(help="any: least probability of a label; one: least fit of the answer."),
    ] = None,
    none_label: Annotated[str, typer.Option(help="The answer where nothing fits.")] = "",
    text2: Annotated[
        str, typer.Option(help="The second text of a pair, for every text without its own.")
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which words moved the answer.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, max=MAX_TIMEOUT_S, help="Seconds, of one call.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Predict texts of the arguments; without any, or with -, those of standard input.

    Standard input gives JSON lines on standard output, one for each line that is not blank, in
    order. A line that begins with { is a JSON object (if the first one is, all must be); it
    has "text" and may have "id", "instruction", "kind", "candidates", "task", "top_k", "decision",
    "threshold", "none_label" of its own. Beside its text it may bring "text2", or "head" and
    "tail" as {"start", "end"}; "history", a list of items, stands in place of the text.
    """
    from instructrec_deploy.cli.asking import (
        Asked,
        open_asker,
        split_candidates,
        with_task_of_kind,
    )
    from instructrec_deploy.core.errors import ConfigError

    given = list(words or [])
    if not address and not given:
        raise ConfigError("no bundle and no --address", hint="instructrec predict BUNDLE TEXT...")
    bundle = None if address else Path(given.pop(0))
    listed = split_candidates(candidate or [], candidates)
    asked = Asked(instruction, listed, task, prepared_id, decision, threshold, none_label, kind)
    from_stdin = is_standard_input(given)
    lines = read_lines(sys.stdin.buffer) if from_stdin else argument_lines(given)
    writer = JsonWriter() if as_json or from_stdin else TableWriter()
    with open_asker(bundle, address, timeout_s=timeout_s, model=model) as asker:
        if not from_stdin:  # a line may bring what is missing
            asked = with_task_of_kind(asked, asker)
        while chunk := list(islice(lines, CHUNK)):
            for line, outcome in answer_lines(
                chunk, asked, top_k, asker, text2=text2, explain=explain
            ):
                writer.write(line, outcome)
            sys.stdout.flush()
    if writer.error is not None:
        raise typer.Exit(writer.error.exit_code)


def is_standard_input(texts: Sequence[str]) -> bool:
    """Whether the texts come on standard input.

    Raises:
        ConfigError: there are none anywhere, or some in both places.
    """
    from instructrec_deploy.core.errors import ConfigError

    if not texts and sys.stdin.isatty():
        raise ConfigError("no text", hint="give texts as arguments, or lines on standard input")
    if STDIN in texts and len(texts) > 1:
        raise ConfigError("- stands beside other texts", hint="give texts, or - alone")
    return not texts or STDIN in texts


@dataclass(frozen=True, slots=True)
class Line:
    """One input: a text with what its JSON line says besides; or why it cannot be used."""

    text: str
    fields: dict[str, Any]
    error: InstructRecError | None = None
    candidates: tuple[Candidate, ...] = ()  # the line's own
    marks: tuple[Mark | None, Mark | None] = (None, None)

    @property
    def id(self) -> str:
        """The caller's own id ("" where there is none)."""
        return str(self.fields.get("id", ""))


def argument_lines(texts: Iterable[str]) -> Iterator[Line]:
    """Arguments as inputs; one that was not valid UTF-8 is refused."""
    for text in texts:
        yield Line(text, {}, None if _is_unicode(text) else _undecodable())


def read_lines(stream: BinaryIO) -> Iterator[Line]:
    """Lines of a stream: JSON objects and plain texts; blank ones are none.

    A line that begins with "{" is a JSON object. Where the first line is one, all must be.
    An unusable line is an input with an error, so that answers stay in step with lines.
    """
    must_be_json: bool | None = None
    for number, raw in enumerate(stream, start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield Line("", {}, _undecodable(number))
            continue
        if not text.strip():
            continue
        is_object = text.lstrip().startswith("{")
        if must_be_json is None:
            must_be_json = is_object
        yield parse_json_line(text, number) if is_object or must_be_json else Line(text, {})


def parse_json_line(line: str, number: int) -> Line:
    """A JSON line as an input; its faults become its error."""
    from instructrec_deploy.core.errors import RowInvalid

    hint = 'write {"text": "..."} on every line'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Line("", {}, RowInvalid(f"line {number}: not valid JSON", hint=hint))
    if not isinstance(row, dict) or not isinstance(row.get("text", ""), str):
        return Line("", {}, RowInvalid(f"line {number}: no text in it", hint=hint))
    if "\\u" in line and not _is_unicode(json.dumps(row, ensure_ascii=False)):
        known = {"id": row["id"]} if _is_unicode(str(row.get("id", ""))) and "id" in row else {}
        return Line("", known, _undecodable(number))
    is_worded = all(isinstance(row.get(k, ""), str) for k in WORD_FIELDS)
    is_counted = isinstance(row.get("top_k", 0), int)
    is_counted &= isinstance(row.get("threshold"), int | float | None)
    if not is_worded or not is_counted:
        return Line("", row, RowInvalid(f"line {number}: a field has another type", hint=hint))
    try:
        return _read_row(row)
    except InstructRecError as error:
        return Line("", row, type(error)(f"line {number}: {error.message}", hint=error.hint))


def _read_row(row: dict[str, Any]) -> Line:
    """A JSON object whose words are strings as an input.

    Raises:
        RequestError: what it brings beside them has another form than it should.
    """
    from instructrec_deploy.core.errors import RowInvalid
    from instructrec_deploy.core.request import as_mark
    from instructrec_deploy.evaluation.requests import candidate_of
    from instructrec_deploy.text.render import render_history

    if ("text" in row) == ("history" in row):
        what = "a text and a history" if "text" in row else "no text in it"
        raise RowInvalid(what, hint='write "text", or "history" in its place')
    candidates = row.get("candidates", [])
    if not isinstance(candidates, list):
        raise RowInvalid("candidates are no list", hint='write "candidates": ["one", "two"]')
    return Line(
        row["text"] if "text" in row else render_history(row["history"]),
        row,
        candidates=tuple(
            candidate_of(one, where=f"candidate {i}") for i, one in enumerate(candidates)
        ),
        marks=(as_mark(row.get("head"), "head"), as_mark(row.get("tail"), "tail")),
    )


def answer_lines(
    lines: list[Line],
    asked: Asked,
    top_k: int,
    asker: Asker,
    *,
    text2: str = "",
    explain: bool = False,
) -> Iterator[tuple[Line, Prediction | InstructRecError]]:
    """Each line with its prediction or error, in order; usable lines are asked together."""
    from instructrec_deploy.cli.asking import ask_all, make_question, make_request
    from instructrec_deploy.core.request import Question, Request

    questions: dict[Asked, Question | InstructRecError] = {}
    items: list[Request | InstructRecError] = []
    for line in lines:
        if line.error is not None:
            items.append(line.error)
            continue
        wanted = line_asked(line, asked)
        if wanted not in questions:
            try:
                questions[wanted] = make_question(wanted, asker)
            except InstructRecError as error:
                questions[wanted] = error
        question, wanted_k = questions[wanted], line.fields.get("top_k", top_k)
        items.append(
            question
            if isinstance(question, InstructRecError)
            else make_request(
                line.text,
                question,
                id=line.id,
                top_k=wanted_k,
                text2=line.fields.get("text2") or text2,
                head=line.marks[0],
                tail=line.marks[1],
                explain=explain,
            )
        )
    yield from zip(lines, ask_all(asker, items), strict=True)


def line_asked(line: Line, asked: Asked) -> Asked:
    """What this line asks: its own fields before those of the command line."""
    from instructrec_deploy.cli.asking import Asked

    fields = line.fields
    task, own_kind = fields.get("task", ""), ""
    if task in ROW_KINDS:  # rows of data files name the kind of their task in this field
        task, own_kind = "", task
    return Asked(
        fields.get("instruction") or asked.instruction,
        line.candidates or asked.candidates,
        task or asked.task,
        fields.get("prepared_id") or asked.prepared_id,
        fields.get("decision") or asked.decision,
        asked.threshold if fields.get("threshold") is None else fields["threshold"],
        fields.get("none_label") or asked.none_label,
        fields.get("kind") or asked.kind or own_kind,
    )


class Writer:
    """What both forms of output share: the error that decides the exit code."""

    def __init__(self) -> None:
        self.error: InstructRecError | None = None

    def note(self, error: InstructRecError) -> None:
        """The first error counts; one that is not a text's own before those that are."""
        if self.error is None or (
            isinstance(self.error, RequestError) and not isinstance(error, RequestError)
        ):
            self.error = error


class JsonWriter(Writer):
    """One JSON object a line on standard output, for answers and errors alike."""

    def write(self, line: Line, outcome: Prediction | InstructRecError) -> None:
        """Write one outcome."""
        from instructrec_deploy.cli.report import error_facts

        if isinstance(outcome, InstructRecError):
            self.note(outcome)
            row: dict[str, Any] = {"id": line.id, "error": error_facts(outcome)}
        else:
            row = outcome.to_dict()
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


class TableWriter(Writer):
    """A line for people: label, probability, time, the text as the model read it."""

    def __init__(self) -> None:
        super().__init__()
        self._told: InstructRecError | None = None

    def write(self, line: Line, outcome: Prediction | InstructRecError) -> None:
        """Write one outcome; errors go to standard error, one that many texts share only once."""
        from instructrec_deploy.cli.report import report_error

        if not isinstance(outcome, InstructRecError):
            typer.echo(table_line(line.text, outcome))
            for span in outcome.spans:
                typer.echo(span_line(span))
            for words in moving_words(line.text, outcome):
                typer.echo(words)
        elif outcome is not self._told:
            self.note(outcome)
            self._told = outcome
            report_error(outcome)


def table_line(text: str, prediction: Prediction) -> str:
    """`label  probability  milliseconds  text  [what the policy did]`."""
    seen = " ".join((prediction.text or text).split())
    seen = seen if len(seen) <= 72 else seen[:69] + "..."
    if prediction.action == "block":
        seen = "(not shown)"
    notes = sorted({f.category for v in prediction.verdicts for f in v.findings})
    safety = f"  [{prediction.action}: {', '.join(notes)}]" if notes else ""
    if prediction.truncated:
        safety += "  [cut to the model's window]"
    empty = "(none of these)" if prediction.abstained else "(blocked)"
    label = ", ".join(prediction.labels) or prediction.label or empty
    pad = " " * max(0, 28 - sum(2 if ord(c) > 0x2E7F else 1 for c in label))
    took = f"{prediction.timings.total_ms:8.1f} ms"
    return f"{label}{pad} {prediction.score:7.1%} {took}  {seen}{safety}"


def span_line(span: Span) -> str:
    """`    words  type  probability  where`, under the line of the text."""
    words = " ".join(span.text.split())
    words = words if len(words) <= 48 else words[:45] + "..."
    pad = " " * max(0, 50 - sum(2 if ord(c) > 0x2E7F else 1 for c in words))
    return f"    {words}{pad} {span.score:6.1%}  {span.start}-{span.end}  {span.label}".rstrip()


def moving_words(text: str, prediction: Prediction) -> list[str]:
    """`    words  +probability`, those that moved the first answer most."""
    found = prediction.answers[0].attributions if prediction.answers else ()
    ranked = sorted(found, key=lambda one: -abs(one.score))[:N_MOVING]
    return [
        f"    {' '.join(text[one.start : one.end].split())}  {100 * one.score:+.1f} points"
        for one in ranked
    ]


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _undecodable(number: int = 0) -> InstructRecError:
    from instructrec_deploy.core.errors import TextUndecodable

    where = f"line {number}: " if number else ""
    return TextUndecodable(f"{where}not valid UTF-8", hint="send texts as UTF-8")

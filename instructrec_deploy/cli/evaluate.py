"""`instructrec evaluate`: how well a bundle or a server answers a labelled file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from instructrec_deploy.cli.asking import Asked, Asker
    from instructrec_deploy.core.errors import InstructRecError
    from instructrec_deploy.core.example import Example
    from instructrec_deploy.core.request import Question, Request
    from instructrec_deploy.evaluation.evaluate import Evaluation
    from instructrec_deploy.evaluation.requests import Items

MAX_NAMED = 5  # labels named in a warning


def evaluate(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE]",
            help="The bundle folder; optional with --address.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", help=".jsonl or .jsonl.gz; or shipped:NAME", show_default=False
        ),
    ] = "",
    split: Annotated[
        str, typer.Option(help="Rows of this split, and rows that state none; all: every row.")
    ] = "test",
    address: Annotated[str, typer.Option("--address", "-a", help="Ask a server: HOST:PORT")] = "",
    is_unary: Annotated[
        bool, typer.Option("--unary", help="64 concurrent single calls, not batch messages.")
    ] = False,
    task: Annotated[str, typer.Option(help="A task of the bundle; empty: its default.")] = "",
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="What is asked.")] = "",
    labels_from: Annotated[
        str, typer.Option(metavar="FILE|data", help="The labels: one a line, or the file's own.")
    ] = "",
    none_label: Annotated[
        str,
        typer.Option(
            metavar="LABEL",
            help="Rows with this label fit no candidate; an answer without a label is right too.",
            show_default=False,
        ),
    ] = "",
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines that say what the ids among the rows' candidates stand for.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only the first N rows; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
    safety: Annotated[
        bool, typer.Option("--safety", help="The safety filter, not the answers; no bundle needed.")
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="With --safety: a safety.toml, or a bundle that has one."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE=NAME",
            help="With --safety: the rows' word for a type of personal data, and ours; repeat.",
            show_default=False,
        ),
    ] = None,
    abuse_label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="With --safety: a label that means abuse; repeat.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure on labelled rows, with 95 % intervals, in process or over gRPC.

    The rows' field `task` decides what: accuracy, macro F1 and calibration error of labels, entity
    F1, exact match and F1 of answers, HR@k and NDCG@k of rankings.

    With --safety it is the filter that is measured: personal data found and leaked on rows of spans
    (`pii`), flagged against not on rows of labels.
    """
    from instructrec_deploy.cli.asking import Asked, open_asker
    from instructrec_deploy.cli.shipped import find_data
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.evaluation.reader import read_examples
    from instructrec_deploy.evaluation.requests import read_items
    from instructrec_deploy.evaluation.targets import kind_of

    if not data:
        raise ConfigError("no data file", hint="--data FILE.jsonl")
    source = find_data(data)
    examples = read_examples(source, split)
    if limit:
        examples = examples[:limit]
    if safety:
        from instructrec_deploy.cli.evaluate_safety import measure_safety, print_safety

        if address or is_unary or instruction or labels_from or none_label or items:
            raise ConfigError(
                "--safety measures the filter, in process, and asks nothing of the caller's own",
                hint="leave out --address, --unary, --instruction, --labels-from, --none-label "
                "and --items",
            )
        measured, told = measure_safety(
            examples,
            bundle=bundle,
            policy=policy,
            task=task,
            renamed=rename or (),
            abuse_labels=abuse_label or (),
            seed=seed,
        )
        print_safety(measured, {"data": data, "split": split, **told}, as_json=as_json)
        return
    if policy or rename or abuse_label:
        raise ConfigError("--policy, --rename and --abuse-label go with --safety", hint="add it")
    labels = read_labels(labels_from, source) if labels_from else []
    kind = kind_of(examples[0]).value  # of what is asked in the words given here
    asked = Asked(instruction, tuple(labels), task, kind=kind)
    known = read_items(items) if items else None
    with open_asker(bundle, address, is_unary=is_unary) as asker:
        result = measure_rows(examples, asked, asker, known, none_label=none_label, seed=seed)
    facts = {"data": data, "split": split, **result.to_dict()}
    facts["through"] = ("grpc-unary" if is_unary else "grpc-batch") if address else "process"
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        print_result(result)


def measure_rows(
    examples: Sequence[Example],
    asked: Asked,
    asker: Asker,
    items: Items | None,
    *,
    none_label: str,
    seed: int,
) -> Evaluation:
    """Ask every row, in one go, and compare with its target.

    Args:
        examples: with candidates of their own or without.
        asked: what is asked, with the candidates of rows without.
        asker: who answers.
        items: what ids among the rows' candidates stand for.
        none_label: rows with this label fit no candidate.
        seed: of the intervals.

    Raises:
        InstructRecError: a row is wrong, or no row could be answered.
    """
    from instructrec_deploy.cli.asking import Outcome, ask_all, make_question
    from instructrec_deploy.core.errors import InstructRecError, Unavailable
    from instructrec_deploy.core.request import Question
    from instructrec_deploy.core.task import SHAPES, Shape
    from instructrec_deploy.evaluation.evaluate import evaluate_rows
    from instructrec_deploy.evaluation.judging import is_single_label
    from instructrec_deploy.evaluation.requests import has_candidates
    from instructrec_deploy.evaluation.targets import kind_of

    asked = with_task(asked, asker)
    question, candidates = Question(), [str(label) for label in asked.candidates]
    if not all(map(has_candidates, examples)):  # some have no candidates of their own
        question = make_question(asked, asker)
        if SHAPES[kind_of(examples[0])] is Shape.CLASSIFY:
            candidates = candidates or known_labels(question, asker, examples[0].text)
        question = asker.fixed(question)
    top_k = 1 if is_single_label(examples) else 0

    def predict(rows: Sequence[Example]) -> list[Outcome]:
        requests = [row_request(row, question, asked, asker, items, top_k) for row in rows]
        outcomes = ask_all(asker, requests)
        errors = [outcome for outcome in outcomes if isinstance(outcome, InstructRecError)]
        gone = [error for error in errors if isinstance(error, Unavailable)]
        if gone or (errors and len(errors) == len(outcomes) > 1):  # not one row's fault
            raise (gone or errors)[0]
        return outcomes

    predict(examples[:1])  # the first answer prepares the instruction
    return evaluate_rows(examples, predict, candidates=candidates, none_label=none_label, seed=seed)


def with_task(asked: Asked, asker: Asker) -> Asked:
    """What is asked, with the task it takes its words or labels from: one of the rows' kind.

    Raises:
        ConfigError: the default task is of another kind, and none or several are of this one.
    """
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.core.task import SHAPES, Shape, parse_kind

    if asked.task or (asked.instruction and asked.candidates):
        return asked
    kind, tasks = parse_kind(asked.kind), asker.tasks()
    fitting = [task for task in tasks if task.kind is kind]
    has_spans = SHAPES[kind] is Shape.EXTRACT
    default = [task for task in fitting if task.is_default]
    if not has_spans and (default or len(fitting) != 1):
        return asked
    fitting = default or fitting  # named: a row's own question comes without words for it
    if len(fitting) != 1:
        named = ", ".join(task.name for task in fitting) or "none"
        raise ConfigError(
            f"the rows are of kind {asked.kind}, the default task is not (of this kind: {named})",
            hint="name the task by --task, or send --instruction and --labels-from",
        )
    return replace(asked, task=fitting[0].name)


def row_request(
    row: Example,
    question: Question,
    asked: Asked,
    asker: Asker,
    items: Items | None,
    top_k: int,
) -> Request | InstructRecError:
    """What a row asks, or why it cannot be asked.

    Args:
        row: with candidates of its own, all of whose scores are wanted, or without.
        question: of the rows without.
        asked: how the candidates of the others are asked.
        asker: who answers.
        items: what ids among them stand for.
        top_k: how many scores the rows without need; 0: all.

    Raises:
        RowInvalid: the row is wrong, not what it asks.
    """
    from instructrec_deploy.cli.asking import make_question
    from instructrec_deploy.core.errors import InstructRecError, RowInvalid
    from instructrec_deploy.evaluation.requests import has_candidates, request_of

    try:
        return request_of(
            row,
            question,
            ask=lambda candidates: make_question(replace(asked, candidates=candidates), asker),
            items=items,
            top_k=0 if has_candidates(row) else top_k,
        )
    except RowInvalid:
        raise
    except InstructRecError as error:
        return error


def read_labels(source: str, data: Path) -> list[str]:
    """The labels to choose from.

    Args:
        source: `data`: those that stand in the data file's rows (all splits), sorted. Else a file:
            one label a line, or rows of a data file.

    Raises:
        FileMissing: no such file.
        RowInvalid: it holds no label, or is not UTF-8.
    """
    from instructrec_deploy.core.errors import FileMissing, RowInvalid
    from instructrec_deploy.evaluation.reader import read_examples
    from instructrec_deploy.evaluation.targets import labels_of

    if source == "data":
        return labels_of(read_examples(data))
    path = Path(source)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return labels_of(read_examples(path))
    if not path.is_file():
        raise FileMissing(f"no label file {path}", hint="one label a line; or --labels-from data")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RowInvalid(f"{path}: not valid UTF-8", hint="save the file as UTF-8") from error
    labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not labels:
        raise RowInvalid(f"{path} holds no label", hint="one label a line")
    return labels


def known_labels(question: Question, asker: Asker, text: str) -> list[str]:
    """The labels that a question chooses from; asked for with one text where a task has them."""
    from instructrec_deploy.cli.asking import ask_all, make_request
    from instructrec_deploy.core.errors import InstructRecError

    if question.instruction is not None:
        return list(question.instruction.labels)
    (answer,) = ask_all(asker, [make_request(text, question, top_k=0)])
    if isinstance(answer, InstructRecError):
        return []
    return [score.label for score in answer.answers[0].scores] if answer.answers else []


def print_result(result: Evaluation) -> None:
    """The figures for people, warnings last."""
    from instructrec_deploy.evaluation.figures import HEADLINES

    values = result.figures.values
    for name, words in HEADLINES.items():
        if name in values:
            typer.echo(
                f"{words:20} {values[name].value:7.2%}   95 % interval {values[name].low:.2%} to "
                f"{values[name].high:.2%}"
            )
    typer.echo(
        f"{result.figures.n} rows, {result.n_candidates} candidates, {result.seconds:.1f} s, "
        f"{result.texts_per_s:.0f} texts/s ({result.model} {result.model_version})"
    )
    if result.n_blocked:
        typer.echo(f"note: {result.n_blocked} rows were blocked by the policy and count as wrong")
    if result.errors:
        kinds = ", ".join(f"{code} x {n}" for code, n in result.errors.most_common())
        typer.echo(
            f"warning: {result.errors.total()} rows got an error and count as wrong: {kinds}"
        )
    if result.outside:
        named = ", ".join(repr(label) for label, _ in result.outside.most_common(MAX_NAMED))
        typer.echo(
            f"warning: {result.outside.total()} rows have a label that is not among the candidates "
            f"and count as wrong ({len(result.outside)} such labels: {named}); "
            "--labels-from data takes the file's own"
        )

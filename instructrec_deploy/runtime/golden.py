"""Golden pairs: does this bundle, on this machine, answer as it did where it was exported?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from instructrec_deploy.core.bundle import GOLDEN_FILE, Bundle, read_text
from instructrec_deploy.core.errors import BundleError, GoldenFailed, InstructRecError, RequestError
from instructrec_deploy.core.request import Question, Request, as_mark, check_marks
from instructrec_deploy.core.result import Answer
from instructrec_deploy.runtime.pipeline import Outcome, Pipeline

BATCH_ITEMS = 4  # of like length: little padding, and work for every lane
MAX_FAULTS = 5  # named in the message


Place = tuple[int, int, str]  # of a span: start, end, type


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """One line: what was asked (as a request, all scores wanted), the answer it had."""

    line: int
    request: Request
    label: str
    scores: dict[str, float]
    labels: tuple[str, ...] | None = None  # all that were chosen; None: the label alone
    question: str = ""  # of a task of questions
    spans: frozenset[Place] | None = None  # of a task of spans


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """What the check found. `max_difference`: of a probability, over all pairs."""

    n_pairs: int
    max_difference: float
    tolerance: float
    warnings: tuple[str, ...] = ()


def check_golden(bundle: Bundle, pipeline: Pipeline) -> GoldenReport:
    """Run the bundle's golden pairs, without the guard: the pairs were made without it.

    Raises:
        GoldenFailed: a label differs, or a score by more than the bundle's `score_tolerance`. The
            message names lines of golden.jsonl, never texts.
        BundleError: a line is not a pair.
    """
    tolerance = bundle.manifest.score_tolerance
    rows = read_golden(bundle)
    if not rows:
        warning = f"{GOLDEN_FILE} is empty: nothing proves that this machine answers right"
        return GoldenReport(0, 0.0, tolerance, (warning,))
    faults: list[str] = []
    worst = 0.0
    for row, outcome in _answer(bundle, pipeline, rows):
        if isinstance(outcome, InstructRecError):
            faults.append(f"line {row.line}: {outcome.code} {outcome.message}")
            continue
        difference = _difference(row, outcome.answers[0])
        worst = max(worst, difference)
        if _is_other(row, outcome.answers[0]):
            faults.append(f"line {row.line}: another label")
        elif not difference <= tolerance:
            faults.append(f"line {row.line}: a score differs by {difference:.2g}")
    if faults:
        named = "; ".join(faults[:MAX_FAULTS])
        raise GoldenFailed(
            f"{len(faults)} of {len(rows)} golden pairs fail (tolerance {tolerance:g}): {named}",
            hint="this machine computes otherwise than the one it was exported on: "
            "export the bundle here, or use fp32",
        )
    return GoldenReport(len(rows), worst, tolerance)


def read_golden(bundle: Bundle) -> list[GoldenRow]:
    """The pairs of a bundle.

    Raises:
        BundleError: a line is not one.
    """
    content = read_text(bundle.path(GOLDEN_FILE)).split("\n")  # U+2028 in a text ends no line
    return [_row(number, line) for number, line in enumerate(content, 1) if line.strip()]


def _answer(
    bundle: Bundle, pipeline: Pipeline, rows: Sequence[GoldenRow]
) -> Iterator[tuple[GoldenRow, Outcome]]:
    """Every row with its outcome, in order; all lanes compute, texts of like length together."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].request.text), reverse=True)
    batches = [order[at : at + BATCH_ITEMS] for at in range(0, len(order), BATCH_ITEMS)]
    n_lanes = pipeline.engine.n_lanes

    def compute(lane: int) -> dict[int, Outcome]:
        found: dict[int, Outcome] = {}
        for batch in batches[lane::n_lanes]:
            requests = [_asked(bundle, rows[index]) for index in batch]
            answers = pipeline.answer(requests, lane=lane, use_guard=False)
            found.update(zip(batch, answers, strict=True))
        return found

    outcomes: dict[int, Outcome] = {}
    with ThreadPoolExecutor(n_lanes) as threads:
        for found in threads.map(compute, range(n_lanes)):
            outcomes.update(found)
    return ((row, outcomes[index]) for index, row in enumerate(rows))


def _asked(bundle: Bundle, row: GoldenRow) -> Request:
    if not row.question:
        return row.request
    asked = bundle.instruction(row.request.questions[0].task, row.question)
    return replace(row.request, questions=(Question(instruction=asked),))


def _is_other(row: GoldenRow, answer: Answer) -> bool:
    """Whether the answer is another one; the order of several labels may change with rounding."""
    if row.labels is None:
        return answer.label != row.label
    if row.spans is not None:
        told = answer.spans[: len(row.spans)] if row.question else answer.spans
        if {(span.start, span.end, span.label) for span in told} != row.spans:
            return True
    return set(answer.labels) != set(row.labels)


def _difference(row: GoldenRow, answer: Answer) -> float:
    """The largest difference of a probability; infinite where a label is missing."""
    found = {score.label: score.score for score in answer.scores}
    return max(
        (abs(found.get(label, math.inf) - score) for label, score in row.scores.items()),
        default=0.0,
    )


def _row(number: int, line: str) -> GoldenRow:
    try:
        raw: Any = json.loads(line)
        scores = {str(label): float(score) for label, score in raw["scores"].items()}
        texts = [raw["text"], raw["task"], raw["label"], raw.get("text2", "")]
        labels = None if raw.get("labels") is None else tuple(map(str, raw["labels"]))
        spans = _spans(raw.get("spans"))
        texts.append(raw.get("question", ""))
        marks = as_mark(raw.get("head"), "head"), as_mark(raw.get("tail"), "tail")
        check_marks(str(texts[0]), *marks)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        RequestError,
    ) as error:
        raise BundleError(
            f"{GOLDEN_FILE} line {number}: not a golden pair", hint="export the bundle again"
        ) from error
    if not all(isinstance(text, str) for text in texts):
        raise BundleError(
            f"{GOLDEN_FILE} line {number}: text, text2, task, label and question must be strings",
            hint="export the bundle again",
        )
    text, task, label, text2, question = texts
    request = Request(text, (Question(task=task),), "", 0, text2, *marks)
    return GoldenRow(number, request, label, scores, labels, question, spans)


def _spans(raw: Any) -> frozenset[Place] | None:
    return None if raw is None else frozenset((int(a), int(b), str(kind)) for a, b, kind in raw)

"""From labelled rows and the answers to them to figures: one judge for each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from instructrec_deploy.core.errors import InstructRecError, RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.result import Answer, Prediction, Span
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.figures import Figures
from instructrec_deploy.evaluation.metrics import (
    ABSTAINED,
    calibration,
    class_metrics,
    label_set_metrics,
    scope_metrics,
)
from instructrec_deploy.evaluation.questions import (
    Replied,
    exact_and_f1,
    question_metrics,
    reads_as_chinese,
)
from instructrec_deploy.evaluation.ranking import rank_relevant, ranking_metrics
from instructrec_deploy.evaluation.spans import entity_metrics
from instructrec_deploy.evaluation.targets import (
    entities_of,
    kind_of,
    label_of,
    label_set_of,
    references_of,
    relevant_of,
)

Outcome = Prediction | InstructRecError
Examples = Sequence[Example]
Outcomes = Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class Judge:
    """Knows what is right; `measure` compares the outcomes, one for each row, with it."""

    kind: TaskKind
    measure: Callable[[Outcomes], Figures]
    gold_labels: tuple[str, ...] = ()  # that must be among the candidates; a label for each row


def make_judge(examples: Examples, *, none_label: str = "", seed: int = 0) -> Judge:
    """Read the rows' targets by the kind of task that they name.

    Args:
        none_label: rows with this label fit no candidate; an answer with it or with none at all
            is right for them.
        seed: of the resamples.

    Raises:
        RowInvalid: a target is unusable, the rows are of kinds that are measured differently, or
            of one that is not measured here.
    """
    kinds = sorted({kind_of(example) for example in examples})
    makers = {MAKERS.get(kind) for kind in kinds}
    if len(makers) != 1:
        raise RowInvalid(
            f"rows of several kinds of task: {', '.join(kinds)}", hint="one file for each kind"
        )
    maker = makers.pop()
    if maker is None:
        raise RowInvalid(
            f"rows of the task {kinds[0].value!r} are answered with text of the model's own, "
            "which is not measured here",
            hint=f"kinds that are: {', '.join(MAKERS)}",
        )
    return maker(kinds[0], examples, none_label, seed)


def is_single_label(examples: Examples) -> bool:
    """Whether one label, and nothing else of the answer, decides about each row."""
    return all(
        MAKERS.get(kind_of(e)) is label_judge and not isinstance(e.target, list) for e in examples
    )


def label_judge(kind: TaskKind, examples: Examples, none_label: str, seed: int) -> Judge:
    """For one label each, or (where a target is a list) for any number of labels."""
    if any(isinstance(example.target, list) for example in examples):
        return _label_set_judge(kind, examples, none_label, seed)
    gold = tuple(label_of(example) for example in examples)

    def measure(outcomes: Outcomes) -> Figures:
        found = [_answer(outcome) for outcome in outcomes]
        predicted = [(a.label or none_label) if a else ABSTAINED for a in found]
        scores = [a.score if a and a.label else None for a in found]
        figures = class_metrics(gold, predicted, scores=scores, seed=seed).figures
        if not none_label:
            return figures
        scope = scope_metrics(
            [label == none_label for label in gold],
            [label == none_label for label in predicted],
            [g == p for g, p in zip(gold, predicted, strict=True)],
            seed=seed,
        )
        return _joined(figures, scope)

    return Judge(kind, measure, tuple(label for label in gold if label != none_label))


def _label_set_judge(kind: TaskKind, examples: Examples, none_label: str, seed: int) -> Judge:
    gold = [label_set_of(example) - {none_label} for example in examples]

    def measure(outcomes: Outcomes) -> Figures:
        found = [_answer(outcome) for outcome in outcomes]
        predicted = [_labels(a) - {none_label} if a else None for a in found]
        figures = label_set_metrics(gold, predicted, seed=seed)
        if all(gold) and not none_label:
            return figures
        scope = scope_metrics(
            [not labels for labels in gold],
            [labels is not None and not labels for labels in predicted],
            [g == p for g, p in zip(gold, predicted, strict=True)],
            seed=seed,
        )
        return _joined(figures, scope)

    return Judge(kind, measure, tuple(label for labels in gold for label in sorted(labels)))


def entity_judge(kind: TaskKind, examples: Examples, none_label: str, seed: int) -> Judge:
    """For spans with a type."""
    gold = [entities_of(example) for example in examples]

    def measure(outcomes: Outcomes) -> Figures:
        spans = [_spans(outcome) for outcome in outcomes]
        predicted = [frozenset((s.start, s.end, s.label) for s in found) for found in spans]
        sure = [
            (span.score, (span.start, span.end, span.label) in right)
            for right, found in zip(gold, spans, strict=True)
            for span in found
        ]
        figures = entity_metrics(gold, predicted, seed=seed)
        return _joined(figures, Figures(figures.n, calibration(sure, seed=seed)))

    return Judge(kind, measure)


def question_judge(kind: TaskKind, examples: Examples, none_label: str, seed: int) -> Judge:
    """For an answer that stands in the passage: the best span."""
    references = [references_of(example) for example in examples]
    is_chinese = [reads_as_chinese(example.lang, example.text) for example in examples]

    def measure(outcomes: Outcomes) -> Figures:
        best = [max(_spans(o), key=lambda span: span.score, default=None) for o in outcomes]
        texts = [
            span.text if span else ("" if _answer(outcome) else None)
            for span, outcome in zip(best, outcomes, strict=True)
        ]
        rows = list(map(Replied, texts, references, is_chinese))
        sure = [
            (span.score, exact_and_f1(row)[0] == 1)
            for span, row in zip(best, rows, strict=True)
            if span
        ]
        figures = question_metrics(rows, seed=seed)
        return _joined(figures, Figures(figures.n, calibration(sure, seed=seed)))

    return Judge(kind, measure)


def ranking_judge(kind: TaskKind, examples: Examples, none_label: str, seed: int) -> Judge:
    """For candidates in order."""
    relevant = [relevant_of(example) for example in examples]

    def measure(outcomes: Outcomes) -> Figures:
        rows, sure = [], []
        for wanted, outcome in zip(relevant, outcomes, strict=True):
            answer = _answer(outcome)
            scores = {s.label: s.score for s in answer.scores} if answer else {}
            rows.append(rank_relevant(scores, wanted))
            if answer and answer.label:
                sure.append((answer.score, answer.label in wanted))
        figures = ranking_metrics(rows, seed=seed)
        return _joined(figures, Figures(figures.n, calibration(sure, seed=seed)))

    return Judge(kind, measure)


Maker = Callable[[TaskKind, Examples, str, int], Judge]
MAKERS: dict[TaskKind, Maker] = {
    **{kind: label_judge for kind, shape in SHAPES.items() if shape is Shape.CLASSIFY},
    TaskKind.RANKING: ranking_judge,
    TaskKind.NER: entity_judge,
    TaskKind.QA: question_judge,
}


def _answer(outcome: Outcome) -> Answer | None:
    """The answer to the first question; None where the row failed or was blocked."""
    if isinstance(outcome, InstructRecError) or not outcome.answers:
        return None
    answer = outcome.answers[0]
    return None if outcome.action == "block" and not answer.label else answer


def _spans(outcome: Outcome) -> tuple[Span, ...]:
    answer = _answer(outcome)
    return answer.spans if answer else ()


def _labels(answer: Answer) -> frozenset[str]:
    """The labels that an answer gives: all of an any-of question, else the best one."""
    return frozenset(answer.labels or ([answer.label] if answer.label else []))


def _joined(one: Figures, other: Figures) -> Figures:
    return Figures(one.n, {**one.values, **other.values}, {**one.facts, **other.facts})

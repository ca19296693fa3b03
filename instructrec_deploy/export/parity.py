"""The gate: does the bundle answer as its checkpoint does, alone as in company?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.task import SHAPES, Shape
from instructrec_deploy.export.compared import (
    N_ALONE,
    Answered,
    Compared,
    largest,
    must_answer,
    request_of,
)
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.report import judge
from instructrec_deploy.export.samples import Sample
from instructrec_deploy.export.span_parity import ask_spans, compare_spans
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.decide import Bools, Decider

Samples = Mapping[str, Sequence[Sample]]  # by task


@dataclass(frozen=True, slots=True)
class ParityLimits:
    """What an export may change at most. Differences are of probabilities."""

    max_difference: float  # of any one score, but in the texts left aside
    mean_difference: float  # of a text's most different score, over all texts
    min_agreement: float  # share of texts whose label is the checkpoint's
    max_batch_difference: float  # between a text alone and in a batch of mixed lengths
    max_span_batch_difference: float = 2e-2  # the same of a token's probability to border a span
    aside: float = 0.0  # share of texts that `max_difference` leaves out: those that differ most


# fp32: the same sums in another order. int8: on MiniLM and e5 the mean is about 0.01 and single
# texts between two labels move by up to 0.06 (docs/adr/0002-rowwise-int8.md). The more tasks and
# texts, the farther out lies the one that moves most, so that of 200 one is left aside.
LIMITS = {
    "fp32": ParityLimits(2e-4, 5e-5, 1.0, 2e-4, 2e-4),
    # Ten bits of a weight are kept, and an encoder's layers add up what that rounds.
    "fp16": ParityLimits(0.02, 0.003, 0.98, 2e-3, 2e-3, aside=0.005),
    # A token stands alone where a class has the mean of all: of thousands of tokens one will be
    # near the edge between two of 256 steps, and padding adds up in another order.
    "int8": ParityLimits(0.2, 0.03, 0.95, 1e-3, 2e-2, aside=0.005),
    # Activations stay floats, and a batch as invariant as in fp32.
    "int8-weights": ParityLimits(0.05, 0.005, 0.98, 2e-4, 2e-3, aside=0.005),
    "int4-weights": ParityLimits(0.4, 0.06, 0.9, 2e-4, 2e-3, aside=0.005),
}


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What the gate measured; probabilities, over all tasks with labels."""

    n_texts: int
    agreement: float
    max_difference: float
    upper_difference: float  # the largest, but for the share of texts that the limits leave aside
    mean_difference: float
    batch_difference: float
    span_batch_difference: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


def ask_bundle(bundle: Bundle, samples: Samples) -> dict[str, Answered]:
    """Ask each task about its samples, as a caller would.

    Raises:
        ParityFailed: a sample cannot be answered.
    """
    with Predictor(bundle, guard=False) as predictor:
        by_labels, by_spans = _by_shape(bundle, samples)
        found = _ask_labels(predictor, by_labels)
        for name, chosen in by_spans.items():
            found[name] = ask_spans(predictor, name, bundle.tasks.tasks[name], chosen)
    return found


def check_parity(
    bundle: Bundle, reference: Reference, samples: Samples, *, limits: ParityLimits
) -> tuple[ParityReport, dict[str, Answered]]:
    """Compare the bundle with its checkpoint.

    Args:
        bundle: as it will be served.
        reference: its checkpoint.
        samples: what is asked of each task; their own questions are left aside.
        limits: what may differ.

    Returns:
        The figures, and the bundle's answers.

    Raises:
        ParityFailed: a limit is passed; the message has all figures, the hint what to try.
    """
    by_labels, by_spans = _by_shape(bundle, samples)
    tie = limits.mean_difference
    with Predictor(bundle, guard=False) as predictor:
        compared = _compare_labels(predictor, reference, by_labels, tie=tie)
        for name, chosen in by_spans.items():
            spec = bundle.tasks.tasks[name]
            compared[name] = compare_spans(predictor, reference, name, spec, chosen, tie=tie)
    worst = np.concatenate([one.differences for one in compared.values()])
    report = ParityReport(
        n_texts=len(worst),
        agreement=float(np.concatenate([one.agreed for one in compared.values()]).mean()),
        max_difference=float(worst.max()),
        upper_difference=float(np.quantile(worst, 1.0 - limits.aside, method="higher")),
        mean_difference=float(worst.mean()),
        batch_difference=_most(compared, by_labels),
        span_batch_difference=_most(compared, by_spans),
    )
    _judge(report, limits)
    return report, {name: one.answered for name, one in compared.items()}


def _most(compared: Mapping[str, Compared], names: Iterable[str]) -> float:
    return max((compared[name].batch_difference for name in names), default=0.0)


def _by_shape(bundle: Bundle, samples: Samples) -> tuple[Samples, Samples]:
    """Samples of tasks answered with labels, and of those answered with spans."""
    specs = bundle.tasks.tasks
    spans = {name for name in samples if SHAPES[specs[name].kind] is Shape.EXTRACT}
    return (
        {name: chosen for name, chosen in samples.items() if name not in spans},
        {name: chosen for name, chosen in samples.items() if name in spans},
    )


def _compare_labels(
    predictor: Predictor, reference: Reference, samples: Samples, *, tie: float
) -> dict[str, Compared]:
    found = {}
    for task, answer in _ask_labels(predictor, samples).items():
        assert answer.scores is not None
        spec = predictor.bundle.tasks.tasks[task]
        decider = _decider(spec)
        truth, none = decider.probabilities(reference.logits(task, spec, answer.requests))
        if answer.is_plain:
            agreed = _agreement(answer.scores, truth, tie=tie)
        else:
            is_close = decider.margins(truth, none) <= tie
            agreed = (is_close | _same_labels(answer, decider, truth, none)).astype(np.float32)
        found[task] = Compared(
            answer,
            np.abs(answer.scores - truth).max(axis=1),
            agreed,
            max(
                largest(answer.scores[row], _alone(predictor, task, sample))
                for row, sample in enumerate(answer.samples[:N_ALONE])
            ),
        )
    return found


def _alone(predictor: Predictor, task: str, sample: Sample) -> Floats:
    """[C]: the scores of a text in a batch of its own."""
    scores = _ask_labels(predictor, {task: [sample]})[task].scores
    assert scores is not None
    return np.asarray(scores[0])


def _ask_labels(predictor: Predictor, samples: Samples) -> dict[str, Answered]:
    """Ask all tasks and lengths at once."""
    specs = predictor.bundle.tasks.tasks
    asked = [(task, sample) for task, chosen in samples.items() for sample in chosen]
    outcomes = predictor.predict_requests(
        [request_of(task, specs[task], sample) for task, sample in asked]
    )
    by_task: dict[str, list[tuple[Sample, Prediction]]] = {}
    for (task, sample), outcome in zip(asked, outcomes, strict=True):
        by_task.setdefault(task, []).append((sample, must_answer(task, outcome)))
    found = {}
    for task, pairs in by_task.items():
        spec = specs[task]
        rows = [{s.label: s.score for s in p.answers[0].scores} for _, p in pairs]
        scores = np.array([[row[label] for label in spec.labels] for row in rows], np.float32)
        none = np.array([row.get(spec.none_label, 0.0) for row in rows], np.float32)
        found[task] = Answered(
            tuple(sample for sample, _ in pairs),
            tuple(prediction for _, prediction in pairs),
            _decider(spec).margins(scores, none),
            scores,
            spec.deciding().is_plain,
        )
    return found


def _decider(spec: TaskSpec) -> Decider:
    return Decider(spec.deciding(), spec.labels, temperature=spec.temperature)


def _same_labels(answer: Answered, decider: Decider, truth: Floats, none: Floats) -> Bools:
    """[B]: whether the bundle chose the checkpoint's labels, be they one, several or none."""
    chosen = [{decider.labels[c] for c in columns} for columns in decider.choose(truth, none)]
    given = [set(prediction.labels) for prediction in answer.predictions]
    return np.array([one == other for one, other in zip(chosen, given, strict=True)])


def _agreement(scores: Floats, truth: Floats, *, tie: float) -> Floats:
    """1 where the bundle's label is the checkpoint's, or as good as tied with it there."""
    picked = np.take_along_axis(truth, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    agreed: Floats = (truth.max(axis=1) - picked <= tie).astype(np.float32)
    return agreed


def _judge(report: ParityReport, limits: ParityLimits) -> None:
    judge(
        f"the bundle does not answer as its checkpoint, {report.n_texts} texts",
        (
            ("label agreement", report.agreement, limits.min_agreement, True),
            (
                f"largest score difference, {limits.aside:.1%} of texts aside",
                report.upper_difference,
                limits.max_difference,
                False,
            ),
            ("mean score difference", report.mean_difference, limits.mean_difference, False),
            ("alone against batched", report.batch_difference, limits.max_batch_difference, False),
            (
                "spans alone against batched",
                report.span_batch_difference,
                limits.max_span_batch_difference,
                False,
            ),
        ),
    )

"""The gate: does the bundle answer as its checkpoint does, alone as in company?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import InstructRecError, ParityFailed
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.decide import Bools, Decider

N_ALONE = 8  # texts of each task that are also asked one by one


@dataclass(frozen=True, slots=True)
class ParityLimits:
    """What an export may change at most. Differences are of probabilities."""

    max_difference: float  # of any one score
    mean_difference: float  # of a text's most different score, over all texts
    min_agreement: float  # share of texts whose label is the checkpoint's
    max_batch_difference: float  # between a text alone and in a batch of mixed lengths


# fp32: the same sums in another order. int8: on MiniLM and e5 the mean is about 0.01 and single
# texts between two labels move by up to 0.06 (docs/adr/0002-rowwise-int8.md).
LIMITS = {
    "fp32": ParityLimits(2e-4, 5e-5, 1.0, 2e-4),
    "int8": ParityLimits(0.2, 0.03, 0.95, 1e-3),
}


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What the gate measured; probabilities, over all tasks with labels."""

    n_texts: int
    agreement: float
    max_difference: float
    mean_difference: float
    batch_difference: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Answered:
    """A bundle's answers about one task. `scores`: [B, C], in the order of the task's labels.

    `margins`: [B], how far a probability may move before an answer may be another one.
    """

    requests: tuple[Request, ...]
    predictions: tuple[Prediction, ...]
    scores: Floats
    margins: Floats
    is_plain: bool = True  # the best label, whatever it is; no threshold decides


def ask_bundle(bundle: Bundle, samples: Mapping[str, Sequence[Request]]) -> dict[str, Answered]:
    """Ask each task about its samples, as a caller would, all tasks and lengths at once.

    Raises:
        ParityFailed: a sample cannot be answered.
    """
    with Predictor(bundle, guard=False) as predictor:
        return _ask(predictor, samples)


def check_parity(
    bundle: Bundle,
    reference: Reference,
    samples: Mapping[str, Sequence[Request]],
    *,
    limits: ParityLimits,
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
    with Predictor(bundle, guard=False) as predictor:
        answered = _ask(predictor, samples)
        alone = [
            (answer.scores[row], _ask(predictor, {task: [request]})[task].scores[0])
            for task, answer in answered.items()
            for row, request in enumerate(answer.requests[:N_ALONE])
        ]
    differences, agreed = [], []
    for task, answer in answered.items():
        spec = bundle.tasks.tasks[task]
        decider = _decider(spec)
        truth, none = decider.probabilities(reference.logits(task, spec, answer.requests))
        differences.append(np.abs(answer.scores - truth).max(axis=1))
        if answer.is_plain:
            agreed.append(_agreement(answer.scores, truth, tie=limits.mean_difference))
        else:
            is_close = decider.margins(truth, none) <= limits.mean_difference
            is_same = is_close | _same_labels(answer, decider, truth, none)
            agreed.append(is_same.astype(np.float32))
    worst = np.concatenate(differences)
    report = ParityReport(
        n_texts=len(worst),
        agreement=float(np.concatenate(agreed).mean()),
        max_difference=float(worst.max()),
        mean_difference=float(worst.mean()),
        batch_difference=max(float(np.abs(a - b).max()) for a, b in alone),
    )
    _judge(report, limits)
    return report, answered


def _ask(predictor: Predictor, samples: Mapping[str, Sequence[Request]]) -> dict[str, Answered]:
    asked = [(task, request) for task, requests in samples.items() for request in requests]
    outcomes = predictor.predict_requests(
        [replace(request, questions=(Question(task=task),), top_k=0) for task, request in asked]
    )
    by_task: dict[str, list[tuple[Request, Prediction]]] = {}
    for (task, request), outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, InstructRecError):
            raise ParityFailed(
                f"task {task!r}: the bundle cannot answer a sample: {outcome.message}",
                hint=outcome.hint,
            )
        by_task.setdefault(task, []).append((request, outcome))
    found = {}
    for task, pairs in by_task.items():
        spec = predictor.bundle.tasks.tasks[task]
        labels = spec.labels
        rows = [{s.label: s.score for s in p.answers[0].scores} for _, p in pairs]
        scores = np.array([[row[label] for label in labels] for row in rows], np.float32)
        none = np.array([row.get(spec.none_label, 0.0) for row in rows], np.float32)
        found[task] = Answered(
            tuple(r for r, _ in pairs),
            tuple(p for _, p in pairs),
            scores,
            _decider(spec).margins(scores, none),
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
    checks = (
        ("label agreement", report.agreement, limits.min_agreement, True),
        ("largest score difference", report.max_difference, limits.max_difference, False),
        ("mean score difference", report.mean_difference, limits.mean_difference, False),
        ("alone against batched", report.batch_difference, limits.max_batch_difference, False),
    )
    lines, is_failed = [], False
    for name, value, limit, is_floor in checks:
        passed = value >= limit if is_floor else value <= limit
        is_failed |= not passed
        sign = "at least" if is_floor else "at most"
        lines.append(f"{name} {value:.4g} ({sign} {limit:g}{'' if passed else ', FAILED'})")
    if is_failed:
        raise ParityFailed(
            f"the bundle does not answer as its checkpoint, {report.n_texts} texts: "
            + "; ".join(lines),
            hint="try precision fp32; if that fails too, the model has a part this export "
            "does not know: please report it",
        )

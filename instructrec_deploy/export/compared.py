"""What a comparison of a bundle with its checkpoint hands on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from instructrec_deploy.core.errors import InstructRecError, ParityFailed
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.samples import Sample
from instructrec_deploy.runtime.pipeline import Outcome
from instructrec_deploy.tasks.base import Floats

N_ALONE = 8  # texts of each task that are also asked one by one


@dataclass(frozen=True, slots=True)
class Answered:
    """A bundle's answers about one task.

    `scores`: [B, C], in the order of the task's labels; None for spans. `margins`: [B], how far a
    probability may move before an answer may be another one.
    """

    samples: tuple[Sample, ...]
    predictions: tuple[Prediction, ...]
    margins: Floats
    scores: Floats | None = None
    is_plain: bool = True  # the best label, whatever it is; no threshold decides

    @property
    def requests(self) -> list[Request]:
        """What was answered, without its questions."""
        return [sample.request for sample in self.samples]


@dataclass(frozen=True, slots=True)
class Compared:
    """One task, bundle against checkpoint; a number for each text, and one for all."""

    answered: Answered
    differences: Floats  # [B], of the probability that differs most
    agreed: Floats  # [B], 1 where the answer is the checkpoint's, or as good as tied with it
    batch_difference: float  # of a probability, alone against in company


def request_of(name: str, spec: TaskSpec, sample: Sample) -> Request:
    """What a caller would ask."""
    question = Question(task=name)
    if spec.kind is TaskKind.QA:
        question = Question(instruction=spec.instruction(name, sample.question))
    return replace(sample.request, questions=(question,), top_k=0)


def must_answer(task: str, outcome: Outcome) -> Prediction:
    """The prediction.

    Raises:
        ParityFailed: there is none.
    """
    if isinstance(outcome, InstructRecError):
        raise ParityFailed(
            f"task {task!r}: the bundle cannot answer a sample: {outcome.message}",
            hint=outcome.hint,
        )
    return outcome


def largest(one: Floats, other: Floats) -> float:
    """The largest difference of two arrays; 0 where they are empty."""
    return float(np.abs(one - other).max()) if one.size else 0.0

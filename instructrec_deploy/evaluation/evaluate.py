"""Run labelled rows through a predictor and say how well it did.

The predictor comes as a function, so that a bundle in process, a server and a model in training
are measured by the same code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from instructrec_deploy.core.errors import InstructRecError, RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.figures import Figures
from instructrec_deploy.evaluation.judging import Outcome, make_judge

PredictExamples = Callable[[Sequence[Example]], Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found. Rows that got an error or were blocked count as wrong."""

    kind: TaskKind
    figures: Figures  # which ones there are depends on the kind
    n_candidates: int
    seconds: float
    outside: Counter[str] = field(default_factory=Counter)  # gold labels not among the candidates
    errors: Counter[str] = field(default_factory=Counter)  # error code -> rows
    n_blocked: int = 0
    n_truncated: int = 0
    n_tokens: int = 0
    model: str = ""
    model_version: str = ""

    @property
    def texts_per_s(self) -> float:
        """Rows answered each second, wall clock."""
        return self.figures.n / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {
            "kind": self.kind.value,
            **self.figures.to_dict(),
            "n_candidates": self.n_candidates,
            "n_gold_outside_candidates": self.outside.total(),
            "gold_outside_candidates": sorted(self.outside),
            "n_errors": self.errors.total(),
            "errors": dict(sorted(self.errors.items())),
            "n_blocked": self.n_blocked,
            "n_truncated": self.n_truncated,
            "mean_tokens": round(self.n_tokens / max(self.figures.n, 1), 2),
            "seconds": round(self.seconds, 4),
            "texts_per_s": round(self.texts_per_s, 2),
            "model": self.model,
            "model_version": self.model_version,
        }


def evaluate_rows(
    examples: Sequence[Example],
    predict: PredictExamples,
    *,
    candidates: Sequence[str],
    none_label: str = "",
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Evaluation:
    """Predict each row and compare with its target, as the kind of its task asks.

    Args:
        examples: rows of one kind of task (see `targets` for what their `target` is).
        predict: rows -> one prediction or error each, in order. Rankings need all scores.
        candidates: the labels the predictor chooses from; a gold label outside is counted apart
            (and its rows are wrong). Empty: not known, nothing is counted apart.
        none_label: rows with this label fit no candidate: an answer with it, or with no label at
            all, is right for them, and out-of-scope figures are added. "": there are none.

    Raises:
        RowInvalid: a row's target does not suit its task, the kind of task is not measured here,
            or the predictor gave another number of answers.
    """
    judge = make_judge(examples, none_label=none_label, seed=seed)
    begun = clock()
    outcomes = predict(examples)
    seconds = clock() - begun
    if len(outcomes) != len(examples):
        raise RowInvalid(f"{len(examples)} rows, but {len(outcomes)} answers")
    answers = [o for o in outcomes if isinstance(o, Prediction)]
    known = set(candidates)
    return Evaluation(
        kind=judge.kind,
        figures=judge.measure(outcomes),
        n_candidates=len(known),
        seconds=seconds,
        outside=Counter(label for label in judge.gold_labels if known and label not in known),
        errors=Counter(o.code for o in outcomes if isinstance(o, InstructRecError)),
        n_blocked=sum(a.action == "block" for a in answers),
        n_truncated=sum(a.truncated for a in answers),
        n_tokens=sum(a.n_tokens for a in answers),
        model=answers[0].model if answers else "",
        model_version=answers[0].model_version if answers else "",
    )

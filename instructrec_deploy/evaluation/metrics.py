"""Accuracy and macro F1 with seeded bootstrap intervals.

Shapes: N rows, K classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

N_RESAMPLES = 1_000  # the 2.5 % quantile then rests on 25 resamples
ABSTAINED = ""  # a blocked or failed row: wrong, but no class of its own


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % bootstrap interval (percentile method over rows)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """How well single labels were predicted; fractions of 1."""

    n: int
    accuracy: Interval
    macro_f1: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain data: values beside their intervals."""
        return {
            "n": self.n,
            "accuracy": round(self.accuracy.value, 6),
            "accuracy_interval": [round(self.accuracy.low, 6), round(self.accuracy.high, 6)],
            "macro_f1": round(self.macro_f1.value, 6),
            "macro_f1_interval": [round(self.macro_f1.low, 6), round(self.macro_f1.high, 6)],
        }


def class_metrics(
    gold: Sequence[str],
    predicted: Sequence[str],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> ClassMetrics:
    """Accuracy and macro F1 of predicted labels against the right ones.

    Macro F1 is the plain mean over every label that stands in `gold` or in `predicted` (as
    scikit-learn counts it). An empty prediction (`""`: blocked, failed) is wrong, counts as a miss
    of its gold label and forms no class.

    Accuracy is resampled over all rows; macro F1 within each gold label, so that every resample
    has every label (one that lost its rare labels would have another mean).

    Raises:
        ValueError: no rows, or lists of different lengths.
    """
    if not gold or len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} right labels against {len(predicted)} predicted ones")
    names = sorted({*gold, *predicted} - {ABSTAINED})
    index = {name: i for i, name in enumerate(names)}
    right = np.array([index[g] for g in gold], dtype=np.int64)
    guess = np.array([index.get(p, len(names)) for p in predicted], dtype=np.int64)
    n_classes, n = len(names), len(gold)
    order = np.argsort(right, kind="stable")  # rows of one label stand together
    n_gold = np.bincount(right, minlength=n_classes)
    first, size = (np.cumsum(n_gold) - n_gold)[right[order]], n_gold[right[order]]
    hit = right == guess
    rng = np.random.default_rng(seed)
    accuracies, f1s = np.empty(n_resamples), np.empty(n_resamples)
    for r in range(n_resamples):
        accuracies[r] = hit[rng.integers(0, n, n)].mean()
        rows = order[first + (rng.random(n) * size).astype(np.int64)]
        f1s[r] = _macro_f1(right[rows], guess[rows], n_classes)
    accuracy, f1 = float(hit.mean()), _macro_f1(right, guess, n_classes)
    return ClassMetrics(n, _interval(accuracy, accuracies), _interval(f1, f1s))


def accuracy_of(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """The share of rows predicted right, without an interval; 0 for no rows."""
    return sum(g == p for g, p in zip(gold, predicted, strict=True)) / max(len(gold), 1)


def _macro_f1(right: Ints, guess: Ints, n_classes: int) -> float:
    """[N], [N] class numbers -> mean F1 over all K classes; K itself stands for no prediction."""
    true_positives = np.bincount(right[right == guess], minlength=n_classes)
    n_gold = np.bincount(right, minlength=n_classes)
    n_guessed = np.bincount(guess, minlength=n_classes + 1)[:n_classes]
    # 2tp / (2tp + fp + fn); a label that is only ever predicted has 0, in a resample even 0 of 0
    f1 = 2.0 * true_positives / np.maximum(n_gold + n_guessed, 1)
    return float(f1.mean())


def _interval(value: float, samples: Floats) -> Interval:
    if samples.size == 0:
        return Interval(value, value, value)
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(value, float(low), float(high))

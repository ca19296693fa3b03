"""Metrics of predicted labels: one of many, any of many, none of them, and how sure.

Shapes: N rows, K classes, B bins, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec_deploy.evaluation.figures import (
    N_RESAMPLES,
    Figures,
    Floats,
    Interval,
    interval_of,
    mean_intervals,
    ratio,
    resampled_sums,
)

Ints = npt.NDArray[np.int64]
SmallFloats = npt.NDArray[np.float32]

ABSTAINED = ""  # a blocked or failed row: wrong, but no class of its own
N_BINS = 15  # of the calibration error, as in arXiv:1706.04599


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """How well single labels were predicted; fractions of 1."""

    n: int
    accuracy: Interval
    macro_f1: Interval
    ece: Interval | None = None  # both only where probabilities were given
    brier: Interval | None = None

    @property
    def figures(self) -> Figures:
        """The same by name."""
        values = {"accuracy": self.accuracy, "macro_f1": self.macro_f1}
        if self.ece and self.brier:
            values |= {"ece": self.ece, "brier": self.brier}
        return Figures(self.n, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: values beside their intervals."""
        return self.figures.to_dict()


def class_metrics(
    gold: Sequence[str],
    predicted: Sequence[str],
    *,
    scores: Sequence[float | None] | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> ClassMetrics:
    """Accuracy and macro F1 of predicted labels against the right ones.

    Macro F1 is the plain mean over every label that stands in `gold` or in `predicted` (as
    scikit-learn counts it). An empty prediction (`""`: blocked, failed) is wrong, counts as a miss
    of its gold label and forms no class.

    Accuracy is resampled over all rows; macro F1 within each gold label, so that every resample
    has every label (one that lost its rare labels would have another mean).

    Args:
        scores: the probability of each predicted label, None where there is none; such a row and
            one with an empty prediction take no part in the calibration.

    Raises:
        ValueError: no rows, lists of different lengths, or a score that is no probability.
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
    calibrated = calibration(
        [
            (score, bool(is_hit))
            for score, is_hit, label in zip(scores or (), hit, predicted, strict=bool(scores))
            if score is not None and label != ABSTAINED
        ],
        seed=seed,
        n_resamples=n_resamples,
    )
    return ClassMetrics(n, interval_of(accuracy, accuracies), interval_of(f1, f1s), **calibrated)


def accuracy_of(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """The share of rows predicted right, without an interval; 0 for no rows."""
    return sum(g == p for g, p in zip(gold, predicted, strict=True)) / max(len(gold), 1)


def macro_f1_of(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Macro F1 as `class_metrics` counts it, without an interval; 0 for no rows."""
    return class_metrics(gold, predicted, n_resamples=0).macro_f1.value if gold else 0.0


def calibration(
    sure: Sequence[tuple[float, bool]], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> dict[str, Interval]:
    """Whether probabilities mean what they say: `ece` and `brier`; both are best at 0.

    `ece` is the expected calibration error: in 15 bins of equal width, the distance between the
    mean probability and the share that was right, weighed by the bin's rows. A probability on a
    border belongs to the lower bin. `brier` is the mean square of probability minus right (1) or
    wrong (0). A resample's bins are noisier than those of its rows, so the resamples of `ece` are
    centred on the value.

    Args:
        sure: the probability of what was predicted, and whether it was right. None: no figures.

    Raises:
        ValueError: a number outside 0 to 1.

    Source: Guo et al., arXiv:1706.04599, equation 3; Brier (1950), for the predicted label alone.
    """
    if not sure:
        return {}
    probability, right = np.array(sure, dtype=np.float64).T
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a score is no probability: it lies outside 0 to 1")
    bins = np.clip(np.ceil(probability * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)
    gaps = np.zeros((len(sure), N_BINS))  # [N, B]: a bin's sum is its rows times its distance
    gaps[np.arange(len(sure)), bins] = probability - right
    samples = resampled_sums(gaps, seed=seed, n_resamples=n_resamples)
    ece = interval_of(
        float(np.abs(gaps.sum(axis=0)).sum() / len(sure)),
        np.abs(samples).sum(axis=1) / len(sure),
        is_centred=True,
    )
    square = ((probability - right) ** 2)[:, None]
    return {"ece": ece, **mean_intervals(["brier"], square, seed=seed, n_resamples=n_resamples)}


def label_set_metrics(
    gold: Sequence[AbstractSet[str]],
    predicted: Sequence[AbstractSet[str] | None],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figures:
    """`accuracy` (the whole set is right), `macro_f1` and `micro_f1` of sets of labels.

    A prediction of None (blocked, failed) is wrong and misses the row's labels. Both F1 are over
    every label that stands in `gold` or in `predicted`, as scikit-learn counts them; without any
    label they are 0. A resample leaves labels out that none of its rows has, so its macro F1 is
    centred on the value.

    Raises:
        ValueError: no rows, or lists of different lengths.
    """
    if not gold or len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} right sets against {len(predicted)} predicted ones")
    guesses = [labels or frozenset() for labels in predicted]
    names = sorted({label for labels in (*gold, *guesses) for label in labels})
    index = {name: i for i, name in enumerate(names)}
    right, guess = _indicators(gold, index), _indicators(guesses, index)
    # [N, 2K]: hits, and what stands in one of the two, twice where in both (2tp + fp + fn)
    columns = np.concatenate([right * guess, right + guess], axis=1)

    def f1s(sums: Floats) -> tuple[Floats, Floats]:
        hits, whole = np.split(sums, 2, axis=-1)
        each = ratio(2 * hits, whole)
        known = ~np.isnan(each)
        macro = ratio(np.where(known, each, 0).sum(axis=-1), known.sum(axis=-1))
        return macro, ratio(2 * hits.sum(axis=-1), whole.sum(axis=-1))

    macro, micro = f1s(columns.sum(axis=0, keepdims=True, dtype=np.float64))
    macros, micros = f1s(resampled_sums(columns, seed=seed, n_resamples=n_resamples))
    hit = np.array([float(g == p) for g, p in zip(gold, predicted, strict=True)])[:, None]
    values = mean_intervals(["accuracy"], hit, seed=seed, n_resamples=n_resamples)
    values["macro_f1"] = interval_of(macro[0], macros, is_centred=True)
    values["micro_f1"] = interval_of(micro[0], micros)
    return Figures(len(gold), values)


def scope_metrics(
    is_outside: Sequence[bool],
    is_abstained: Sequence[bool],
    is_right: Sequence[bool],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figures:
    """How well rows that fit no candidate are told from the others.

    `oos_recall`: of the rows that fit none, those answered with none. `oos_precision`: of the rows
    answered with none, those that fit none. `in_scope_accuracy`: of the rows that fit a candidate,
    those that are right. One that has no rows is left out.

    Source: Larson et al., arXiv:1909.02027 (in-scope accuracy and out-of-scope recall).
    """
    outside, abstained, right = (
        np.array(flags, dtype=np.float64) for flags in (is_outside, is_abstained, is_right)
    )
    caught = outside * abstained
    parts = {
        "oos_recall": (caught, outside),
        "oos_precision": (caught, abstained),
        "in_scope_accuracy": ((1 - outside) * right, 1 - outside),
    }
    values = {}
    for name, (part, whole) in parts.items():
        if whole.any():
            sums = resampled_sums(np.stack([part, whole], 1), seed=seed, n_resamples=n_resamples)
            values[name] = interval_of(part.sum() / whole.sum(), ratio(sums[:, 0], sums[:, 1]))
    facts = {"n_out_of_scope": int(outside.sum()), "n_abstained": int(abstained.sum())}
    return Figures(len(outside), values, facts)


def _indicators(sets: Sequence[AbstractSet[str]], index: dict[str, int]) -> SmallFloats:
    """[N, K], 1 where the row has the label; sums of 32-bit ones are exact up to 16 million."""
    found = np.zeros((len(sets), len(index)), dtype=np.float32)
    for row, labels in enumerate(sets):
        found[row, [index[label] for label in labels]] = 1
    return found


def _macro_f1(right: Ints, guess: Ints, n_classes: int) -> float:
    """[N], [N] class numbers -> mean F1 over all K classes; K itself stands for no prediction."""
    true_positives = np.bincount(right[right == guess], minlength=n_classes)
    n_gold = np.bincount(right, minlength=n_classes)
    n_guessed = np.bincount(guess, minlength=n_classes + 1)[:n_classes]
    # 2tp / (2tp + fp + fn); a label that is only ever predicted has 0, in a resample even 0 of 0
    f1 = 2.0 * true_positives / np.maximum(n_gold + n_guessed, 1)
    return float(f1.mean())

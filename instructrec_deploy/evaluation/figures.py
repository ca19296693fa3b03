"""Figures with 95 % bootstrap intervals: the form in which every metric comes.

Shapes: N rows, C columns, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

N_RESAMPLES = 1_000  # the 2.5 % quantile then rests on 25 resamples
RESAMPLES_AT_ONCE = 50  # of 10,000 rows: 4 MB of weights
DECIMALS = 6

# What a report shows, in this order, and what people call it. The names are keys of the JSON.
HEADLINES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "oos_recall": "out-of-scope recall",
    "in_scope_accuracy": "in-scope accuracy",
    "entity_f1": "entity F1",
    "exact_match": "exact match",
    "f1": "F1",
    "hr@10": "HR@10",
    "ndcg@10": "NDCG@10",
    "ece": "calibration error",
}


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % bootstrap interval (percentile method over rows)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on `n` rows: values with their intervals, and plain facts."""

    n: int
    values: Mapping[str, Interval]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: each value `x` beside its `x_interval`."""
        plain: dict[str, Any] = {"n": self.n}
        for name, interval in self.values.items():
            plain[name] = round(interval.value, DECIMALS)
            plain[f"{name}_interval"] = [
                round(interval.low, DECIMALS),
                round(interval.high, DECIMALS),
            ]
        return plain | dict(self.facts)


def resampled_sums(
    columns: npt.NDArray[np.floating[Any]], *, seed: int, n_resamples: int
) -> Floats:
    """Draw the rows again, with replacement, and sum each column; [N, C] -> [R, C].

    Most metrics are made of such sums, so that a thousand resamples cost one matrix product.
    """
    n = len(columns)
    rng = np.random.default_rng(seed)
    sums = np.empty((n_resamples, columns.shape[1]))
    for start in range(0, n_resamples, RESAMPLES_AT_ONCE):
        weights = [
            np.bincount(rng.integers(0, n, n), minlength=n)
            for _ in range(min(RESAMPLES_AT_ONCE, n_resamples - start))
        ]
        sums[start : start + len(weights)] = np.array(weights, dtype=columns.dtype) @ columns
    return sums


def mean_intervals(
    names: Sequence[str], columns: Floats, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> dict[str, Interval]:
    """Each column's mean over the rows; `columns` is [N, C] with N > 0, `names` has C."""
    means = columns.mean(axis=0)
    samples = resampled_sums(columns, seed=seed, n_resamples=n_resamples) / len(columns)
    return {name: interval_of(means[i], samples[:, i]) for i, name in enumerate(names)}


def ratio(part: Floats, whole: Floats) -> Floats:
    """Element by element; NaN for 0 of 0."""
    shares: Floats = np.full(part.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole != 0)
    return shares


def interval_of(value: float, samples: Floats, *, is_centred: bool = False) -> Interval:
    """The middle 95 % of the resamples [R]; those that have no value (NaN) are left out.

    Args:
        value: of all rows; NaN (0 of 0) counts as 0.
        is_centred: move the resamples so that their mean is the value. For a metric that is
            larger (or smaller) on a resample than on its rows only because a resample holds fewer
            different rows.
    """
    value = 0.0 if np.isnan(value) else float(value)
    samples = samples[~np.isnan(samples)]
    if samples.size == 0:
        return Interval(value, value, value)
    low, high = np.quantile(samples, [0.025, 0.975])
    shift = value - samples.mean() if is_centred else 0.0
    return Interval(value, max(float(low + shift), 0.0), min(float(high + shift), 1.0))

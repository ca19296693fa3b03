"""Two ways of answering the same rows: what the second gains, with a paired bootstrap interval.

Shapes: N rows, K classes, M different rows (right, before and after), R resamples.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from instructrec_deploy.evaluation.figures import N_RESAMPLES, Floats, Interval, resampled_sums

Ints = npt.NDArray[np.int64]
Metric = Literal["accuracy", "macro_f1"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def metric_of(right: Ints, guess: Ints, metric: Metric) -> float:
    """Accuracy or macro F1 of class numbers [N] against the right ones [N]."""
    if metric == "accuracy":
        return float((right == guess).mean())
    return float(_macro_f1(np.ones((1, len(right))), right, guess)[0])


def mean_interval(values: Floats, *, seed: int = 0, n_resamples: int = N_RESAMPLES) -> Interval:
    """The mean of one figure a row [N] and its interval; of differences, a paired interval.

    Raises:
        ValueError: no rows.
    """
    if not len(values):
        raise ValueError("no rows to compare")
    sums = resampled_sums(values[:, None], seed=seed, n_resamples=n_resamples)[:, 0]
    return _interval(float(values.mean()), sums / len(values))


def paired_gain(
    right: Ints,
    before: Ints,
    after: Ints,
    *,
    metric: Metric = "accuracy",
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Interval:
    """What `after` gains over `before` on the same rows: class numbers [N] each.

    Every resample draws the same rows for both, so that a row that is hard for both tells nothing.
    Macro F1 is resampled within each right label, as in `class_metrics`.

    Raises:
        ValueError: no rows.
    """
    if metric == "accuracy":
        hits = (right == after).astype(np.float64) - (right == before)
        return mean_interval(hits, seed=seed, n_resamples=n_resamples)
    if not len(right):
        raise ValueError("no rows to compare")
    rows = np.stack([right, before, after], axis=1)
    kinds, sizes = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    counts = np.concatenate(  # kinds are sorted by their right label
        [
            rng.multinomial(own.sum(), own / own.sum(), n_resamples)
            for own in (sizes[kinds[:, 0] == label] for label in np.unique(right))
        ],
        axis=1,
    ).astype(np.float64)
    old, new = (_macro_f1(counts, kinds[:, 0], kinds[:, column]) for column in (1, 2))
    value = metric_of(right, after, metric) - metric_of(right, before, metric)
    return _interval(value, new - old)


def _macro_f1(counts: Floats, right: Ints, guess: Ints) -> Floats:
    """[R, M] how often each row stands there -> [R] macro F1 over all classes in the rows."""
    classes = np.union1d(right, guess)
    gold, said = right[:, None] == classes, guess[:, None] == classes
    hits = counts @ (gold & said).astype(np.float64)  # [R, K]
    both = counts @ (gold.astype(np.float64) + said)
    return np.asarray((2 * hits / np.maximum(both, 1)).mean(axis=1), np.float64)


def _interval(value: float, samples: Floats) -> Interval:
    """A gain may be negative, so nothing is cut off as in `figures.interval_of`."""
    low, high = np.quantile(samples, [0.025, 0.975]) if samples.size else (value, value)
    return Interval(value, float(low), float(high))

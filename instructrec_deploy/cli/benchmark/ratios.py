"""Ratios of throughput from paired rounds, with bootstrap intervals.

Shapes: R rounds, C cells, S resamples. A phase has rounds of its own: that of a thread count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from instructrec_deploy.evaluation.figures import Floats, Interval

N_RESAMPLES = 2_000


def throughput_ratio(
    baseline: Sequence[Floats],
    own: Sequence[Floats],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Interval:
    """How many times the baseline's throughput: the geometric mean over cells of paired medians.

    Of a cell each round gives one ratio, both times taken within seconds; the cell's ratio is the
    median of the rounds. Rounds are drawn again with replacement, all cells of a round together,
    since what disturbs a machine disturbs neighbouring cells.

    Args:
        baseline, own: for each phase [R, C] seconds of a pass, of the same rounds and cells.
        seed: of the resampling.
        n_resamples: how many.

    Returns:
        The ratio and its 95 % interval (percentile method).

    Raises:
        ValueError: nothing was measured, or the shapes differ.
    """
    logs = [
        np.log(np.asarray(b, float)) - np.log(np.asarray(o, float))
        for b, o in zip(baseline, own, strict=True)
    ]
    if not logs or not all(log.size for log in logs):
        raise ValueError("no cell was measured")
    value = float(np.mean(np.concatenate([np.median(log, axis=0) for log in logs])))
    rng = np.random.default_rng(seed)
    parts = []  # [S, C] each
    for log in logs:
        rounds = rng.integers(0, len(log), (n_resamples, len(log)))
        parts.append(np.median(log[rounds], axis=1))
    low, high = np.quantile(np.concatenate(parts, axis=1).mean(axis=1), [0.025, 0.975])
    return Interval(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)))


def ratio_facts(interval: Interval) -> dict[str, Any]:
    """Plain data: the ratio and its interval."""
    return {
        "ratio": round(interval.value, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
    }

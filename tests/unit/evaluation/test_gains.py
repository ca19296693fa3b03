"""Gains on the same rows, with intervals."""

from __future__ import annotations

import numpy as np
import pytest

from instructrec_deploy.evaluation.gains import METRICS, mean_interval, metric_of, paired_gain
from instructrec_deploy.evaluation.metrics import class_metrics

RIGHT = np.arange(60) % 3
WORSE = np.where(np.arange(60) % 4 == 0, (RIGHT + 1) % 3, RIGHT)  # 15 of 60 wrong
BETTER = np.where(np.arange(60) % 12 == 0, (RIGHT + 1) % 3, RIGHT)  # 5 of 60 wrong


@pytest.mark.parametrize("metric", METRICS)
def test_equal_answers_gain_nothing_at_all(metric: str) -> None:
    gain = paired_gain(RIGHT, WORSE, WORSE, metric=metric)  # type: ignore[arg-type]
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_the_gain_in_accuracy_is_the_difference_of_the_shares() -> None:
    gain = paired_gain(RIGHT, WORSE, BETTER)
    assert gain.value == pytest.approx(10 / 60)
    assert 0 < gain.low < gain.value < gain.high


def test_rows_are_paired_so_that_shared_errors_do_not_widen_the_interval() -> None:
    gain = paired_gain(RIGHT, WORSE, BETTER)
    alone = class_metrics([str(r) for r in RIGHT], [str(g) for g in WORSE]).accuracy
    other = class_metrics([str(r) for r in RIGHT], [str(g) for g in BETTER]).accuracy
    assert gain.high - gain.low < (alone.high - alone.low) + (other.high - other.low)


def test_the_gain_in_macro_f1_is_that_of_the_metrics() -> None:
    def f1(guess: np.ndarray) -> float:
        return class_metrics([str(r) for r in RIGHT], [str(g) for g in guess]).macro_f1.value

    assert metric_of(RIGHT, WORSE, "macro_f1") == pytest.approx(f1(WORSE))
    gain = paired_gain(RIGHT, WORSE, BETTER, metric="macro_f1", n_resamples=200)
    assert gain.value == pytest.approx(f1(BETTER) - f1(WORSE))
    assert 0 < gain.low < gain.value < gain.high


def test_the_interval_of_macro_f1_is_that_of_drawing_rows_within_each_label() -> None:
    """Against the plain way: draw the rows of each label again, measure both, subtract."""
    rng = np.random.default_rng(1)
    gains = []
    for _ in range(2_000):
        drawn = [rng.choice(np.flatnonzero(label == RIGHT), 20) for label in range(3)]
        rows = np.concatenate(drawn)
        gains.append(
            metric_of(RIGHT[rows], BETTER[rows], "macro_f1")
            - metric_of(RIGHT[rows], WORSE[rows], "macro_f1")
        )
    low, high = np.quantile(gains, [0.025, 0.975])
    gain = paired_gain(RIGHT, WORSE, BETTER, metric="macro_f1", n_resamples=2_000)
    # 0.015: two such intervals from other draws differ by less in 99 of 100 trials
    assert (gain.low, gain.high) == pytest.approx((low, high), abs=0.015)


def test_a_loss_is_the_gain_turned_round() -> None:
    gain, loss = paired_gain(RIGHT, WORSE, BETTER), paired_gain(RIGHT, BETTER, WORSE)
    assert (loss.value, loss.low, loss.high) == pytest.approx((-gain.value, -gain.high, -gain.low))


def test_no_rows_are_refused() -> None:
    nothing = np.empty(0, np.int64)
    with pytest.raises(ValueError, match="no rows"):
        mean_interval(np.empty(0))
    with pytest.raises(ValueError, match="no rows"):
        paired_gain(nothing, nothing, nothing, metric="macro_f1")

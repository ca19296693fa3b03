"""Intervals: what is resampled, and how."""

from __future__ import annotations

import numpy as np
import pytest

from instructrec_deploy.evaluation.figures import (
    Figures,
    Interval,
    interval_of,
    mean_intervals,
    resampled_sums,
)


def test_a_resample_draws_as_many_whole_rows_as_there_are() -> None:
    columns = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    sums = resampled_sums(columns, seed=1, n_resamples=120)
    assert sums.shape == (120, 2)
    assert np.array_equal(sums[:, 1], 10 * sums[:, 0])  # rows stay together
    assert set(sums[:, 0]) <= set(range(3, 10))
    assert len(set(sums[:, 0])) > 3


def test_the_interval_of_a_mean_has_the_width_that_statistics_give() -> None:
    hits = (np.random.default_rng(0).random(2_000) < 0.8).astype(float)[:, None]
    found = mean_intervals(["x"], hits)["x"]
    wanted = 3.92 * (found.value * (1 - found.value) / 2_000) ** 0.5
    # 1,000 resamples know the 2.5 % and 97.5 % points within a few percent
    assert found.high - found.low == pytest.approx(wanted, rel=0.15)
    assert found.low < found.value < found.high


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    column = np.random.default_rng(0).random((50, 1))
    assert mean_intervals(["x"], column, seed=3) == mean_intervals(["x"], column, seed=3)
    assert mean_intervals(["x"], column, seed=3) != mean_intervals(["x"], column, seed=4)


def test_a_centred_interval_lies_around_its_value() -> None:
    samples = np.linspace(0.3, 0.5, 101)
    assert interval_of(0.2, samples).low > 0.2
    centred = interval_of(0.2, samples, is_centred=True)
    assert (centred.low, centred.high) == pytest.approx((0.105, 0.295))
    assert interval_of(0.01, samples, is_centred=True).low == 0.0


def test_without_resamples_an_interval_is_its_value() -> None:
    assert interval_of(0.4, np.empty(0)) == Interval(0.4, 0.4, 0.4)
    assert interval_of(float("nan"), np.array([np.nan])) == Interval(0.0, 0.0, 0.0)


def test_plain_data_has_each_value_beside_its_interval() -> None:
    figures = Figures(7, {"hr@10": Interval(1 / 3, 0.25, 0.5)}, {"n_blocked": 2})
    assert figures.to_dict() == {
        "n": 7,
        "hr@10": 0.333333,
        "hr@10_interval": [0.25, 0.5],
        "n_blocked": 2,
    }

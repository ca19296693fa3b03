"""Two models on the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.evaluation.paired import compare_paired


def hits(n_lost: int, n_gained: int, n_both: int, n_neither: int) -> tuple[list[bool], list[bool]]:
    old = [True] * n_lost + [False] * n_gained + [True] * n_both + [False] * n_neither
    new = [False] * n_lost + [True] * n_gained + [True] * n_both + [False] * n_neither
    return old, new


def test_counts_and_points_are_those_of_the_rows() -> None:
    found = compare_paired(*hits(6, 2, 90, 2))
    assert (found.n, found.n_lost, found.n_gained) == (100, 6, 2)
    assert (found.old_accuracy, found.new_accuracy) == (0.96, 0.92)
    assert found.loss.value == pytest.approx(4.0)
    # Normal approximation: 1.96 * sqrt(8 - 0.16) = 5.5 points; a count is a whole point here.
    assert found.loss.low == pytest.approx(-1.5, abs=1.0)
    assert found.loss.high == pytest.approx(9.5, abs=1.0)


def test_drawing_counts_is_drawing_rows() -> None:
    old, new = (np.array(h) for h in hits(9, 4, 150, 37))
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(old), (10_000, len(old)))
    losses = 100 * (old[rows].mean(1) - new[rows].mean(1))
    found = compare_paired(old.tolist(), new.tolist())
    assert found.certainty == pytest.approx((losses > 0).mean(), abs=0.02)  # 4 standard errors
    low, high = np.quantile(losses, [0.025, 0.975])
    assert (found.loss.low, found.loss.high) == pytest.approx((low, high), abs=0.5)  # a row


def test_equal_answers_lose_nothing_surely() -> None:
    found = compare_paired(*hits(0, 0, 5, 5))
    assert (found.loss.value, found.loss.low, found.loss.high, found.certainty) == (0, 0, 0, 0)


@given(*[st.integers(0, 40)] * 3, st.integers(1, 40))
def test_losses_and_gains_are_mirrored(lost: int, gained: int, both: int, neither: int) -> None:
    old, new = hits(lost, gained, both, neither)
    there, back = compare_paired(old, new), compare_paired(new, old)
    assert there.loss.value == -back.loss.value
    assert there.loss.low <= there.loss.value <= there.loss.high
    assert there.certainty + back.certainty <= 1.05  # two draws


def test_rows_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="rows"):
        compare_paired([True], [])
    with pytest.raises(ValueError, match="rows"):
        compare_paired([], [])

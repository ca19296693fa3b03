"""The rule of promotion: a loss must be larger than allowed, and sure enough."""

from __future__ import annotations

import pytest

from instructrec_deploy.evaluation.paired import Paired, compare_paired
from instructrec_training.promotion import Promotion


def paired(n_lost: int, n_gained: int, n: int) -> Paired:
    old = [True] * n_lost + [False] * n_gained + [True] * (n - n_lost - n_gained)
    new = [False] * n_lost + [True] * (n - n_lost)
    return compare_paired(old, new)


def promotion(max_loss: float = 0.5, **tests: Paired) -> Promotion:
    return Promotion(tests, {}, dict.fromkeys(tests, "test"), max_loss)


@pytest.mark.parametrize(
    ("n_lost", "n_gained", "n", "verdict"),
    [
        (0, 0, 6, "kept"),
        (5, 40, 3_000, "kept"),
        (40, 30, 3_000, "kept"),  # 0.33 points
        (1, 0, 6, "unclear"),  # 16.7 points, but one row
        (5, 4, 100, "unclear"),
        (2, 0, 6, "lost"),
        (3, 0, 1_000, "kept"),
        (7, 3, 84, "lost"),
        (5, 1, 100, "lost"),
        (60, 30, 3_000, "lost"),  # 1 point of many rows
    ],
)
def test_a_test_is_lost_where_the_loss_is_large_and_sure(
    n_lost: int, n_gained: int, n: int, verdict: str
) -> None:
    test = paired(n_lost, n_gained, n)
    assert promotion().verdict(test) == verdict


def test_one_lost_test_of_many_refuses_and_is_named() -> None:
    found = promotion(english=paired(0, 3, 500), 意图=paired(30, 2, 500))
    assert found.lost == ["意图"]
    content = found.to_dict()
    assert content["promoted"] is False
    assert "意图" in content["reason"]
    assert "english" not in content["reason"]
    assert "0.5 points" in content["reason"]


def test_an_unclear_loss_is_named_and_does_not_refuse() -> None:
    content = promotion(tiny=paired(1, 0, 6)).to_dict()
    assert content["promoted"] is True
    assert "unclear" in content["reason"]
    assert "16.67 points" in content["reason"]


def test_a_larger_allowance_lets_the_same_loss_pass() -> None:
    test = paired(60, 30, 3_000)
    assert promotion(0.5, a=test).lost == ["a"]
    assert promotion(1.5, a=test).lost == []

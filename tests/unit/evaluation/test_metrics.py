"""Accuracy, macro F1, their intervals."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.evaluation.metrics import class_metrics

LABELS = st.sampled_from(["退款", "物流", "card", "pin"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40)


@given(PAIRS)
def test_values_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = zip(*pairs, strict=True)
    found = class_metrics(gold, predicted, n_resamples=1)
    wanted = sklearn_metrics.f1_score(gold, predicted, average="macro", zero_division=0)
    assert found.macro_f1.value == pytest.approx(wanted, abs=1e-12)  # the same fractions
    wanted = sklearn_metrics.accuracy_score(gold, predicted)
    assert found.accuracy.value == pytest.approx(wanted, abs=1e-12)


def test_an_abstention_is_wrong_but_no_class_of_its_own() -> None:
    found = class_metrics(["a", "a", "b"], ["a", "", "b"])
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.macro_f1.value == pytest.approx((2 / 3 + 1.0) / 2)


def test_the_interval_holds_the_value_and_narrows_with_more_rows() -> None:
    rng = random.Random(1)
    gold = [rng.choice("abcd") for _ in range(2_000)]
    predicted = [g if rng.random() < 0.8 else "a" for g in gold]
    small, large = class_metrics(gold[:100], predicted[:100]), class_metrics(gold, predicted)
    for metrics in (small, large):
        for interval in (metrics.accuracy, metrics.macro_f1):
            assert interval.low <= interval.value <= interval.high
    width = large.accuracy.high - large.accuracy.low
    # 1.96 * 2 * sqrt(p (1 - p) / n) of a binomial share; 25 %: the bootstrap's own noise
    p = large.accuracy.value
    assert width == pytest.approx(3.92 * (p * (1 - p) / 2_000) ** 0.5, rel=0.25)
    assert width < small.accuracy.high - small.accuracy.low


def test_rare_classes_do_not_push_the_interval_off_the_value() -> None:
    gold = ["common"] * 80 + [f"rare {i}" for i in range(20)]
    predicted = [*gold[:70], *["never gold"] * 28, *gold[98:]]
    interval = class_metrics(gold, predicted).macro_f1
    assert interval.low <= interval.value <= interval.high


def test_the_same_seed_gives_the_same_interval() -> None:
    gold, predicted = ["a", "b", "c"] * 17, ["a", "b", "a", "c"] * 12 + ["a"] * 3
    assert class_metrics(gold, predicted, seed=3) == class_metrics(gold, predicted, seed=3)
    assert class_metrics(gold, predicted, seed=3) != class_metrics(gold, predicted, seed=4)


def test_no_rows_or_uneven_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="0 right labels"):
        class_metrics([], [])
    with pytest.raises(ValueError, match="2 predicted"):
        class_metrics(["a"], ["a", "b"])

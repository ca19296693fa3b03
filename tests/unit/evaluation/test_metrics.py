"""Labels: accuracy, F1, out of scope, calibration."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec_deploy.evaluation.metrics import (
    calibration,
    class_metrics,
    label_set_metrics,
    scope_metrics,
)

ALL = ["退款", "物流", "card", "pin"]
LABELS = st.sampled_from(ALL)
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


def test_calibration_error_is_the_gap_in_each_bin_weighed_by_its_rows() -> None:
    # 0.95 and 0.97 lie in the bin up to 1, one right of two: gap 0.46; 0.50 lies alone: gap 0.50
    found = calibration([(0.95, True), (0.97, False), (0.5, False)], n_resamples=10)
    assert found["ece"].value == pytest.approx((2 * 0.46 + 0.5) / 3)
    assert found["brier"].value == pytest.approx((0.05**2 + 0.97**2 + 0.5**2) / 3)


def test_a_probability_on_a_border_belongs_to_the_lower_bin() -> None:
    # 0.2 is the border of bins 3 and 4: with 0.19 (right) in one bin the gaps cancel in part
    together = calibration([(0.2, False), (0.19, True)], n_resamples=0)["ece"].value
    assert together == pytest.approx(abs(0.2 + 0.19 - 1) / 2)
    apart = calibration([(0.2, False), (0.21, True)], n_resamples=0)["ece"].value
    assert apart == pytest.approx((0.2 + 0.79) / 2)


SURE = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30)


@given(SURE, st.randoms(use_true_random=False))
def test_calibration_lies_in_0_to_1_whatever_the_order(
    sure: list[tuple[float, bool]], rng: random.Random
) -> None:
    found = calibration(sure, n_resamples=20)
    for interval in found.values():
        assert 0 <= interval.low <= interval.high <= 1
        assert 0 <= interval.value <= 1
    shuffled = calibration(rng.sample(sure, len(sure)), n_resamples=0)
    for name in ("ece", "brier"):
        # another order of the same sum
        assert shuffled[name].value == pytest.approx(found[name].value, abs=1e-12)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not() -> None:
    assert calibration([(1.0, True)] * 5 + [(0.0, False)])["ece"].value == 0
    assert calibration([(1.0, False)] * 5)["ece"].value == 1
    assert calibration([]) == {}


def test_the_calibration_of_an_honest_model_is_near_0_with_an_interval_around_it() -> None:
    rng = random.Random(2)
    sure = [(p, rng.random() < p) for p in (rng.random() for _ in range(4_000))]
    ece = calibration(sure)["ece"]
    assert ece.low <= ece.value <= ece.high
    assert ece.value < 0.03  # 15 bins of 267 rows: a mean gap of about 0.02 by chance


def test_a_score_that_is_no_probability_is_refused() -> None:
    for score in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="no probability"):
            calibration([(score, True)])


def test_class_metrics_are_calibrated_on_the_rows_that_have_a_probability() -> None:
    labels = (["a", "a", "b", "b"], ["a", "b", "b", ""])
    found = class_metrics(*labels, scores=[0.9, None, 0.8, 0.7])
    assert found.brier is not None
    assert found.brier.value == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert {"ece", "ece_interval", "brier"} <= found.to_dict().keys()
    assert class_metrics(*labels).to_dict().keys().isdisjoint({"ece", "brier"})


LABEL_SETS = st.frozensets(LABELS)
SET_PAIRS = st.lists(st.tuples(LABEL_SETS, LABEL_SETS), min_size=1, max_size=20)


@settings(max_examples=40)  # scikit-learn checks its input slowly
@given(SET_PAIRS)
def test_label_sets_are_measured_as_scikit_learn_does(
    pairs: list[tuple[frozenset[str], frozenset[str]]],
) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = zip(*pairs, strict=True)
    names = sorted(frozenset().union(*gold, *predicted))
    found = label_set_metrics(gold, predicted, n_resamples=5).values
    if not names:
        assert (found["micro_f1"].value, found["macro_f1"].value) == (0, 0)
        assert found["accuracy"].value == 1
        return
    right, guess = ([[int(n in s) for n in ALL] for s in sets] for sets in (gold, predicted))
    known = [ALL.index(name) for name in names]
    for average in ("micro", "macro"):
        wanted = sklearn_metrics.f1_score(
            right, guess, labels=known, average=average, zero_division=0
        )
        assert found[f"{average}_f1"].value == pytest.approx(wanted, abs=1e-12)
    wanted = sum(g == p for g, p in pairs) / len(pairs)
    assert found["accuracy"].value == pytest.approx(wanted, abs=1e-12)


def test_a_failed_row_of_several_labels_is_wrong_even_where_none_fits() -> None:
    gold = [frozenset({"退款", "card"}), frozenset()]
    found = label_set_metrics(gold, [None, None]).values
    assert found["accuracy"].value == found["micro_f1"].value == 0
    assert label_set_metrics(gold, [None, frozenset()]).values["accuracy"].value == 0.5


def test_the_macro_interval_of_rare_labels_holds_the_value() -> None:
    gold = [frozenset({"common"})] * 60 + [frozenset({f"rare {i}"}) for i in range(20)]
    predicted = [*gold[:70], *[frozenset()] * 10]
    macro = label_set_metrics(gold, predicted).values["macro_f1"]
    assert macro.low < macro.value < macro.high


def test_out_of_scope_figures_by_hand() -> None:
    found = scope_metrics(
        is_outside=[True, True, True, False, False],
        is_abstained=[True, False, True, True, False],
        is_right=[True, False, True, False, True],
    )
    assert found.values["oos_recall"].value == pytest.approx(2 / 3)
    assert found.values["oos_precision"].value == pytest.approx(2 / 3)
    assert found.values["in_scope_accuracy"].value == 0.5
    assert found.facts == {"n_out_of_scope": 3, "n_abstained": 3}
    assert "oos_recall" not in scope_metrics([False], [False], [True]).values

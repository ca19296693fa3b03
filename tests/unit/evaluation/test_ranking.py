"""HR, NDCG and MRR."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec_deploy.evaluation.ranking import Ranked, rank_relevant, ranking_metrics

SCORES = st.dictionaries(
    st.sampled_from("甲乙丙丁abcdefgh"), st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]), min_size=1
)


def test_one_relevant_item_by_hand() -> None:
    rows = [Ranked((1,), 1), Ranked((3,), 1), Ranked((11,), 1), Ranked((), 1)]
    found = ranking_metrics(rows).values
    assert found["hr@1"].value == 1 / 4
    assert found["hr@5"].value == found["hr@10"].value == 2 / 4
    assert found["ndcg@10"].value == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert found["mrr"].value == pytest.approx((1 + 1 / 3 + 1 / 11) / 4)


def test_several_relevant_items_by_hand() -> None:
    found = ranking_metrics([Ranked((2, 3), 3)], cutoffs=(2, 5)).values
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert found["ndcg@2"].value == pytest.approx(second / (1 + second))
    assert found["ndcg@5"].value == pytest.approx((second + third) / (1 + second + third))
    assert found["hr@2"].value == 1


@settings(max_examples=40)  # scikit-learn checks its input slowly
@given(SCORES, st.data())
def test_ndcg_is_that_of_scikit_learn_where_no_scores_tie(
    scores: dict[str, float], data: st.DataObject
) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    items = sorted(scores)
    if len(items) < 2:  # scikit-learn wants two
        return
    distinct = {item: i / 10 for i, item in enumerate(data.draw(st.permutations(items)))}
    relevant = frozenset(data.draw(st.sets(st.sampled_from(items), min_size=1)))
    found = ranking_metrics([rank_relevant(distinct, relevant)], n_resamples=0).values
    right = np.array([[float(item in relevant) for item in items]])
    guess = np.array([[distinct[item] for item in items]])
    for k in (1, 5, 10):
        wanted = sklearn_metrics.ndcg_score(right, guess, k=k)
        assert found[f"ndcg@{k}"].value == pytest.approx(wanted, abs=1e-12)


def test_ties_count_against_the_relevant_item() -> None:
    scores = {"甲": 0.5, "乙": 0.5, "丙": 0.5, "丁": 0.1}
    assert rank_relevant(scores, frozenset({"甲"})) == Ranked((3,), 1)
    assert rank_relevant(scores, frozenset({"甲", "乙"})) == Ranked((2, 3), 2)
    assert rank_relevant(scores, frozenset({"丁"})) == Ranked((4,), 1)


def test_a_score_that_is_not_a_number_ranks_last() -> None:
    assert rank_relevant({"a": math.nan, "b": 0.1, "c": 0.0}, frozenset("a")) == Ranked((3,), 1)
    assert rank_relevant({"a": 0.1, "b": math.nan}, frozenset("a")) == Ranked((2,), 1)


def test_an_item_without_a_score_is_not_found() -> None:
    ranked = rank_relevant({"a": 0.9}, frozenset({"a", "z"}))
    assert ranked == Ranked((1,), 2)
    assert ranking_metrics([ranked]).facts["n_relevant_unranked"] == 1
    assert ranking_metrics([rank_relevant({}, frozenset("z"))]).values["mrr"].value == 0


@given(SCORES, st.data())
def test_figures_lie_in_0_to_1_and_do_not_depend_on_the_order_of_candidates(
    scores: dict[str, float], data: st.DataObject
) -> None:
    relevant = frozenset(data.draw(st.sets(st.sampled_from(sorted(scores)), min_size=1)))
    ranked = rank_relevant(scores, relevant)
    mixed = dict(data.draw(st.permutations(list(scores.items()))))
    assert rank_relevant(mixed, relevant) == ranked
    assert len(set(ranked.ranks)) == len(relevant)
    for interval in ranking_metrics([ranked], n_resamples=3).values.values():
        assert 0 <= interval.value <= 1


@given(SCORES, st.data())
def test_relevant_items_above_all_others_score_1(
    scores: dict[str, float], data: st.DataObject
) -> None:
    relevant = frozenset(data.draw(st.sets(st.sampled_from(sorted(scores)), min_size=1)))
    best = {item: 1.0 if item in relevant else score for item, score in scores.items()}
    found = ranking_metrics([rank_relevant(best, relevant)], n_resamples=0).values
    assert {name: round(interval.value, 12) for name, interval in found.items()} == dict.fromkeys(
        found, 1.0
    )


def test_the_interval_holds_the_value() -> None:
    rng = random.Random(0)
    rows = [Ranked((rng.randint(1, 20),), 1) for _ in range(200)]
    for interval in ranking_metrics(rows).values.values():
        assert interval.low < interval.value < interval.high


def test_rows_without_a_relevant_item_are_refused() -> None:
    for rows in ([], [Ranked((), 0)]):
        with pytest.raises(ValueError, match="relevant item"):
            ranking_metrics(rows)

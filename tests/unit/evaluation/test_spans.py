"""Entity precision, recall and F1."""

from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.evaluation.spans import Entity, entity_metrics

TYPES = ("人名", "location", "e-mail")
N_TOKENS = 12


@st.composite
def entity_rows(draw: st.DrawFn) -> frozenset[Entity]:
    """Entities that do not overlap, as a tag sequence can hold them."""
    borders = draw(st.lists(st.integers(0, N_TOKENS), max_size=8, unique=True))
    pairs = zip(sorted(borders)[::2], sorted(borders)[1::2], strict=False)
    return frozenset((start, end, draw(st.sampled_from(TYPES))) for start, end in pairs)


def tags(entities: frozenset[Entity]) -> list[str]:
    """The same as BIO tags, one for each character."""
    row = ["O"] * N_TOKENS
    for start, end, name in entities:
        row[start:end] = [f"B-{name}"] + [f"I-{name}"] * (end - start - 1)
    return row


PAIRS = st.lists(st.tuples(entity_rows(), entity_rows()), min_size=1, max_size=8)


@given(PAIRS)
def test_values_are_those_of_seqeval(
    pairs: list[tuple[frozenset[Entity], frozenset[Entity]]],
) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    gold, predicted = zip(*pairs, strict=True)
    found = entity_metrics(gold, predicted, n_resamples=5)
    right, guess = [tags(row) for row in gold], [tags(row) for row in predicted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of types with 0 of 0
        for name in ("f1", "precision", "recall"):
            wanted = getattr(seqeval, f"{name}_score")(right, guess, zero_division=0)
            assert found.values[f"entity_{name}"].value == pytest.approx(wanted, abs=1e-12)
        if not any(gold) and not any(predicted):
            assert found.facts["per_type"] == {}
            return
        report = seqeval.classification_report(right, guess, output_dict=True, zero_division=0)
    per_type = {name: row for name, row in report.items() if not name.endswith(" avg")}
    assert found.facts["per_type"].keys() == per_type.keys()
    for name, row in per_type.items():
        mine = found.facts["per_type"][name]
        assert mine["n_gold"] == row["support"]
        for ours, theirs in (("f1", "f1-score"), ("precision", "precision"), ("recall", "recall")):
            assert mine[ours] == pytest.approx(row[theirs], abs=1e-6)  # ours has 6 decimals


@given(PAIRS, st.randoms(use_true_random=False))
def test_every_figure_lies_in_0_to_1_whatever_the_order(
    pairs: list[tuple[frozenset[Entity], frozenset[Entity]]], rng: random.Random
) -> None:
    found = entity_metrics(*zip(*pairs, strict=True), n_resamples=5).values
    for interval in found.values():
        assert 0 <= interval.low <= interval.high <= 1
        assert 0 <= interval.value <= 1
    shuffled = entity_metrics(*zip(*rng.sample(pairs, len(pairs)), strict=True), n_resamples=0)
    assert [v.value for v in shuffled.values.values()] == [v.value for v in found.values()]


@given(st.lists(entity_rows(), min_size=1).filter(any))
def test_what_is_right_scores_1(rows: list[frozenset[Entity]]) -> None:
    found = entity_metrics(rows, rows, n_resamples=5)
    assert all(v.value == v.low == v.high == 1 for v in found.values.values())
    assert all(row["f1"] == 1 for row in found.facts["per_type"].values())


def test_a_wrong_border_or_type_is_a_miss_and_a_false_alarm() -> None:
    text = "😀张伟住在北京"  # code points: the emoji is one
    gold = {(1, 3, "人名"), (5, 7, "地名")}
    assert [text[start:end] for start, end, _ in sorted(gold)] == ["张伟", "北京"]
    predicted = {(1, 3, "人名"), (4, 7, "地名"), (5, 7, "机构")}
    found = entity_metrics([gold], [predicted])
    assert found.values["entity_precision"].value == pytest.approx(1 / 3)
    assert found.values["entity_recall"].value == pytest.approx(1 / 2)
    assert found.values["entity_f1"].value == pytest.approx(2 / 5)
    assert found.facts["per_type"]["地名"] == {"f1": 0, "precision": 0, "recall": 0, "n_gold": 1}
    assert (found.facts["n_gold_entities"], found.facts["n_predicted_entities"]) == (2, 3)


def test_nested_entities_count_each() -> None:
    gold = {(0, 6, "机构"), (0, 2, "地名")}
    assert entity_metrics([gold], [{(0, 6, "机构")}]).values["entity_recall"].value == 0.5


def test_no_rows_or_uneven_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        entity_metrics([], [])
    with pytest.raises(ValueError, match="1 predicted"):
        entity_metrics([set(), set()], [set()])

"""Figures of a safety filter, by hand."""

from __future__ import annotations

import random

import pytest

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.evaluation.safety import (
    Checked,
    auc,
    content_figures,
    evaluate_safety,
    span_figures,
)

PUBLIC = ("EMAIL", "PHONE", "IP")


def pii(text: str, *values: tuple[str, int, int], **extra: object) -> Example:
    target = [{"type": kind, "start": start, "end": end} for kind, start, end in values]
    return Example(text, target, task="pii", extra=extra)


def test_values_count_by_overlap_and_each_finding_once() -> None:
    figures = span_figures(
        ["ab cd ef", "电话12345 x"],
        [[("EMAIL", 0, 5), ("EMAIL", 4, 8)], [("PHONE", 2, 7)]],
        [[("EMAIL", 3, 5)], [("PHONE", 2, 7), ("EMAIL", 8, 9)]],
    )
    values = {name: value.value for name, value in figures.values.items()}
    # the first finding overlaps two values and counts for one: hits 2, found 3, values 3
    assert values == pytest.approx(
        {"f1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "leaked": 2 / 3}
    )
    assert figures.facts["n_values"] == 3
    assert figures.facts["per_type"] == {
        "EMAIL": {"f1": 0.5, "precision": 0.5, "recall": 0.5, "n_gold": 2, "leaked": 1.0},
        "PHONE": {"f1": 1.0, "precision": 1.0, "recall": 1.0, "n_gold": 1, "leaked": 0.0},
    }


def test_a_value_covered_by_a_finding_of_another_type_is_wrong_but_does_not_leak() -> None:
    values = span_figures(["1.2.3.4 "], [[("IP", 0, 8)]], [[("PHONE", 0, 7)]]).values
    assert (values["recall"].value, values["precision"].value, values["leaked"].value) == (0, 0, 0)


def test_findings_of_types_that_are_not_measured_only_cover() -> None:
    figures = span_figures(["ab 12"], [[("IP", 3, 5)]], [[("EMAIL", 0, 5)]], types={"IP"})
    assert figures.facts["n_found"] == 0
    assert figures.values["leaked"].value == 0


def test_intervals_hold_the_value() -> None:
    texts = ["12"] * 40
    found = [[("IP", 0, 2)] if i % 4 else [] for i in range(40)]
    recall = span_figures(texts, [[("IP", 0, 2)]] * 40, found).values["recall"]
    assert recall.value == 0.75
    assert 0.5 < recall.low < 0.75 < recall.high < 0.95


def test_rows_say_what_is_measured_and_foreign_types_are_left_out() -> None:
    rows = [
        pii("a@b.example 9", ("e mail", 0, 11), ("age", 12, 13)),
        pii("nothing here", types=["e mail", "PHONE"]),
        pii("你好"),
    ]
    found = {"a@b.example 9": (("EMAIL", 0, 11), ("IP", 12, 13)), "你好": (("IP", 0, 2),)}
    result = evaluate_safety(
        rows,
        lambda text: Checked(found.get(text, ())),
        public_types=PUBLIC,
        renamed={"e mail": "EMAIL"},
    )
    assert result.content is None
    facts = result.to_dict()
    personal, hard = facts["personal_data"], facts["hard_negatives"]
    assert (personal["f1"], personal["n_values"], personal["left_out_types"]) == (1, 1, ["age"])
    assert (hard["n"], hard["hit"]) == (2, 0.5)


def test_labels_are_measured_by_flagged_and_blocked() -> None:
    # abuse: 2 of 3 flagged; benign: 1 of 2 flagged and blocked.
    told = [Checked(is_flagged=True), Checked(is_flagged=True), Checked()]
    told += [Checked(is_flagged=True, is_blocked=True), Checked()]
    figures = content_figures([True, True, True, False, False], told)
    values = {name: value.value for name, value in figures.values.items()}
    abuse, benign = 2 * 2 / (3 + 3), 2 * 1 / (2 + 2)
    assert values == pytest.approx(
        {
            "macro_f1": (abuse + benign) / 2,
            "abuse_found": 2 / 3,
            "benign_flagged": 0.5,
            "benign_blocked": 0.5,
        }
    )
    assert figures.facts == {"n_abuse": 3}


def test_auc_stands_where_every_row_has_a_score() -> None:
    told = [Checked(score=0.9), Checked(score=0.5), Checked(score=0.5), Checked(score=0.1)]
    # of 4 pairs 3 are in order and one is equal
    assert content_figures([True, True, False, False], told).values["auc"].value == 3.5 / 4
    assert "auc" not in content_figures([True, True, False, False], [*told[:3], Checked()]).values


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = random.Random(7)
    truth = [rng.random() < 0.4 for _ in range(60)]
    scores = [rng.randrange(8) / 8 for _ in truth]
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, is_abuse in zip(scores, truth, strict=True)
        if is_abuse
        for b, is_other in zip(scores, truth, strict=True)
        if not is_other
    ]
    found = auc(truth, scores)
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert found.low < found.value < found.high


@pytest.mark.parametrize(("labels", "word"), [((), "not said"), (("rude", "offensive"), "'rude'")])
def test_labels_need_a_word_for_abuse(labels: tuple[str, ...], word: str) -> None:
    rows = [Example("x", "offensive", task="safety"), Example("y", "not offensive", task="safety")]
    with pytest.raises(ConfigError, match=word) as caught:
        evaluate_safety(
            rows, lambda _: Checked(), public_types=PUBLIC, renamed={}, abuse_labels=labels
        )
    assert "'not offensive', 'offensive'" in str(caught.value.hint)


def test_rows_of_foreign_types_alone_and_unknown_names_are_refused() -> None:
    rows = [pii("9", ("age", 0, 1))]
    for renamed, word in (({}, "age"), ({"age": "AGE"}, "AGE")):
        with pytest.raises(ConfigError, match=word):
            evaluate_safety(rows, lambda _: Checked(), public_types=PUBLIC, renamed=renamed)

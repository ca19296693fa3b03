"""From answers of every shape to figures."""

from __future__ import annotations

from typing import Any

import pytest

from instructrec_deploy.core.errors import RowInvalid, TextEmpty
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.result import Answer, LabelScore, Prediction, Span, Verdict
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.judging import MAKERS, Outcome, is_single_label, make_judge

FAILED = TextEmpty("the text is empty")
BLOCKED = Prediction((Answer("", "", 0.0, ()),), verdicts=(Verdict("block"),))


def said(label: str, score: float = 0.9) -> Prediction:
    return Prediction((Answer("", label, score, ()),))


def found(*spans: Span) -> Prediction:
    return Prediction((Answer("", "", 0.0, (), spans=spans),))


def ranked(**scores: float) -> Prediction:
    best = sorted(scores.items(), key=lambda pair: -pair[1])
    return Prediction((Answer("", *best[0], tuple(LabelScore(*pair) for pair in best)),))


def judged(rows: list[Example], outcomes: list[Outcome], none_label: str = "") -> dict[str, Any]:
    return make_judge(rows, none_label=none_label).measure(outcomes).to_dict()


def test_every_kind_but_the_generating_ones_has_a_judge() -> None:
    assert MAKERS.keys() == {kind for kind in TaskKind if SHAPES[kind] is not Shape.GENERATE}


@pytest.mark.parametrize("task", ["classification", "safety", "relation", "my own task"])
def test_single_labels_are_measured_with_their_calibration(task: str) -> None:
    rows = [Example("t", label, task=task) for label in ("退款", "退款", "card", "card")]
    facts = judged(rows, [said("退款"), said("card", 0.6), said("card"), FAILED])
    assert facts["accuracy"] == 0.5
    assert facts["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)
    assert facts["brier"] == pytest.approx((0.1**2 + 0.6**2 + 0.1**2) / 3, abs=1e-6)
    assert {"accuracy_interval", "macro_f1_interval", "ece_interval"} <= facts.keys()
    assert "oos_recall" not in facts


def test_an_abstention_is_right_for_rows_that_fit_no_candidate() -> None:
    rows = [Example("t", "none")] * 4 + [Example("t", "card")]
    outcomes = [said(""), said("none"), said("card"), BLOCKED, said("card")]
    facts = judged(rows, outcomes, none_label="none")
    assert facts["accuracy"] == 3 / 5
    assert facts["oos_recall"] == 2 / 4
    assert facts["oos_precision"] == 1
    assert facts["in_scope_accuracy"] == 1
    assert (facts["n_out_of_scope"], facts["n_abstained"]) == (4, 2)
    # without the option an empty answer is a miss, as a block is
    assert judged(rows, outcomes)["accuracy"] == 2 / 5


def test_the_none_label_need_not_be_among_the_candidates() -> None:
    rows = [Example("t", "none"), Example("t", "card")]
    assert make_judge(rows, none_label="none").gold_labels == ("card",)


def test_several_labels_are_measured_as_sets() -> None:
    rows = [Example("t", ["a", "b"]), Example("t", ["a"]), Example("t", []), Example("t", [])]
    facts = judged(rows, [said("a"), said("a"), said(""), FAILED])
    assert facts["accuracy"] == 2 / 4
    assert facts["micro_f1"] == pytest.approx(4 / 5)
    assert facts["macro_f1"] == 0.5  # a: 1, b: 0
    assert (facts["oos_recall"], facts["n_abstained"]) == (0.5, 1)
    assert make_judge(rows).gold_labels == ("a", "b", "a")
    assert judged(rows, [said("z"), said("a"), said("z"), said("z")], "z")["oos_recall"] == 1


@pytest.mark.parametrize("task", ["ner", "pii"])
def test_entities_are_judged_by_place_and_type(task: str) -> None:
    rows = [
        Example("😀张伟在北京", [{"type": "人名", "start": 1, "end": 3}], task=task),
        Example("Ann met Bob", [{"type": "person", "start": 0, "end": 3}], task=task),
        Example("nobody", [], task=task),
    ]
    outcomes: list[Outcome] = [
        found(Span(1, 3, "人名", "张伟", 0.8), Span(4, 6, "地名", "北京", 0.6)),
        FAILED,
        found(),
    ]
    facts = judged(rows, outcomes)
    assert (facts["n"], facts["entity_f1"]) == (3, 0.5)
    assert (facts["entity_precision"], facts["entity_recall"]) == (0.5, 0.5)
    assert facts["per_type"]["人名"]["f1"] == 1
    assert facts["brier"] == pytest.approx((0.2**2 + 0.6**2) / 2)
    assert "accuracy" not in facts


def test_the_best_span_is_the_answer_to_a_question() -> None:
    rows = [
        Example("李白是诗人", [{"text": "李白", "start": 0}], task="qa", lang="zh"),
        Example("The cat sat", [{"text": "the cat", "start": 0}], task="qa", lang="en"),
        Example("Nothing here", [], task="qa", lang="en"),
        Example("没有", [], task="qa", lang="zh"),
        Example("The cat sat", [{"text": "cat", "start": 4}], task="qa", lang="en"),
    ]
    outcomes: list[Outcome] = [
        found(Span(3, 5, "q", "诗人", 0.3), Span(0, 2, "q", "李白", 0.6)),
        found(Span(4, 11, "q", "cat sat", 0.5)),
        found(),
        BLOCKED,
        found(),
    ]
    facts = judged(rows, outcomes)
    assert facts["exact_match"] == 2 / 5
    assert facts["f1"] == pytest.approx((1 + 2 / 3 + 1) / 5, abs=1e-6)
    assert (facts["n_no_answer"], facts["n_unanswerable"]) == (2, 2)
    assert facts["brier"] == pytest.approx((0.4**2 + 0.5**2) / 2)


@pytest.mark.parametrize("task", ["recommendation", "ranking"])
def test_rankings_are_judged_by_the_rank_of_what_was_wanted(task: str) -> None:
    films = {"candidates": ["活着", {"item": "up", "title": "Up"}, "heat"]}
    rows = [Example("t", 1, task=task, extra=films)] * 3
    facts = judged(rows, [ranked(up=0.7, heat=0.2, 活着=0.1), ranked(heat=0.6, up=0.4), FAILED])
    assert facts["hr@1"] == pytest.approx(1 / 3, abs=1e-6)
    assert facts["hr@10"] == pytest.approx(2 / 3, abs=1e-6)
    assert facts["ndcg@10"] == pytest.approx((1 + 0.630930) / 3, abs=1e-6)
    assert facts["n_relevant_unranked"] == 1
    assert facts["brier"] == pytest.approx((0.3**2 + 0.6**2) / 2)


def test_kinds_that_are_measured_alike_may_stand_in_one_file_and_others_not() -> None:
    make_judge([Example("t", "a"), Example("t", "b", task="safety")])
    with pytest.raises(RowInvalid, match="classification, ner"):
        make_judge([Example("t", "a"), Example("t", [], task="ner")])


def test_generated_text_is_refused_in_words() -> None:
    with pytest.raises(RowInvalid, match="'translation'") as caught:
        make_judge([Example("t", ["x"], task="translation")])
    assert "ner" in caught.value.hint


def test_only_single_labels_do_without_the_scores() -> None:
    assert is_single_label([Example("t", "a"), Example("t", "b", task="relation")])
    assert not is_single_label([Example("t", "a"), Example("t", ["b"])])
    assert not is_single_label([Example("t", 0, task="ranking")])

"""Evaluating rows through a function that predicts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from instructrec_deploy.core.errors import RowInvalid, TextEmpty
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.result import Answer, Prediction, Span, Verdict
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.evaluate import evaluate_rows
from instructrec_deploy.evaluation.judging import Outcome


def answer(label: str, action: str = "allow") -> Prediction:
    return Prediction(
        (Answer("intent", label, 0.9, ()),),
        verdicts=(Verdict(action),),
        n_tokens=4,
        model="tiny",
        model_version="1",
    )


def first_word(rows: Sequence[Example]) -> list[Outcome]:
    return [answer(row.text.split()[0]) for row in rows]


def test_rows_are_compared_with_their_targets() -> None:
    pairs = [("refund please", "refund"), ("物流 到哪了", "物流"), ("pin x", "card")]
    rows = [Example(text, target) for text, target in pairs]
    found = evaluate_rows(rows, first_word, candidates=["refund", "物流", "card", "pin"])
    assert found.figures.values["accuracy"].value == pytest.approx(2 / 3)
    assert found.to_dict()["n"] == 3
    assert found.to_dict()["mean_tokens"] == 4


def test_gold_labels_outside_the_candidates_are_told_apart() -> None:
    rows = [Example("refund now", "refund"), Example("other", "neutral"), Example("x", "neutral")]
    facts = evaluate_rows(rows, first_word, candidates=["refund"]).to_dict()
    assert facts["n_gold_outside_candidates"] == 2
    assert facts["gold_outside_candidates"] == ["neutral"]
    assert facts["accuracy"] == pytest.approx(1 / 3, abs=1e-6)


def test_errors_and_blocked_rows_count_as_wrong() -> None:
    def predict(rows: Sequence[Example]) -> list[Outcome]:
        return [answer("a"), answer("", "block"), TextEmpty("the text is empty")][: len(rows)]

    facts = evaluate_rows([Example(t, "a") for t in "xyz"], predict, candidates=["a"]).to_dict()
    assert facts["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert (facts["n_blocked"], facts["errors"]) == (1, {"IR-1101": 1})


def test_a_target_that_is_no_label_is_refused_without_its_text() -> None:
    with pytest.raises(RowInvalid) as caught:
        evaluate_rows([Example("secret words", [{"start": 0}], id="r7")], first_word, candidates=[])
    assert "r7" in caught.value.message
    assert "secret" not in caught.value.message


def test_the_time_is_that_of_predicting_alone() -> None:
    times = iter([10.0, 12.0])
    found = evaluate_rows(
        [Example("a", "a")] * 4, first_word, candidates=["a"], clock=lambda: next(times)
    )
    assert found.texts_per_s == pytest.approx(2.0)


def test_the_predictor_gets_whole_rows_and_the_kind_decides_what_is_measured() -> None:
    def whole_text(rows: Sequence[Example]) -> list[Outcome]:
        return [
            Prediction((Answer("", "", 0.0, (), spans=(Span(0, 2, t, row.text, 0.5),)),))
            for row in rows
            for t in row.extra["types"]
        ]

    row = Example(
        "北京", [{"type": "地名", "start": 0, "end": 2}], task="ner", extra={"types": ["地名"]}
    )
    found = evaluate_rows([row], whole_text, candidates=[])
    assert found.kind is TaskKind.NER
    facts = found.to_dict()
    assert (facts["kind"], facts["n"], facts["entity_f1"]) == ("ner", 1, 1.0)
    assert facts["n_gold_outside_candidates"] == 0


def test_a_row_that_fits_no_candidate_is_not_outside_them() -> None:
    rows = [Example("refund", "refund"), Example("hello", "none of these")]
    found = evaluate_rows(rows, first_word, candidates=["refund"], none_label="none of these")
    assert found.outside.total() == 0
    assert found.to_dict()["oos_recall"] == 0


def test_another_number_of_answers_is_refused() -> None:
    with pytest.raises(RowInvalid, match="2 rows, but 0 answers"):
        evaluate_rows([Example("a", "a")] * 2, lambda rows: [], candidates=[])

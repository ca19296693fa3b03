"""The Predictor: loose arguments, many texts, results in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.bundle import Bundle, open_bundle
from instructrec_deploy.core.errors import (
    FileMissing,
    InstructionMissing,
    LabelMissing,
    LabelUnknown,
    RequestError,
    TaskUnknown,
    TextEmpty,
    Unavailable,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.batching import BatchingSettings
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.predictor import Predictor, question_of
from tests.tiny import LABELS

TWO_LANES = EngineSettings(n_lanes=2, threads_per_lane=1, provider="cpu")


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Iterator[Predictor]:
    with Predictor(
        tiny_bundle, engine=TWO_LANES, batching=BatchingSettings(max_batch_tokens=80)
    ) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "label"),
    [("I lost my card", "card lost"), ("汇率 exchange rate?", "exchange rate"), ("余额", "余额")],
)
def test_one_text_is_answered_by_the_default_task(
    predictor: Predictor, text: str, label: str
) -> None:
    found = predictor.predict(text)
    assert found.label == label
    assert len(found.answers[0].scores) == 5


def test_many_texts_come_back_in_order(predictor: Predictor) -> None:
    texts = [f"{'card ' * (i % 23 + 1)}{i} 余额" for i in range(60)]
    found = predictor.predict(texts)
    assert [p.n_tokens for p in found] == [predictor.predict(text).n_tokens for text in texts]
    alone = predictor.predict(texts[7])
    assert found[7].score == pytest.approx(alone.score, abs=1e-5)


def test_no_text_is_no_answer(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_words_and_candidates_ask_anything(predictor: Predictor) -> None:
    found = predictor.predict("I love it 👍", instruction="How is it?", candidates=["love", "hate"])
    assert (found.label, found.answers[0].task) == ("love", "")
    same = predictor.predict(
        "I love it 👍", instruction=Instruction.of("How is it?", ["love", "hate"])
    )
    assert same.answers == found.answers


def test_a_prepared_instruction_is_asked_by_its_key(predictor: Predictor) -> None:
    key = predictor.prepare(Instruction.of("怎么样？", ["很好", "不好"])).key
    assert predictor.predict("服务很好", prepared_id=key).label == "很好"


def test_one_bad_request_does_not_sink_the_others(predictor: Predictor) -> None:
    found = predictor.predict_requests(
        [Request.of("card"), Request.of("card", (Question(task="no"),)), Request.of("余额")]
    )
    assert [type(outcome) for outcome in found] == [Prediction, TaskUnknown, Prediction]


def test_a_misspelt_task_is_told_which_was_meant(predictor: Predictor) -> None:
    with pytest.raises(TaskUnknown) as caught:
        predictor.predict("card", task="intnt")
    assert caught.value.hint.startswith("did you mean 'intent'? its tasks: ")


def test_personal_data_is_masked_by_the_bundles_policy(predictor: Predictor) -> None:
    found = predictor.predict("我的电话是13800138000, card lost")
    assert found.action == "mask"
    assert "13800138000" not in found.text


def test_without_the_guard_nothing_is_masked(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, engine=TWO_LANES, guard=False) as plain:
        found = plain.predict("我的电话是13800138000, card lost")
    assert (found.text, found.verdicts) == ("", ())


def test_a_model_with_fixed_labels_answers_alike(tiny_head_bundle: Path) -> None:
    with Predictor(open_bundle(tiny_head_bundle), engine=TWO_LANES) as head:
        assert head.predict("I lost my card").label in LABELS
        assert head.predict("pin", task="intent", candidates=LABELS[:2]).label in LABELS[:2]
        with pytest.raises(LabelUnknown):
            head.predict("pin", instruction="what", candidates=["unheard of", LABELS[0]])


def test_an_empty_text_is_refused(predictor: Predictor) -> None:
    with pytest.raises(TextEmpty):
        predictor.predict(" \u3000\n")


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        Predictor(tmp_path / "none")


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"candidates": ["a"]}, InstructionMissing),
        ({"instruction": "what"}, LabelMissing),
        ({"instruction": "what", "candidates": []}, LabelMissing),
        ({"candidates": ["a"], "task": "no"}, TaskUnknown),
        ({"prepared_id": "k", "task": "intent"}, RequestError),
        ({"instruction": Instruction.of("w", ["a"]), "candidates": ["a"]}, RequestError),
    ],
)
def test_half_a_question_is_refused(
    bundle: Bundle, how: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        question_of(bundle, **how)


def test_words_with_a_task_keep_its_labels_and_temperature(bundle: Bundle) -> None:
    asked = question_of(bundle, instruction="情感？", task="sentiment").instruction
    assert asked is not None
    assert (asked.text, asked.labels, asked.temperature) == (
        "情感？",
        ("positive", "negative"),
        2.0,
    )
    assert asked.candidates[0].description


def test_candidates_with_a_task_keep_its_words_and_temperature(bundle: Bundle) -> None:
    asked = question_of(bundle, candidates=["好", Candidate("坏", "terrible")], task="sentiment")
    assert asked.instruction is not None
    assert asked.instruction.text == "What is the sentiment of this text?"
    assert asked.instruction.candidates == (Candidate("好"), Candidate("坏", "terrible"))
    assert asked.instruction.temperature == 2.0


def test_a_string_in_place_of_a_list_of_candidates_is_refused(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle) as predictor, pytest.raises(RequestError, match="one string"):
        predictor.predict("i lost my card", instruction="Which?", candidates="abc")


def test_a_closed_predictor_says_so(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle)
    predictor.close()
    with pytest.raises(Unavailable, match="closed"):
        predictor.predict("i lost my card")

"""Decisions of tasks and of requests, from `tasks.toml` to the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.bundle import Bundle, open_bundle
from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.errors import (
    BundleError,
    DecisionInvalid,
    NoneLabelTaken,
    RequestError,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.golden import check_golden
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import Predictor, question_of
from tests.tiny import TASKS_TOML, write_tiny_bundle

ONE_LANE = EngineSettings(n_lanes=1, threads_per_lane=1, provider="cpu")
TASKS = (
    TASKS_TOML
    + """
[tasks.topics]
labels = ["money", "refund", "balance", "card", "余额"]
decision = "any"
threshold = 0.7
offset = 5.0
temperature = 4.0
none_label = "其他"
exclusive = [["balance", "余额"]]
[tasks.topics.parents]
refund = "money"
balance = "money"
[tasks.topics.instructions]
en = ["Which topics does the text touch?"]

[tasks.strict]
labels = ["lost card", "balance"]
none_label = "out of scope"
none_logit = 9.0
[tasks.strict.instructions]
zh = ["客户想要什么？"]
"""
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "decisions"
    return open_bundle(write_tiny_bundle(folder, tasks_toml=TASKS))


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Iterator[Predictor]:
    with Predictor(bundle, engine=ONE_LANE) as opened:
        yield opened


def test_a_task_of_any_gives_all_labels_that_fit_with_their_parents(predictor: Predictor) -> None:
    found = predictor.predict("refund for my card", task="topics", top_k=0)
    assert set(found.labels) == {"refund", "money", "card"}
    assert found.label == found.labels[0]
    assert not found.abstained
    assert len(found.answers[0].scores) == 5


def test_a_task_of_any_may_find_nothing(predictor: Predictor) -> None:
    found = predictor.predict("phone call 电话", task="topics")
    assert (found.label, found.labels, found.abstained) == ("其他", (), True)


def test_a_request_may_change_the_threshold_of_a_task(predictor: Predictor) -> None:
    text = "refund for my card"
    assert predictor.predict(text, task="topics", threshold=0.999).abstained
    many = predictor.predict(text, task="topics", threshold=0.0).labels
    assert {"money", "refund", "card"} < set(many)
    assert len({"balance", "余额"} & set(many)) == 1  # they exclude each other


def test_a_request_may_turn_a_task_of_one_into_any(predictor: Predictor) -> None:
    found = predictor.predict("refund, or change pin?", decision="any", threshold=0.01)
    assert set(found.labels) == {"refund", "change pin"}
    assert found.answers[0].task == "intent"
    single = predictor.predict("refund my card", task="topics", decision="one", threshold=0.0)
    assert len(single.labels) == 1


def test_a_text_that_fits_no_label_is_none_of_these(predictor: Predictor) -> None:
    found = predictor.predict(["I lost my card", "happy 开心", "余额"], task="strict", top_k=0)
    assert [p.label for p in found] == ["lost card", "out of scope", "out of scope"]
    assert [p.abstained for p in found] == [False, True, True]
    for prediction in found:
        assert sum(s.score for s in prediction.answers[0].scores) == pytest.approx(1.0)
        assert prediction.answers[0].scores[0].label == prediction.label


def test_other_candidates_do_not_compete_with_a_none_that_was_learned_for_the_tasks_own(
    predictor: Predictor,
) -> None:
    found = predictor.predict("happy 开心", task="strict", candidates=["happy", "sad"])
    assert (found.label, found.abstained) == ("happy", False)


@pytest.mark.parametrize("words", [{"none_label": "以上都不是"}, {}])
def test_a_question_of_ones_own_may_answer_none(
    predictor: Predictor, words: dict[str, str]
) -> None:
    asked: dict[str, Any] = {"instruction": "什么？", "candidates": ["refund", "余额"], **words}
    sure = predictor.predict("refund", threshold=0.9, **asked)
    unsure = predictor.predict("sad", threshold=0.9999, **asked)
    assert (sure.label, sure.abstained) == ("refund", False)
    assert (unsure.label, unsure.abstained) == (words.get("none_label", ""), True)


def test_rules_may_come_with_a_request_in_process(predictor: Predictor) -> None:
    rules = Decision.of("any", threshold=0.01, exclusive=[["refund", "change pin"]])
    found = predictor.predict("refund, or change pin?", decision=rules)
    assert len(set(found.labels) & {"refund", "change pin"}) == 1
    asked = Instruction.of("what?", ["refund", "pin", "card"], allowed=["pin", "card"])
    assert predictor.predict("refund my card", instruction=asked).label == "card"


def test_one_text_may_be_decided_in_several_ways_at_once(
    bundle: Bundle, predictor: Predictor
) -> None:
    ways: list[dict[str, Any]] = [{}, {"threshold": 1.0, "none_label": "x"}, {"decision": "any"}]
    questions = tuple(question_of(bundle, **way) for way in ways)
    (found,) = predictor.predict_requests([Request("refund", questions, top_k=0)])
    assert isinstance(found, Prediction)
    plain, strict, several = found.answers
    assert [a.abstained for a in found.answers] == [False, True, False]
    assert len({a.prepared_id for a in found.answers}) == 3
    for one, other in zip(plain.scores, strict.scores, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-12)
    assert several.labels == ("refund",)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"prepared_id": "ab", "decision": "any"}, RequestError),
        ({"decision": "some"}, DecisionInvalid),
        ({"threshold": 2.0}, DecisionInvalid),
        ({"none_label": "Refund"}, NoneLabelTaken),
        ({"decision": Decision.of(parents={"refund": "nothing"})}, DecisionInvalid),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(
    bundle: Bundle, given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        question_of(bundle, **given)


def test_any_of_one_candidate_is_refused_and_its_neighbours_are_answered(bundle: Bundle) -> None:
    alone = Instruction.of("urgent?", ["urgent"], decision=Decision.of("any"))
    with Predictor(bundle, engine=ONE_LANE) as opened:
        bad = question_of(bundle, instruction=alone)
        found = opened.predict_requests([Request("refund", (bad,)), Request("refund")])
    assert isinstance(found[0], DecisionInvalid)
    assert not isinstance(found[1], Exception)


def test_a_bundle_whose_rules_contradict_each_other_is_not_opened(tmp_path: Path) -> None:
    tasks = TASKS.replace('refund = "money"', 'refund = "monye"').replace(
        '["balance", "余额"]]', '["balance", "money"]]'
    )
    folder = write_tiny_bundle(tmp_path / "b", tasks_toml=tasks)
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert "tasks.topics.parents.refund: 'monye' is no label" in caught.value.message
    assert "tasks.topics.exclusive.0: balance implies money" in caught.value.message


def test_golden_pairs_of_several_labels_are_compared_as_a_set(
    tmp_path: Path, predictor: Predictor
) -> None:
    answer = predictor.predict("refund for my card", task="topics", top_k=0).answers[0]
    row: dict[str, Any] = {"text": "refund for my card", "task": "topics", "label": answer.label}
    row["scores"] = {s.label: s.score for s in answer.scores}

    def check(labels: list[str]) -> float:
        root = tmp_path / "-".join(labels)
        write_tiny_bundle(root, tasks_toml=TASKS, golden=[row | {"labels": labels}])
        bundle = open_bundle(root)
        return check_golden(bundle, Pipeline.open(bundle, engine=ONE_LANE)).max_difference

    assert check(list(reversed(answer.labels))) <= 1e-5
    with pytest.raises(BundleError, match="another label"):
        check([*answer.labels, "余额"])

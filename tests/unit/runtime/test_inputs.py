"""What a request brings beside its text, on its way through guard, tokenizer and priors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import InstructRecError, TextUndecodable
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Mark, Question, Request
from instructrec_deploy.core.result import Answer, Prediction
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import Predictor, question_of
from instructrec_deploy.text.render import render
from tests.tiny import TASKS_TOML, write_tiny_bundle
from tests.unit.runtime.conftest import ONE_LANE

FILMS_TOML = (
    TASKS_TOML
    + """
[tasks.films]
kind = "ranking"
labels = ["card", "pin", "refund"]
temperature = 2.0
prior_weight = 0.5
[tasks.films.priors]
pin = 4.0
strange = -6.0
[tasks.films.instructions]
en = ["Which film next?"]
"""
)


@pytest.fixture
def guarded(tiny_bundle: Path) -> Iterator[Pipeline]:
    """With the policy of the bundle: it masks personal data and blocks threats."""
    opened = Pipeline.open(open_bundle(tiny_bundle), engine=ONE_LANE)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("films") / "b", tasks_toml=FILMS_TOML)


def one(pipeline: Pipeline, request: Request) -> Prediction:
    (outcome,) = pipeline.answer([request])
    assert not isinstance(outcome, InstructRecError), outcome
    return outcome


def scores(answer: Answer) -> dict[str, float]:
    return {score.label: score.score for score in answer.scores}


def read_ids(pipeline: Pipeline, request: Request) -> list[int]:
    job = pipeline.admit(request)
    pipeline.read([job])
    return job.ids


def test_a_pair_and_marks_are_read_as_they_are_rendered(pipeline: Pipeline) -> None:
    cases = [
        (Request("my card", text2="余额查询 😊"), render("my card", text2="余额查询 😊")),
        (
            Request("我的 card", head=Mark(0, 2), tail=Mark(3, 7)),
            render("我的 card", head=Mark(0, 2), tail=Mark(3, 7)),
        ),
        (Request("lost"), render("lost")),
    ]
    jobs = [pipeline.admit(request) for request, _ in cases]
    pipeline.read(jobs)
    wanted = pipeline.tokenizer.encode_passages([passage for _, passage in cases])
    assert [job.ids for job in jobs] == [encoded.ids for encoded in wanted]


def test_the_second_text_and_the_marks_change_the_answer(pipeline: Pipeline) -> None:
    alone = one(pipeline, Request("my card"))
    pair = one(pipeline, Request("my card", text2="refund refund"))
    here = one(pipeline, Request("my card", head=Mark(0, 2), tail=Mark(3, 7)))
    there = one(pipeline, Request("my card", head=Mark(3, 7), tail=Mark(0, 2)))
    found = [scores(p.answers[0])["refund"] for p in (alone, pair, here, there)]
    assert len(set(found)) == 4


def test_a_mark_follows_its_words_when_what_stands_before_is_masked(guarded: Pipeline) -> None:
    text = "打 13812345678，我的卡丢了"
    request = Request(text, head=Mark(14, 17), tail=Mark(17, 19))
    assert text[14:17] == "我的卡"
    plain = "打 [PHONE]，我的卡丢了"
    wanted = Request(plain, head=Mark(10, 13), tail=Mark(13, 15))
    assert plain[10:13] == "我的卡"
    assert one(guarded, request).text == plain
    assert read_ids(guarded, request) == read_ids(guarded, wanted)


def test_a_mark_on_what_is_masked_marks_what_stands_in_its_place(guarded: Pipeline) -> None:
    request = Request("card jo@mail.example.com 😊", head=Mark(0, 4), tail=Mark(8, 12))
    wanted = Request("card [EMAIL] 😊", head=Mark(0, 4), tail=Mark(5, 12))
    assert read_ids(guarded, request) == read_ids(guarded, wanted)


def test_the_second_text_is_masked_as_the_first_is(guarded: Pipeline) -> None:
    request = Request("我的卡", text2="mail jo@mail.example.com")
    found = one(guarded, request)
    assert [(v.direction, v.action) for v in found.verdicts] == [
        ("input", "allow"),
        ("text2", "mask"),
    ]
    (finding,) = found.verdicts[1].findings
    assert request.text2[finding.start : finding.end] == "jo@mail.example.com"
    assert (found.action, found.text) == ("mask", "")
    masked = replace(request, text2="mail [EMAIL]")
    assert read_ids(guarded, request) == read_ids(guarded, masked)


@pytest.mark.parametrize(
    "request_",
    [
        Request("fine", text2="I will kill you"),
        Request("I will kill you", text2="fine"),
        Request("I will kill you", head=Mark(0, 1), tail=Mark(7, 11)),
    ],
)
def test_a_threat_in_either_text_blocks(guarded: Pipeline, request_: Request) -> None:
    found = one(guarded, request_)
    assert (found.action, found.label, found.n_tokens, found.text) == ("block", "", 0, "")
    assert len(found.verdicts) == (2 if request_.text2 else 1)


def test_a_lone_surrogate_in_the_second_text_is_refused(pipeline: Pipeline) -> None:
    found = pipeline.answer([Request("fine", text2="\ud800"), Request("fine")])
    assert isinstance(found[0], TextUndecodable)
    assert isinstance(found[1], Prediction)


def test_a_prior_is_added_before_the_temperature(pipeline: Pipeline) -> None:
    plain = Instruction.of("which?", ["card", "余额", "pin"], temperature=2.0)
    some = [Candidate("card"), Candidate("余额", prior=3.0), Candidate("pin", prior=-1.0)]
    asked = Instruction.of("which?", some, temperature=2.0, prior_weight=0.5)
    found = [
        scores(one(pipeline, Request("my card", (Question(instruction=i),), top_k=0)).answers[0])
        for i in (plain, asked)
    ]
    before, after = ({k: np.log(v) for k, v in each.items()} for each in found)
    gained = [after[label] - before[label] for label in ("card", "余额", "pin")]
    wanted = np.array([0.0, 1.5, -0.5]) / 2.0
    assert np.array(gained) - gained[0] == pytest.approx(wanted - wanted[0], abs=1e-5)


def test_a_model_with_fixed_labels_adds_priors_too(head_pipeline: Pipeline) -> None:
    own = head_pipeline.bundle.instruction()
    liked = (*own.candidates[:-1], Candidate("转账失败", prior=100.0))
    loved = replace(own, candidates=liked, prior_weight=1.0)
    assert one(head_pipeline, Request("card", (Question(instruction=own),))).label != "转账失败"
    assert one(head_pipeline, Request("card", (Question(instruction=loved),))).label == "转账失败"


def test_a_request_s_candidates_have_their_own_priors_and_the_task_s_weight(films: Path) -> None:
    bundle = open_bundle(films)
    candidates = [Candidate("pin", prior=2.0), "strange", Candidate("new", prior=1.0), "card"]
    asked = question_of(bundle, candidates=candidates, task="films").instruction
    assert asked is not None
    assert (asked.prior_weight, asked.temperature) == (0.5, 2.0)
    assert asked.prior_logits == (1.0, -3.0, 0.5, 0.0)
    alone = question_of(bundle, instruction="which?", candidates=candidates).instruction
    assert alone is not None
    assert alone.prior_logits == (2.0, 0.0, 1.0, 0.0)
    assert bundle.instruction("films").prior_logits == (0.0, 2.0, 0.0)


def test_the_predictor_takes_what_a_request_may_bring(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, engine=ONE_LANE, guard=False) as predictor:
        pair = predictor.predict("my card", text2="余额")
        both = predictor.predict(["my card", "pin"], text2="余额")
        marked = predictor.predict("my card", head=(0, 2), tail=Mark(3, 7))
        direct = predictor.predict_requests(
            [
                Request("my card", text2="余额"),
                Request("my card", head=Mark(0, 2), tail=Mark(3, 7)),
            ]
        )
    for found, wanted in zip((pair, marked), direct, strict=True):
        assert isinstance(wanted, Prediction)
        assert scores(found.answers[0]) == pytest.approx(scores(wanted.answers[0]), abs=1e-5)
    assert both[0].label == pair.label

"""The way of a batch: neighbours, several questions, the guard, faults."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import (
    BundleError,
    InternalError,
    PreparedUnknown,
    TaskUnknown,
    TextUndecodable,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Answer, Finding, Prediction, Verdict
from instructrec_deploy.runtime.engine import Engine, EngineSettings
from instructrec_deploy.runtime.pipeline import Pipeline
from tests.tiny import HEAD_TASKS_TOML, LABELS, write_tiny_bundle

TEXTS = [
    "I lost my card",
    "我的卡丢了",
    "what is the exchange rate today, please? " * 4,
    "ＲＥＦＵＮＤ my money 退款",
    "👍🏽",
    "a [SEP] b",
    "pin",
]
# float32 sums in another order: the last digits of a logit of about 20 may move.
TOLERANCE = 1e-5


def request(text: str, *questions: Question) -> Request:
    return Request.of(text, questions or (Question(),), top_k=0)


def answered(pipeline: Pipeline, requests: Sequence[Request]) -> list[Prediction]:
    found = []
    for outcome in pipeline.answer(requests):
        assert isinstance(outcome, Prediction)
        found.append(outcome)
    return found


def scores(answer: Answer) -> dict[str, float]:
    return {score.label: score.score for score in answer.scores}


@pytest.mark.parametrize("kind", ["pipeline", "head_pipeline"])
def test_an_answer_does_not_depend_on_its_neighbours(
    kind: str, fixture_request: pytest.FixtureRequest
) -> None:
    pipeline: Pipeline = fixture_request.getfixturevalue(kind)
    alone = [scores(answered(pipeline, [request(text)])[0].answers[0]) for text in TEXTS]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=12))
    def check(picked: list[int]) -> None:
        batch = answered(pipeline, [request(TEXTS[index]) for index in picked])
        for index, prediction in zip(picked, batch, strict=True):
            assert scores(prediction.answers[0]) == pytest.approx(alone[index], abs=TOLERANCE)

    check()


@pytest.fixture
def fixture_request(request: pytest.FixtureRequest) -> pytest.FixtureRequest:
    """pytest's own `request` under another name: here a request is what is asked."""
    return request


def test_requests_of_different_tasks_share_a_batch(pipeline: Pipeline) -> None:
    asked = [
        Question(),
        Question(task="sentiment"),
        Question(instruction=Instruction.of("退款吗？", ["退款", "汇率"])),
    ]
    together = answered(pipeline, [request(t, q) for t in TEXTS for q in asked])
    apart = [answered(pipeline, [request(t, q)])[0] for t in TEXTS for q in asked]
    for one, other in zip(together, apart, strict=True):
        assert scores(one.answers[0]) == pytest.approx(scores(other.answers[0]), abs=TOLERANCE)
        assert one.answers[0].task == other.answers[0].task


def test_several_questions_about_one_text_are_answered_in_order_and_read_it_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.warm()
    calls = []
    encode = Engine.encode

    def counting(self: Engine, *args: object, **kwargs: object) -> object:
        calls.append(1)
        return encode(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "encode", counting)
    asked = (Question(task="sentiment"), Question(), Question(task="sentiment"))
    prediction = answered(pipeline, [request("I love my card", *asked)])[0]
    assert [a.task for a in prediction.answers] == ["sentiment", "intent", "sentiment"]
    assert prediction.answers[0] == prediction.answers[2]
    assert len(calls) == 1


def test_the_tasks_temperature_divides_the_logits(pipeline: Pipeline) -> None:
    asked = Instruction.of("what", ["card", "refund"])
    cold, warm = (
        answered(pipeline, [request("my card", Question(instruction=one))])[0].answers[0]
        for one in (asked, replace(asked, temperature=4.0))
    )
    logits = [np.log(scores(a)["card"] / scores(a)["refund"]) for a in (cold, warm)]
    assert logits[0] == pytest.approx(4 * logits[1], rel=1e-4)


def test_a_subset_of_fixed_labels_restricts_the_softmax(head_pipeline: Pipeline) -> None:
    asked = Instruction.of("ignored", [LABELS[2], LABELS[0]])
    part = answered(head_pipeline, [request("my card", Question(instruction=asked))])[0]
    whole = answered(head_pipeline, [request("my card")])[0]
    all_scores = scores(whole.answers[0])
    total = all_scores[LABELS[2]] + all_scores[LABELS[0]]
    expected = {label: all_scores[label] / total for label in (LABELS[2], LABELS[0])}
    assert scores(part.answers[0]) == pytest.approx(expected, rel=1e-5)


def test_one_bad_request_does_not_sink_the_others(pipeline: Pipeline) -> None:
    found = pipeline.answer(
        [
            request("my card"),
            request("my card", Question(task="nonsense")),
            request("my card", Question(prepared_id="0" * 32)),
            Request("\ud800 card"),
            request("my pin"),
        ]
    )
    kinds = [type(outcome) for outcome in found]
    assert kinds == [Prediction, TaskUnknown, PreparedUnknown, TextUndecodable, Prediction]


def test_a_text_on_which_the_graph_fails_fails_alone(pipeline: Pipeline) -> None:
    jobs = [pipeline.admit(request(text)) for text in ("my card", "my pin")]
    pipeline.read(jobs)
    jobs[0].rows = [[2, 10**6, 3]]
    first, second = pipeline.compute(jobs)
    assert isinstance(first, InternalError)
    assert isinstance(second, Prediction)


def test_a_prepared_id_stands_for_its_instruction(pipeline: Pipeline) -> None:
    asked = Instruction.of("what", ["card", "refund"])
    key = pipeline.prepare(asked).key
    by_id = answered(pipeline, [request("my card", Question(prepared_id=key))])[0]
    inline = answered(pipeline, [request("my card", Question(instruction=asked))])[0]
    assert by_id.answers == inline.answers
    assert by_id.answers[0].prepared_id == key


def test_the_id_of_a_task_of_the_bundle_is_always_known(pipeline: Pipeline) -> None:
    key = pipeline.bundle.instruction("sentiment").key
    assert key not in pipeline.cache
    found = answered(pipeline, [request("I love it", Question(prepared_id=key))])[0]
    assert found.answers[0].task == "sentiment"


def test_a_long_text_is_cut_and_the_answer_says_so(pipeline: Pipeline) -> None:
    found = answered(pipeline, [request("card " * 500), request("card")])
    assert [p.truncated for p in found] == [True, False]
    assert [p.n_tokens for p in found] == [pipeline.tokenizer.max_tokens, 3]


def test_an_answer_names_the_model_and_the_callers_id(pipeline: Pipeline) -> None:
    found = answered(pipeline, [Request.of("my card", id="买家-7", top_k=2)])[0]
    assert (found.id, found.model) == ("买家-7", "tiny")
    assert found.model_version == pipeline.bundle.manifest.version
    assert len(found.answers[0].scores) == 2
    assert found.timings.total_ms >= found.timings.inference_ms > 0


@dataclass(frozen=True)
class FakeGuarded:
    text: str
    verdict: Verdict


class FakeGuard:
    """Blocks "bomb", masks "secret", and blocks the label "refund"; counts its output checks."""

    def __init__(self) -> None:
        self.n_output = 0

    def check_input(self, text: str) -> FakeGuarded:
        if "bomb" in text:
            return FakeGuarded("", Verdict("block", (Finding("x", "r", "block"),)))
        if "secret" in text:
            finding = Finding("SECRET", "r", "mask", text.index("secret"), text.index("secret") + 6)
            return FakeGuarded(text.replace("secret", "[SECRET]"), Verdict("mask", (finding,)))
        return FakeGuarded(text, Verdict())

    def check_output(self, answer: Answer) -> tuple[Answer, Verdict]:
        self.n_output += 1
        if answer.label == "refund":
            found = Verdict("block", (Finding("x", "r", "block"),), direction="output")
            return replace(answer, label="", score=0.0, scores=()), found
        return answer, Verdict(direction="output")


@pytest.fixture
def guarded(tiny_bundle: Path) -> Pipeline:
    bundle = open_bundle(tiny_bundle)
    engine = EngineSettings(n_lanes=1, threads_per_lane=1)
    return Pipeline(bundle, Engine(bundle, engine), guard=FakeGuard())


def test_a_blocked_text_never_reaches_the_model(
    guarded: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(self: Engine, *args: object, **kwargs: object) -> object:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(Engine, "encode", forbidden)
    asked = (Question(), Question(task="sentiment"))
    found = answered(guarded, [request("my bomb 炸弹", *asked)])[0]
    assert [(a.label, a.score, a.scores) for a in found.answers] == [("", 0.0, ())] * 2
    assert (found.action, found.text, found.n_tokens) == ("block", "", 0)


def test_a_masked_text_is_what_the_model_reads(guarded: Pipeline) -> None:
    masked = answered(guarded, [request("my secret card 我的")])[0]
    assert (masked.text, masked.action) == ("my [SECRET] card 我的", "mask")
    plain = answered(guarded, [request("my [SECRET] card 我的")])[0]
    assert plain.text == ""
    assert scores(masked.answers[0]) == pytest.approx(scores(plain.answers[0]))


def test_a_blocked_neighbour_leaves_the_batch_as_it_is(guarded: Pipeline) -> None:
    found = answered(guarded, [request("bomb"), request("I lost my card"), request("bomb")])
    assert [p.label for p in found] == ["", "card lost", ""]


def test_the_output_is_checked_and_its_verdict_joins(guarded: Pipeline) -> None:
    found = answered(guarded, [request("refund")])[0]
    assert (found.label, found.action) == ("", "block")
    assert [v.direction for v in found.verdicts] == ["input", "output"]


def test_labels_found_clean_are_not_checked_again(guarded: Pipeline) -> None:
    for _ in range(3):
        answered(guarded, [request("I lost my card")])
    assert isinstance(guarded.guard, FakeGuard)
    assert guarded.guard.n_output == 1


TWO_POLICIES = """
[tasks.intent.input.content]
threat = "flag"
[tenants.bank.input.personal_data]
PHONE = "block"
"""


def test_tasks_and_callers_meet_their_own_policy(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path / "b", safety=TWO_POLICIES)
    with closing(Pipeline.open(open_bundle(root))) as pipeline:
        threat = request("I will kill you", Question(task="intent"))
        own = Question(instruction=Instruction.of("what is it", ["a", "b"]))
        mixed = request("I will kill you", Question(task="intent"), own)
        number = request("打13812345678", Question(task="intent"))
        bank = replace(number, tenant="bank")
        found = answered(pipeline, [threat, mixed, number, bank])
        assert [p.action for p in found] == ["flag", "block", "mask", "block"]


def test_a_policy_for_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path / "b", safety='[tasks.intnet.input]\nfail = "open"')
    with pytest.raises(BundleError, match="intnet"):
        Pipeline.open(open_bundle(root))


def test_a_sequence_classifier_with_two_tasks_is_refused(tmp_path: Path) -> None:
    tasks = HEAD_TASKS_TOML + '\n[tasks.other]\nlabels = ["a", "b"]\n'
    root = write_tiny_bundle(tmp_path / "b", kind="sequence-classification", tasks_toml=tasks)
    with pytest.raises(BundleError):
        Pipeline.open(open_bundle(root), guard=False)

"""Requests survive the wire in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.decision import PLAIN, Decision
from instructrec_deploy.core.errors import (
    DecisionInvalid,
    LabelRepeated,
    MarkInvalid,
    MarkMissing,
    PriorInvalid,
    RequestError,
    TaskUnknown,
    TextEmpty,
    TextTooLong,
    TextUndecodable,
    TooManyLabels,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Mark, Question, Request
from instructrec_deploy.core.status import Limits
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.core.words import fold_words
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import (
    parse,
    read_batch,
    read_instruction,
    read_prepare,
    read_request,
    write_batch_request,
    write_instruction,
    write_prepare_request,
    write_request,
)

TEXTS = [
    "I lost my card",
    "我的卡丢了",
    "我的ｃａｒｄ丢了 ＡＢＣ１２３",
    "refund 🙏🏽 please 👨‍👩‍👧",
]
WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12
).filter(lambda word: word.strip() != "")
LEVELS = st.none() | st.floats(0.0, 1.0)
DECISIONS = st.one_of(
    st.just(PLAIN),
    st.builds(Decision, st.just("any"), LEVELS),
    st.builds(Decision, st.just("one"), LEVELS, none_label=WORDS.map("none {}".format)),
)
INSTRUCTIONS = st.builds(
    Instruction.of,
    WORDS.map("what {}".format),
    st.lists(
        st.builds(
            Candidate,
            WORDS.map("label {}".format),
            WORDS.map("words {}".format),
            st.just(0.0) | st.floats(-1000, 1000),
        ),
        min_size=1,
        max_size=4,
        unique_by=(lambda c: fold_words(c.label), lambda c: fold_words(c.description)),
    ),
    decision=DECISIONS,
    kind=st.sampled_from([TaskKind.CLASSIFICATION, TaskKind.RANKING, TaskKind.NER]),
)
QUESTIONS = st.one_of(
    st.builds(Question),
    st.builds(Question, task=WORDS),
    st.builds(Question, prepared_id=WORDS),
    st.builds(Question, instruction=INSTRUCTIONS),
)


@st.composite
def requests_of_all_kinds(draw: st.DrawFn) -> Request:
    text = draw(WORDS)
    shown = [i for i, character in enumerate(text) if not character.isspace()]
    marks = draw(st.lists(st.sampled_from(shown), min_size=2, max_size=2)) if shown else []
    head, tail = (
        [Mark(i, len(text)) for i in marks] if draw(st.booleans()) and marks else [None] * 2
    )
    return Request(
        text,
        tuple(draw(st.lists(QUESTIONS, min_size=1, max_size=3))),
        draw(st.text(st.characters(codec="utf-8"), max_size=5)),
        draw(st.integers(0, 50)),
        draw(st.just("") | WORDS),
        head,
        tail,
    )


REQUESTS = requests_of_all_kinds()


def send(request: Request) -> Request:
    return read_request(parse(pb.PredictRequest, write_request(request).SerializeToString()))


@given(REQUESTS)
def test_request_survives_the_wire(request: Request) -> None:
    assert send(request) == request


@given(st.lists(REQUESTS, min_size=1, max_size=4))
def test_batch_survives_the_wire(requests: list[Request]) -> None:
    data = write_batch_request(requests).SerializeToString()
    assert read_batch(parse(pb.PredictBatchRequest, data)) == requests


@pytest.mark.parametrize("text", TEXTS)
def test_text_arrives_as_it_was_sent(text: str) -> None:
    assert send(Request(text)).text == text


def test_a_pair_and_marks_arrive_in_batches_with_a_shared_question() -> None:
    question = (Question(task="relation"),)
    sent = [
        Request("北京 is in 中国 😊", question, head=Mark(0, 2), tail=Mark(9, 11)),
        Request("花呗怎么还款", question, text2="如何还花呗"),
        Request("a b", question, text2="ｃ", head=Mark(2, 3), tail=Mark(0, 3)),
    ]
    message = write_batch_request(sent)
    assert [len(r.questions) for r in message.requests] == [0, 0, 0]
    assert read_batch(message) == sent


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (pb.PredictRequest(text="ab", head=pb.Mark(start=0, end=1)), MarkMissing),
        (pb.PredictRequest(text="ab", head=pb.Mark(), tail=pb.Mark(end=1)), MarkInvalid),
        (
            pb.PredictRequest(text="ab", head=pb.Mark(end=1), tail=pb.Mark(start=1, end=3)),
            MarkInvalid,
        ),
        (pb.PredictRequest(text="a", text2="  "), TextEmpty),
        (pb.PredictRequest(text="a" * 30_000, text2="b" * 30_000), TextTooLong),
    ],
)
def test_what_no_request_may_bring_is_refused(
    message: pb.PredictRequest, error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_request(message)


def test_a_mark_that_no_message_can_hold_is_refused() -> None:
    with pytest.raises(MarkInvalid, match="head"):
        write_request(Request("a", head=Mark(-1, 1), tail=Mark(0, 1)))
    with pytest.raises(TextUndecodable):
        write_request(Request("a", text2="\ud800"))


@pytest.mark.parametrize("prior", [float("nan"), float("inf"), 1e9])
def test_a_prior_that_is_no_logarithm_is_refused(prior: float) -> None:
    candidates = [pb.Candidate(label="a", prior=prior)]
    with pytest.raises(PriorInvalid):
        read_instruction(pb.Instruction(text="which?", candidates=candidates))


def test_a_weight_of_the_caller_s_own_travels_in_the_priors() -> None:
    films = [Candidate("a", prior=3.0), Candidate("b")]
    asked = Instruction.of("which?", films, prior_weight=0.5)
    assert read_instruction(write_instruction(asked)).prior_logits == asked.prior_logits


def test_an_instruction_that_names_a_task_is_lent_all_the_task_knows() -> None:
    asked = Instruction("which?", (Candidate("a", "", 3.0),), task="films")
    lent = []

    def lend(task: str, words: str, candidates: Sequence[Candidate]) -> Instruction:
        lent.append((task, words, tuple(candidates)))
        return Instruction.of(words, candidates, task=task, temperature=2.0, prior_weight=0.5)

    found = read_instruction(write_instruction(asked), lend=lend)
    assert lent == [("films", "which?", (Candidate("a", "", 3.0),))]
    assert (found.temperature, found.prior_logits) == (2.0, (1.5,))
    many = [pb.Candidate(label=str(i)) for i in range(5)]
    with pytest.raises(TooManyLabels):
        read_instruction(
            pb.Instruction(text="w", candidates=many, task="films"),
            Limits(max_candidates=4),
            lend,
        )


def test_shared_questions_of_a_batch_are_sent_once() -> None:
    instruction = Instruction.of("客户想要什么？", ["退款", "余额"])
    question = (Question(instruction=instruction),)
    message = write_batch_request([Request(text, question) for text in TEXTS])
    assert (len(message.questions), [len(r.questions) for r in message.requests]) == (1, [0] * 4)
    assert [request.questions for request in read_batch(message)] == [question] * 4


def test_item_with_questions_of_its_own_keeps_them_in_a_batch() -> None:
    message = pb.PredictBatchRequest(
        requests=[
            pb.PredictRequest(text="a"),
            pb.PredictRequest(text="b", questions=[pb.Question(task="own")]),
        ],
        questions=[pb.Question(task="shared")],
    )
    items = read_batch(message)
    assert [item.questions[0].task for item in items if isinstance(item, Request)] == [
        "shared",
        "own",
    ]


def test_unset_top_k_is_five_and_zero_means_all() -> None:
    assert read_request(pb.PredictRequest(text="a")).top_k == 5
    assert read_request(pb.PredictRequest(text="a", top_k=0)).top_k == 0


def test_bad_item_is_its_error_and_does_not_sink_the_others() -> None:
    message = pb.PredictBatchRequest(
        requests=[pb.PredictRequest(text=t) for t in ("good", " ", "x" * 50_001)]
    )
    items = read_batch(message)
    assert isinstance(items[0], Request)
    assert [type(item) for item in items[1:]] == [TextEmpty, TextTooLong]


@pytest.mark.parametrize("n_items", [0, 257])
def test_batch_of_the_wrong_size_is_refused(n_items: int) -> None:
    message = pb.PredictBatchRequest(requests=[pb.PredictRequest(text="a")] * n_items)
    with pytest.raises(RequestError, match="1 to 256"):
        read_batch(message)


@pytest.mark.parametrize("data", [b"\n\x02\xff\xfe", b"\xff\xff\xff", b"\n\x7fabc"])
def test_bytes_that_are_no_message_or_no_utf8_are_undecodable(data: bytes) -> None:
    with pytest.raises(TextUndecodable):
        parse(pb.PredictRequest, data)


def test_lone_surrogate_is_refused_before_it_is_sent() -> None:
    with pytest.raises(TextUndecodable):
        write_request(Request("a\ud800b"))
    with pytest.raises(TextUndecodable):
        write_batch_request([Request("a\ud800b")])


@pytest.mark.parametrize(
    ("labels", "error"),
    [(["a", "a"], LabelRepeated), ([str(i) for i in range(2_001)], TooManyLabels)],
)
def test_unusable_candidates_are_refused(labels: list[str], error: type[Exception]) -> None:
    candidates = [pb.Candidate(label=label) for label in labels]
    question = pb.Question(instruction=pb.Instruction(text="what?", candidates=candidates))
    with pytest.raises(error):
        read_request(pb.PredictRequest(text="a", questions=[question]))


def ask(**fields: Any) -> pb.Instruction:
    return pb.Instruction(
        text="什么？", candidates=[pb.Candidate(label=label) for label in ("a", "b")], **fields
    )


def test_an_unset_threshold_is_another_than_zero() -> None:
    assert read_instruction(ask(decision="any")).decision.threshold is None
    assert read_instruction(ask(decision="any", threshold=0.0)).decision.threshold == 0.0


@pytest.mark.parametrize(
    "fields", [{"decision": "all"}, {"threshold": 1.5}, {"threshold": -0.1}, {"none_label": "Ａ"}]
)
def test_a_decision_that_cannot_be_is_refused_without_repeating_it(fields: dict[str, Any]) -> None:
    with pytest.raises(DecisionInvalid) as caught:
        read_instruction(ask(**fields))
    assert "all'" not in caught.value.message
    assert caught.value.hint


def test_rules_and_learned_parts_are_not_lost_on_the_way_but_refused() -> None:
    for decision in (Decision.of(parents={"a": "b"}), Decision("any", offset=1.0)):
        instruction = Instruction.of("what?", ["a", "b"], decision=decision)
        with pytest.raises(DecisionInvalid, match="cannot carry"):
            write_request(Request("text", (Question(instruction=instruction),)))


def test_a_decision_over_a_task_is_lent_the_task_and_changes_it() -> None:
    own = Instruction.of(
        "topics?", ["体育", "b"], task="topic", decision=Decision("any", offset=2.0)
    )

    def lend(task: str, words: str, candidates: object) -> Instruction:
        assert (words, candidates) == ("", [])
        return replace(own, task=task or "the default one")

    for task, found in (("topic", "topic"), ("", "the default one")):
        message = pb.Instruction(task=task, threshold=0.3, none_label="其他")
        lent = read_instruction(message, lend=lend)
        assert lent.task == found
        assert lent.decision == Decision("any", 0.3, offset=2.0, none_label="其他")


@pytest.mark.parametrize("kind", ["no-such-kind", "translation"])
def test_kind_that_is_not_served_is_refused_without_repeating_it(kind: str) -> None:
    instruction = pb.Instruction(text="what?", candidates=[pb.Candidate(label="a")], kind=kind)
    with pytest.raises(RequestError) as caught:
        read_request(pb.PredictRequest(text="a", questions=[pb.Question(instruction=instruction)]))
    assert "classification" in caught.value.hint
    assert "no-such-kind" not in caught.value.message


@pytest.mark.parametrize(
    "question",
    [Question(), Question(task="意图"), Question(instruction=Instruction.of("what?", ["a", "b"]))],
)
def test_what_is_to_be_prepared_survives_the_wire(question: Question) -> None:
    assert read_prepare(write_prepare_request(question)) == question


def test_an_unknown_task_in_an_instruction_sinks_no_other_item() -> None:
    def lend(task: str, words: str, candidates: object) -> Instruction:
        raise TaskUnknown("no such task", hint="name another")

    def read(message: pb.Instruction, limits: Limits) -> Instruction:
        return read_instruction(message, limits, lend)

    message = pb.PredictBatchRequest(requests=[{"text": "fine"}, {"text": "bad"}])
    message.requests[1].questions.add().instruction.task = "no"
    found = read_batch(message, read=read)
    assert [type(item) for item in found] == [Request, TaskUnknown]

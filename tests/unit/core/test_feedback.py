"""Corrections: what is refused, how they read back, when two are about the same text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import (
    FeedbackInvalid,
    InstructRecError,
    TextEmpty,
    TextTooLong,
    TextUndecodable,
)
from instructrec_deploy.core.feedback import Feedback, SpanMark, Target

RIGHT = Target(("refund",))
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda w: w.strip())
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=8)


@st.composite
def corrections(draw: st.DrawFn) -> Feedback:
    text = draw(WORDS)

    def span(type: str) -> SpanMark:
        start = draw(st.integers(0, len(text) - 1))
        return SpanMark(start, draw(st.integers(start + 1, len(text))), type)

    def target() -> Target:
        if draw(st.booleans()):
            return Target(tuple(draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))))
        return Target(spans=tuple(span(draw(WORDS)) for _ in range(draw(st.integers(0, 3)))))

    is_relation = draw(st.booleans())
    return Feedback.of(
        text,
        target(),
        task=draw(PLAIN),
        predicted=target() if draw(st.booleans()) else Target(),
        text2=draw(st.just("") | WORDS),
        head=span("") if is_relation else None,
        tail=span("") if is_relation else None,
        lang=draw(st.sampled_from(["", "en", "zh", "zh-Hant"])),
        source=draw(PLAIN),
        model=draw(PLAIN),
        model_version=draw(PLAIN),
    )


@given(corrections())
def test_a_row_reads_back_to_the_same_correction(feedback: Feedback) -> None:
    line = json.dumps(feedback.to_row(), ensure_ascii=False)
    assert Feedback.from_row(json.loads(line), where="row 1") == feedback


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["text", "target", "predicted", "head", "task", "lang", "created", "id"]),
)
def test_a_row_with_anything_in_a_field_is_read_or_refused(value: Any, name: str) -> None:
    row = {"text": "where is my money", "target": "refund", "task": "intent", name: value}
    try:
        told = Feedback.from_row(row, where="row 7").text
    except InstructRecError as error:
        told = error.hint
    assert told


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("I lost my card", " i  LOST my\ncard ", True),
        ("ＡＢＣ１２３ 退款", "abc123 退款", True),
        ("我的卡丢了", "我的卡丢了　", True),
        ("refund 🙏", "refund 🙏", True),
        ("refund 🙏", "refund", False),
        ("我的卡丢了", "我的卡没丢", False),
    ],
)
def test_texts_are_the_same_without_width_case_and_space(
    one: str, other: str, is_same: bool
) -> None:
    keys = {Feedback.of(text, RIGHT, task="intent").key for text in (one, other)}
    assert (len(keys) == 1) is is_same


def test_task_second_text_and_marks_make_another_question() -> None:
    base: dict[str, Any] = {"task": "intent"}
    marks = {"head": SpanMark(0, 3), "tail": SpanMark(4, 7)}
    others = [
        base,
        {"task": "topic"},
        base | {"text2": "b"},
        base | marks,
        base | marks | {"tail": SpanMark(8, 11)},
    ]
    keys = {Feedback.of("ann met ann", RIGHT, **other).key for other in others}
    assert len(keys) == len(others)


@pytest.mark.parametrize(
    ("text", "right", "more", "error"),
    [
        (" \n", RIGHT, {}, TextEmpty),
        ("x" * 50_001, RIGHT, {}, TextTooLong),
        ("x", RIGHT, {"text2": "我" * 50_001}, TextTooLong),
        ("\ud800", RIGHT, {}, TextUndecodable),
        ("x", Target(("\udfff",)), {}, TextUndecodable),
        ("x", Target(), {}, FeedbackInvalid),
        ("x", Target(("a",), ()), {}, FeedbackInvalid),
        ("x", Target((" ",)), {}, FeedbackInvalid),
        ("x", Target(("a", "a")), {}, FeedbackInvalid),
        ("x", Target(spans=(SpanMark(0, 2, "t"),)), {}, FeedbackInvalid),
        ("x", Target(spans=(SpanMark(-1, 1, "t"),)), {}, FeedbackInvalid),
        ("x", Target(spans=(SpanMark(1, 1, "t"),)), {}, FeedbackInvalid),
        ("x", Target(spans=(SpanMark(0, 1),)), {}, FeedbackInvalid),
        ("x", RIGHT, {"head": SpanMark(0, 1)}, FeedbackInvalid),
        ("x", RIGHT, {"source": "a\nb"}, FeedbackInvalid),
        ("x", RIGHT, {"model": "m" * 201}, FeedbackInvalid),
        ("x", RIGHT, {"lang": "English"}, FeedbackInvalid),
        ("x", RIGHT, {"created": "yesterday"}, FeedbackInvalid),
        ("x", RIGHT, {"created": "2026-01-31T12:00:00"}, FeedbackInvalid),
        ("x", RIGHT, {"created": "0001-01-01T00:00:00+10:00"}, FeedbackInvalid),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_hint(
    text: str, right: Target, more: dict[str, Any], error: type[InstructRecError]
) -> None:
    with pytest.raises(error) as caught:
        Feedback.of(text, right, **more)
    assert caught.value.hint


def test_time_is_kept_in_utc_and_made_where_it_is_missing() -> None:
    given = Feedback.of("x", RIGHT, created="2026-01-31T20:00:00+08:00")
    assert given.created == "2026-01-31T12:00:00.000Z"
    made = Feedback.of("x", RIGHT)
    assert made.created.endswith("Z")
    assert made.id != Feedback.of("x", RIGHT).id


def test_answers_agree_in_any_order_and_nothing_marked_is_an_answer() -> None:
    first, second = SpanMark(0, 1, "a"), SpanMark(1, 2, "b")
    assert Target(spans=(first, second)).agrees(Target(spans=(second, first)))
    assert not Target(spans=()).agrees(Target())
    assert not Target(spans=()).is_empty
    assert not Target(("a",)).agrees(Target(("b",)))


def test_about_a_fifth_of_the_corrections_are_kept_for_tests() -> None:
    splits = [Feedback.of(f"text {n} 文本", RIGHT, task="t").split for n in range(2_000)]
    assert 340 <= splits.count("test") <= 460  # 400 expected, three standard deviations
    assert 150 <= splits.count("val") <= 250

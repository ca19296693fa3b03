"""A correction from loose arguments."""

from __future__ import annotations

from typing import Any

import pytest

from instructrec_deploy.client.feedback import build_feedback
from instructrec_deploy.core.errors import FeedbackInvalid, InstructRecError, TextEmpty
from instructrec_deploy.core.feedback import SpanMark, Target
from instructrec_deploy.core.result import Answer, Prediction


def test_a_prediction_says_what_the_model_said() -> None:
    prediction = Prediction((Answer("意图", "退款", 0.4, ()),), model="shop", model_version="v1")
    made = build_feedback("钱呢？", "余额", prediction=prediction, source="agent")
    assert (made.task, made.right, made.predicted) == ("意图", Target(("余额",)), Target(("退款",)))
    assert (made.model, made.model_version, made.source) == ("shop", "v1", "agent")


def test_a_blocked_prediction_said_nothing() -> None:
    made = build_feedback("x", "a", prediction=Prediction((Answer("t", "", 0.0, ()),)))
    assert made.predicted.is_empty


def test_spans_are_marks_or_plain_data() -> None:
    spans = [SpanMark(0, 2, "person"), {"start": 3, "end": 5, "type": "place", "text": "北京"}]
    made = build_feedback("李雷在北京", spans=spans, task="ner")
    assert made.right.spans == (SpanMark(0, 2, "person"), SpanMark(3, 5, "place"))
    assert build_feedback("x", spans=[]).right == Target(spans=())


@pytest.mark.parametrize(
    ("words", "more", "error"),
    [
        ((7, "a"), {}, FeedbackInvalid),
        (("x",), {}, FeedbackInvalid),
        ((" ", "a"), {}, TextEmpty),
        (("x",), {"spans": [{"start": "0", "end": 1, "type": "t"}]}, FeedbackInvalid),
        (("x",), {"spans": [{"type": "t"}]}, FeedbackInvalid),
        (("x",), {"spans": [SpanMark(-1, 1, "t")]}, FeedbackInvalid),
    ],
)
def test_what_no_server_would_take_is_refused_here(
    words: Any, more: dict[str, Any], error: type[InstructRecError]
) -> None:
    with pytest.raises(error):
        build_feedback(*words, **more)


def test_a_long_text_is_for_the_server_to_judge() -> None:
    assert len(build_feedback("x" * 1_000_000, "a").text) == 1_000_000

"""Corrections survive the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from instructrec_deploy.core.errors import FeedbackInvalid, TextTooLong, TextUndecodable
from instructrec_deploy.core.feedback import Feedback, Receipt, Target
from instructrec_deploy.core.status import Limits
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.feedback import (
    read_feedback,
    read_receipt,
    write_feedback,
    write_receipt,
)
from instructrec_deploy.wire.requests import parse
from tests.unit.core.test_feedback import corrections


@given(corrections())
def test_a_correction_survives_the_wire_but_for_id_and_time(feedback: Feedback) -> None:
    data = write_feedback(feedback).SerializeToString()
    read = read_feedback(parse(pb.FeedbackRequest, data))
    assert replace(read, id=feedback.id, created=feedback.created) == feedback


def test_the_server_says_how_long_a_text_may_be() -> None:
    message = write_feedback(Feedback("我" * 11, Target(("a",))))
    with pytest.raises(TextTooLong, match="10"):
        read_feedback(message, Limits(max_text_chars=10))


def test_an_answer_is_demanded() -> None:
    with pytest.raises(FeedbackInvalid, match="missing"):
        read_feedback(pb.FeedbackRequest(text="x"))


def test_a_lone_surrogate_cannot_be_sent() -> None:
    with pytest.raises(TextUndecodable):
        write_feedback(Feedback("\ud800", Target(("a",))))


@pytest.mark.parametrize("outcome", ["accepted", "replaced", "duplicate"])
def test_a_receipt_survives_the_wire(outcome: str) -> None:
    receipt = Receipt("id", outcome, "[电话]" if outcome == "accepted" else "")
    assert read_receipt(parse(pb.FeedbackResponse, write_receipt(receipt).SerializeToString())) == (
        receipt
    )

"""Texts become messages: together where they are at hand, alone where they are long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from instructrec_deploy.client.streaming import MAX_BYTES, TOGETHER, TextStream
from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.core.request import Request
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb

ANY = {"model": "", "model_version": ""}


def sizes(stream: TextStream) -> list[int]:
    return [len(pb.PredictStreamRequest.FromString(data).requests) for data in stream]


def test_a_list_goes_in_messages_of_many() -> None:
    texts = ["卡"] * (TOGETHER + 1)
    assert sizes(TextStream(texts, {}, ANY)) == [TOGETHER, 1]
    assert sizes(TextStream(texts[:5], {}, ANY, together=2)) == [2, 2, 1]


def test_texts_that_come_one_by_one_are_not_held_back() -> None:
    stream = iter(TextStream(iter(["a", "b"]), {"task": "意图"}, ANY | {"model": "m"}))
    message = pb.PredictStreamRequest.FromString(next(stream))
    assert [item.text for item in message.requests] == ["a"]
    assert (message.questions[0].task, message.model) == ("意图", "m")


def test_long_texts_go_alone() -> None:
    assert sizes(TextStream(["x" * MAX_BYTES, "y", "z"], {}, ANY)) == [1, 1, 1]


def test_an_error_of_the_texts_is_kept_for_who_reads_the_answers() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    stream = TextStream(broken(), {}, ANY)
    assert sizes(stream) == [1]
    with pytest.raises(KeyError, match="mine"):
        stream.check()


def test_a_question_beside_ready_requests_is_refused() -> None:
    stream = TextStream([Request("a")], {"task": "x"}, ANY)
    assert sizes(stream) == []
    with pytest.raises(RequestError, match="ready requests"):
        stream.check()

"""Requests are split into messages that a server takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.cli.asking import Asked
from instructrec_deploy.cli.remote_asker import BATCH_BYTES, RemoteAsker, split_requests
from instructrec_deploy.core.errors import TaskUnknown, Unavailable
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.status import ModelStatus, TaskStatus
from instructrec_deploy.wire.requests import write_batch_request

LONG = BATCH_BYTES // 4


@given(
    st.lists(st.tuples(st.sampled_from("a字🙂"), st.sampled_from([1, 9, LONG // 3, LONG + 1]))),
    st.integers(1, 5),
)
def test_parts_keep_the_order_and_fit_a_message(
    texts: list[tuple[str, int]], max_items: int
) -> None:
    requests = [Request(letter * length) for letter, length in texts]
    parts = split_requests(requests, max_items)
    assert [request for part in parts for request in part] == requests
    for part in parts:
        assert 0 < len(part) <= max_items
        assert len(part) == 1 or write_batch_request(part).ByteSize() <= BATCH_BYTES + 1_000


def test_candidates_count_too() -> None:
    labels = [f"{n} {'候选' * 400}" for n in range(400)]
    asked = Question(instruction=Instruction.of("which?", labels))
    assert [len(part) for part in split_requests([Request("a", (asked,))] * 3, 64)] == [1, 1, 1]


class Streaming:
    """A client whose stream breaks off after so many answers."""

    def __init__(self, n_answers: int) -> None:
        self._n_answers = n_answers
        self.batches: list[int] = []

    def predict_stream(self, requests: list[Request], *, timeout_s: float) -> Iterator[Any]:
        numbers = list(range(len(requests)))[::-1]  # in any order
        for number in numbers[: self._n_answers]:
            yield number, Prediction((), id=requests[number].id)
        if self._n_answers < len(requests):
            raise Unavailable("the server is shutting down", hint="")

    def predict_batch(self, requests: list[Request]) -> list[Prediction]:
        self.batches.append(len(requests))
        return [Prediction((), id=request.id) for request in requests]


@pytest.mark.parametrize(
    ("n_requests", "n_streamed", "batches"), [(200, 200, []), (200, 180, [20]), (9, 0, [9])]
)
def test_many_go_by_a_stream_and_what_it_leaves_by_messages(
    n_requests: int, n_streamed: int, batches: list[int]
) -> None:
    asker = RemoteAsker("127.0.0.1:1", None, is_unary=False, timeout_s=1)
    client = asker._client = Streaming(n_streamed)  # type: ignore[assignment]
    requests = [Request("a", id=str(number)) for number in range(n_requests)]
    found = asker.ask(requests)
    assert [one.id for one in found if isinstance(one, Prediction)] == [r.id for r in requests]
    assert client.batches == batches


class Telling:
    """A client of a server with two tasks."""

    def status(self) -> ModelStatus:
        return ModelStatus(tasks=(TaskStatus("mood", is_default=True), TaskStatus("names", "ner")))


@pytest.mark.parametrize(("name", "task"), [("names", "names"), ("", "mood")])
def test_a_task_in_other_words_stays_that_task(
    name: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(RemoteAsker("127.0.0.1:1", None, is_unary=False, timeout_s=1.0)) as asker:
        monkeypatch.setattr(asker, "_client", Telling())
        asked = asker.own_question(Asked(task=name, instruction="找出人名")).instruction
        assert asked is not None
        assert (asked.text, asked.task, asked.candidates) == ("找出人名", task, ())
        with pytest.raises(TaskUnknown, match="nobody"):
            asker.own_question(Asked(task="nobody", instruction="找出人名"))
        monkeypatch.undo()

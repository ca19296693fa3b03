"""Requests are split into messages that a server takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.cli.asking import BATCH_BYTES, split_requests
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
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

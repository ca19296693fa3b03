"""Repeated instructions are the same object; the memory of them is bounded."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.errors import LabelMissing
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.server.memo import InstructionMemo
from instructrec_deploy.wire.requests import DEFAULT_LIMITS


def message(word: str, *labels: str) -> pb.Instruction:
    return pb.Instruction(text=word, candidates=[pb.Candidate(label=label) for label in labels])


def test_equal_instruction_is_the_same_object() -> None:
    memo = InstructionMemo()
    first = memo.read(message("想要什么？", "退款", "refund"), DEFAULT_LIMITS)
    assert memo.read(message("想要什么？", "退款", "refund"), DEFAULT_LIMITS) is first


def test_another_order_of_candidates_is_another_instruction() -> None:
    memo = InstructionMemo()
    first = memo.read(message("what?", "a", "b"), DEFAULT_LIMITS)
    assert memo.read(message("what?", "b", "a"), DEFAULT_LIMITS) is not first


def test_least_recently_used_is_forgotten() -> None:
    memo = InstructionMemo(max_bytes=2 * len(message("1", "a").SerializeToString()))
    first, second = (memo.read(message(word, "a"), DEFAULT_LIMITS) for word in "12")
    assert memo.read(message("1", "a"), DEFAULT_LIMITS) is first
    memo.read(message("3", "a"), DEFAULT_LIMITS)
    assert memo.read(message("1", "a"), DEFAULT_LIMITS) is first
    assert memo.read(message("2", "a"), DEFAULT_LIMITS) is not second


def test_refused_instruction_is_refused_again() -> None:
    memo = InstructionMemo()
    for _ in range(2):
        with pytest.raises(LabelMissing):
            memo.read(message("what?"), DEFAULT_LIMITS)

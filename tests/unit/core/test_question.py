"""Which loose arguments go together."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.question import LooseQuestion, read_question
from instructrec_deploy.core.request import Question

WHOLE = Instruction.of("想要什么？", ["退款"])


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, Question()),
        ({"task": "意图"}, Question(task="意图")),
        ({"prepared_id": "ab"}, Question(prepared_id="ab")),
        ({"instruction": WHOLE}, Question(instruction=WHOLE)),
        ({"instruction": "w"}, LooseQuestion("w")),
        ({"candidates": iter(["甲"])}, LooseQuestion(None, (Candidate("甲"),))),
        ({"candidates": []}, LooseQuestion(None, ())),
        ({"instruction": "w", "task": "t"}, LooseQuestion("w", None, "t")),
    ],
)
def test_arguments_are_a_whole_question_or_parts_of_one(
    given: dict[str, object], asked: Question | LooseQuestion
) -> None:
    assert read_question(**given) == asked  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"prepared_id": "ab", "task": "t"},
        {"prepared_id": "ab", "instruction": "w"},
        {"prepared_id": "ab", "candidates": []},
        {"instruction": WHOLE, "candidates": ["a"]},
        {"instruction": WHOLE, "task": "t"},
        {"candidates": "abc"},
    ],
)
def test_two_ways_of_asking_at_once_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        read_question(**given)  # type: ignore[arg-type]

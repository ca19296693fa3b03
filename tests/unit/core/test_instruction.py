"""Instructions that cannot be answered are refused with words that say why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.errors import (
    DecisionInvalid,
    InstructionUnreadable,
    LabelsAlike,
    NoneLabelTaken,
    RequestError,
    TextTooLong,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.core.words import fold_words, is_readable


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("refund", "Refund"),
        ("card lost", " card  lost"),
        ("退款ＡＢＣ", "退款abc"),
        ("ﬁne", "fine"),
        ("STRASSE", "straße"),
        ("余额", "余额\u3000"),
    ],
)
def test_candidates_that_read_alike_are_refused(one: str, other: str) -> None:
    with pytest.raises(LabelsAlike) as caught:
        Instruction.of("what?", ["something else", one, other])
    assert caught.value.code == "IR-1131"
    assert "candidate 2 reads like candidate 1" in caught.value.message
    assert "numbered from 0" in caught.value.hint
    assert other.strip() not in caught.value.message


def test_descriptions_that_read_alike_are_refused() -> None:
    with pytest.raises(LabelsAlike):
        Instruction.of("what?", [Candidate("a", "money back"), Candidate("b", "Money  back")])


@pytest.mark.parametrize("labels", [["退款", "退货"], ["a-b", "ab"], ["👍", "👎"], ["C", "C++"]])
def test_candidates_that_differ_are_taken(labels: list[str]) -> None:
    assert Instruction.of("好吗？", labels).labels == tuple(labels)


@pytest.mark.parametrize("text", ["?!", "🙂🙂", "，。！", "—\u200b…"])
def test_an_instruction_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(InstructionUnreadable) as caught:
        Instruction.of(text, ["a", "b"])
    assert caught.value.code == "IR-1132"
    assert "in words" in caught.value.hint


@pytest.mark.parametrize("name", ["refund", "ＲＥＦＵＮＤ"])
def test_the_word_for_none_is_no_candidate(name: str) -> None:
    with pytest.raises(NoneLabelTaken) as caught:
        Instruction.of("what?", ["refund", "余额"], decision=Decision.of(none_label=name))
    assert caught.value.code == "IR-1133"


def test_faults_of_a_callers_rules_are_named_together_and_without_its_words() -> None:
    rules = Decision.of(
        parents={"secret": "a", "b": "a"}, exclusive=[["a", "b"]], head_types={"private": ["X"]}
    )
    with pytest.raises(DecisionInvalid) as caught:
        Instruction.of("what?", ["a", "b"], decision=rules)
    message = caught.value.message
    assert "parents.?: it names no candidate" in message
    assert "exclusive.0: 1 implies 0" in message
    assert "head_types.?: it names no candidate" in message
    assert "secret" not in message + caught.value.hint
    assert "private" not in message


def test_allowed_labels_are_candidates() -> None:
    asked = Instruction.of("what?", ["a", "b"], allowed=["b"])
    assert asked.decision.allowed == ("b",)
    with pytest.raises(DecisionInvalid, match=r"allowed\.1"):
        Instruction.of("what?", ["a", "b"], allowed=["b", "c"])


def test_a_word_for_none_has_a_length_limit() -> None:
    with pytest.raises(TextTooLong):
        Instruction.of("what?", ["a", "b"], decision=Decision.of(none_label="x" * 2_001))


def test_the_key_tells_decisions_apart_and_a_plain_one_changes_nothing() -> None:
    plain = Instruction.of("what?", ["a", "b"])
    decisions = [
        Decision.of("any"),
        Decision.of("any", threshold=0.4),
        Decision.of(none_label="其他"),
        Decision.of(threshold=0.4),
        Decision.of(parents={"a": "b"}),
    ]
    keys = {Instruction.of("what?", ["a", "b"], decision=d).key for d in decisions}
    assert len(keys | {plain.key}) == len(decisions) + 1
    assert Instruction.of("what?", ["a", "b"], decision=Decision.of("one")).key == plain.key


def test_a_changed_decision_is_checked_against_the_candidates() -> None:
    asked = Instruction.of("what?", ["a", "b"])
    assert asked.with_decision(Decision.of("any", threshold=0.2)).decision.threshold == 0.2
    with pytest.raises(NoneLabelTaken):
        asked.with_decision(Decision.of(none_label="A"))


@given(st.text(max_size=20))
def test_folding_is_done_once(text: str) -> None:
    folded = fold_words(text)
    assert fold_words(folded) == folded
    assert fold_words(f"  {text}\u3000") == folded


@given(st.text(max_size=5), st.sampled_from("a9é中"))
def test_a_letter_a_digit_or_a_han_character_can_be_read(around: str, one: str) -> None:
    assert is_readable(around + one)


@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=4))
def test_whatever_is_accepted_differs_after_folding(labels: list[str]) -> None:
    try:
        accepted = Instruction.of("what?", labels).labels
    except RequestError:
        return
    assert len({fold_words(label) for label in accepted}) == len(labels)


def test_a_kind_may_be_a_word() -> None:
    assert Instruction.of("找出人名", ["人名"], kind="ner").kind is TaskKind.NER
    with pytest.raises(RequestError, match="no such kind"):
        Instruction.of("找出人名", ["人名"], kind="names")

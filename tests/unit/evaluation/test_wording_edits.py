"""Edits leave wordings readable, whatever comes in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.evaluation.wording_edits import (
    EDITS,
    Material,
    drop,
    is_usable,
    joined,
    mix,
    replace,
    sentences,
    swap,
)

RNG = random.Random(0)
GROUPS = (
    ("emotion", "mood"),
    ("this tweet", "the tweet"),
    ("这条评论", "这条评价"),
    ("评价", "态度"),
)
WORDS = st.text(st.sampled_from("abx为了这条Ａİß1"), min_size=1, max_size=4)
NOISE = st.text(st.sampled_from("ab ,:，、：{}😊的"), max_size=12)
PIECES = st.tuples(WORDS, NOISE, WORDS, st.sampled_from([". ", "。", "? ", "？", "; ", " of "]))
WILD = st.lists(PIECES.map("".join), min_size=1, max_size=4).map("".join)


@given(text=WILD, other=WILD, seed=st.integers(0, 9))
def test_every_edit_gives_some_text_back(text: str, other: str, seed: int) -> None:
    for edit in EDITS.values():
        found = edit(Material(text, other, GROUPS), random.Random(seed))
        assert any(c.isalnum() for c in found)


@given(st.lists(st.text("ab ", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=4))
def test_sentences_join_to_the_wording_they_were_cut_from(parts: list[str]) -> None:
    text = " ".join(f"{' '.join(part.split())}." for part in parts)
    assert joined(sentences(text)) == text
    chinese = "".join(f"{'好' * len(part)}。" for part in parts)
    assert joined(sentences(chinese)) == chinese
    assert len(sentences(chinese)) == len(parts)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Given this tweet, name the emotion", "Name the emotion"),
        ("Identify the emotion of this tweet.", "Identify the emotion."),
        ("请读这条评论，再说说评价", "再说说评价"),
        ("What kind of mood is it?", "What kind of mood is it?"),
        ("Emotion", "Emotion"),
        ("情绪", "情绪"),
    ],
)
def test_what_can_go_is_dropped_and_what_carries_the_sense_stays(text: str, left: str) -> None:
    assert drop(Material(text), RNG) == left


def test_one_of_two_sentences_is_dropped() -> None:
    found = {drop(Material("Read it. Which mood?"), random.Random(seed)) for seed in range(20)}
    assert found == {"Read it.", "Which mood?"}


def test_sentences_change_places_but_no_half_sentence_does() -> None:
    assert swap(Material("Read it. Which mood?"), RNG) == "Which mood? Read it."
    assert swap(Material("先读。心情如何？"), RNG) == "心情如何？先读。"
    assert swap(Material("Read it. The mood is"), RNG) == "Read it. The mood is"


def test_a_sentence_to_be_completed_comes_last() -> None:
    found = mix(Material("The mood of it is", "name what you feel"), RNG)
    assert found == "Name what you feel. The mood of it is"
    assert mix(Material("买家的结论是", "点赞还是点踩？"), RNG) == "点赞还是点踩？买家的结论是"


def test_single_words_are_not_strung_together() -> None:
    assert mix(Material("Emotion", "Mood"), RNG) == "Emotion"


def test_words_are_replaced_whole_and_the_longest_first() -> None:
    found = {
        replace(Material("Emotion of emotional tweets", "", GROUPS), random.Random(seed))
        for seed in range(20)
    }
    assert found == {"Emotion of emotional tweets", "Mood of emotional tweets"}
    found = {replace(Material("这条评价好吗", "", GROUPS), random.Random(s)) for s in range(20)}
    assert found == {"这条评价好吗", "这条评论好吗"}  # never 这条态度


@pytest.mark.parametrize("text", ["", " ", "?", "。", "Which? Which?", "好吗？好吗", "a" * 400])
def test_a_wording_that_says_nothing_or_says_it_twice_is_not_usable(text: str) -> None:
    assert not is_usable(text)


@pytest.mark.parametrize("text", ["Mood", "情绪", "Read it. Which mood?", "{ask}"])
def test_an_ordinary_wording_is_usable(text: str) -> None:
    assert is_usable(text)

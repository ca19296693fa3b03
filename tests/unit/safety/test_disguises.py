"""Disguised words: found in the span as sent; what only looks like a disguise is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.safety.disguises import undisguise
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.lexicon import ENTRIES
from instructrec_deploy.text.normalize import lower_in_place

GUARD = Guard()
WORDS = frozenset(word for entry in ENTRIES for word in entry.triggers.split())


@pytest.mark.parametrize(
    ("text", "hit", "category"),
    [
        ("oh f u c k you", "f u c k", "profanity"),
        ("oh f.u.c.k!", "f.u.c.k", "profanity"),
        ("oh s_h_i_t", "s_h_i_t", "profanity"),
        ("sh1t happens", "sh1t", "profanity"),
        ("an a$$hole", "a$$hole", "profanity"),
        ("fuuuuck this", "fuuuuck", "profanity"),
        ("fu*ck this", "fu*ck", "profanity"),
        ("ѕhіt happens", "ѕhіt", "profanity"),
        ("ｓｈｉｔ😀", "ｓｈｉｔ", "profanity"),
        ("s\u200bh\u200bi\u200bt😀", "s\u200bh\u200bi\u200bt", "profanity"),
        ("well, you are an id10t", "you are an id10t", "harassment"),
        ("y0u ar3 4n id10t!", "y0u ar3 4n id10t", "harassment"),
        ("I w i l l k i l l y o u now", "I w i l l k i l l y o u", "threat"),
        ("I will ki11 you", "I will ki11 you", "threat"),
        ("傻*逼客服", "傻*逼", "profanity"),
        ("这个傻 逼客服", "傻 逼", "profanity"),
        ("你 这 个 废 物😀", "你 这 个 废 物", "harassment"),
        ("我要殺了你", "我要殺了你", "threat"),
    ],
)
def test_a_disguised_word_is_found_in_its_exact_span(text: str, hit: str, category: str) -> None:
    found = {(f.category, text[f.start : f.end]) for f in GUARD.check_input(text).verdict.findings}
    assert found == {(category, hit)}


@pytest.mark.parametrize(
    "text",
    [
        "the U.S.A. and the E.U.",
        "a b c d e f g",
        "call 911! 100% sure it's $5",
        "h264 on win10, b2b and p2p",
        "vitamins A, B, C and D",
        "sooooo gooood, yesss",
        "I/O, A/B tests",
        "好 的 谢谢",
        "今天 是 你 妈妈 的 生日",
    ],
)
def test_what_only_looks_like_a_disguise_is_left_alone(text: str) -> None:
    guarded = GUARD.check_input(text)
    assert guarded.verdict.findings == ()
    assert guarded.text is text


def test_a_named_password_in_leetspeak_is_a_secret() -> None:
    assert GUARD.check_input("my p@ssw0rd is hunter22").text == "my p@ssw0rd is [SECRET]"


def test_a_number_alone_is_no_word_in_leetspeak() -> None:
    digits = str.maketrans("oieastbgl", "013457891")
    numbers = [word.translate(digits) for word in WORDS if set(word) <= set("oieastbgl")]
    assert numbers
    assert GUARD.check_input(f"items {', '.join(numbers)} x1").verdict.findings == ()


@given(st.text(max_size=60) | st.text("fuckit 1!@$*._傻逼a", max_size=60))
def test_every_character_of_a_copy_has_a_place_in_the_text(text: str) -> None:
    for made in undisguise(lower_in_place(text), WORDS):
        plain = made.copy
        assert len(plain.text) == len(plain.starts)
        for i in range(len(plain.text)):
            start, end = plain.span(i, i + 1)
            assert 0 <= start < end <= len(text)
        assert list(plain.starts) == sorted(plain.starts)

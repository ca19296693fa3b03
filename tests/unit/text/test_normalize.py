"""Folding for detection: what it unifies, and that every offset leads back to the original."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.text.normalize import fold, lower_in_place

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("plain text", "plain text"),
        ("电话１３８", "电话138"),
        ("Ａｂｃ＠ｘ．ｃｏｍ", "Abc@x.com"),
        ("1\u200b3\u200d8", "138"),
        ("\u202e138\u202c", "138"),
        ("1️⃣3️⃣8️⃣", "138"),
        ("①③⑧", "138"),
        ("𝟏𝟑𝟖", "138"),
        ("١٣٨ ۱۳۸", "138 138"),
        ("138–1234—5678", "138-1234-5678"),
        ("don’t", "don't"),
        ("a\u00a0b\u3000c", "a b c"),
        ("Zürich", "Zurich"),
        ("раураl рaypаl", "paypal paypal"),
        ("ΝΟ сор", "NO cop"),
        ("привет мир", "привет мир"),
        ("🅵🇺ᴄκ", "FUck"),
        ("電話號碼", "电话号码"),
        ("❶❸❽", "138"),
        ("谢谢😀", "谢谢😀"),
    ],
)
def test_fold_unifies_width_forms_and_invisible_characters(text: str, folded: str) -> None:
    assert fold(text).text == folded


def test_an_ascii_text_is_its_own_folded_copy() -> None:
    text = "I lost my card"
    assert fold(text).text is text


def test_a_span_behind_removed_and_expanded_characters_finds_the_original() -> None:
    text = "㎏\u200b号１\u200b２!"
    folded = fold(text)
    start = folded.text.index("12")
    begin, end = folded.span(start, start + 2)
    assert text[begin:end] == "１\u200b２"


def test_a_span_takes_the_marks_on_its_last_character_along() -> None:
    text = "1️⃣3️⃣!"
    assert fold(text).span(0, 2) == (0, 6)


@given(TEXTS)
def test_every_folded_character_comes_from_its_origin(text: str) -> None:
    folded = fold(text)
    for index in range(len(folded.text)):
        start, end = folded.span(index, index + 1)
        assert 0 <= start < end <= len(text)
        if not folded.origins:
            assert (start, end) == (index, index + 1)


@given(st.text("1３٣\u200b\u202e\ufeff\u20e3\ufe0f－—　", max_size=40))
def test_nothing_hides_between_digits_after_folding(text: str) -> None:
    assert set(fold(text).text) <= set("13- ")


@given(TEXTS)
def test_lower_case_keeps_the_length(text: str) -> None:
    assert len(lower_in_place(text)) == len(text)


def test_a_letter_whose_lower_case_is_longer_stays() -> None:
    assert lower_in_place("İAB") == "İab"

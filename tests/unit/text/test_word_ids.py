"""Plain English read word by word from memory: the ids are the tokenizer's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from instructrec_deploy.text import word_ids
from instructrec_deploy.text.word_ids import WordIds
from tests.tiny import tiny_tokenizer


def reader() -> Tokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.encode_special_tokens = True
    return tokenizer


TOKENIZER = reader()
WORDS = WordIds(TOKENIZER)
PARTS = st.sampled_from(["card", "Lost", "[SEP]", "[CLS]", "##a", "don't", "  ", "x" * 101, "_^"])
TEXTS = st.lists(st.one_of(PARTS, st.text(st.characters(codec="ascii"))), max_size=8).map("".join)


@given(text=TEXTS)
@settings(deadline=None)
def test_ids_are_those_of_the_tokenizer(text: str) -> None:
    found = WORDS.read(text)
    if found is None:
        assert not text.isprintable()
    else:
        assert found == TOKENIZER.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["我的卡", "café", "a\x00b", "a\nb", "ﬁ"])
def test_other_texts_are_left_to_the_tokenizer(text: str) -> None:
    assert WORDS.read(text) is None


def test_case_is_kept_where_the_tokenizer_keeps_it() -> None:
    tokenizer = reader()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert WordIds(tokenizer).read("CARD card") == tokenizer.encode("CARD card").ids[1:-1]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_ids, "MAX_WORDS", 10)
    words = WordIds(TOKENIZER)
    for number in range(100):
        assert words.read(f"w{number} " + "y" * 40) is not None
    assert len(words._known) <= 10


def test_only_berts_way_of_cutting_fits() -> None:
    assert WordIds.fits(reader())
    assert not WordIds.fits(tiny_tokenizer())  # reads "[SEP]" in a text as a control token
    other = reader()
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    assert not WordIds.fits(other)
    other = reader()
    other.normalizer = normalizers.NFKC()
    assert not WordIds.fits(other)
    other = reader()
    other.add_tokens([AddedToken("new york")])
    assert not WordIds.fits(other)

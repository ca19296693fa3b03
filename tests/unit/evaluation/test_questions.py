"""Exact match and F1 of answers, English and Chinese."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.evaluation.questions import (
    Replied,
    exact_and_f1,
    question_metrics,
    reads_as_chinese,
)


def english(text: str | None, *references: str) -> tuple[float, float]:
    return exact_and_f1(Replied(text, references, is_chinese=False))


def chinese(text: str | None, *references: str) -> tuple[float, float]:
    return exact_and_f1(Replied(text, references, is_chinese=True))


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1),
        ("a  big\tred dog", "the big red dog.", 1),
        ("red dog", "big red dog", 4 / 5),  # 2 of 2 and 2 of 3
        ("dog red", "red dog dog", 4 / 5),  # bags: order is nothing, counts are something
        ("anthem", "the", 0),  # an article is a whole word
        ("U.S.A.", "usa", 1),
        ("Café 😀", "café 😀", 1),
        ("cat", "dog", 0),
    ],
)
def test_english_is_compared_as_squad_does(text: str, reference: str, f1: float) -> None:
    exact, found = english(text, reference)
    assert found == pytest.approx(f1)
    assert exact == (f1 == 1 and text != "dog red")


def test_english_word_order_decides_about_exact_match_alone() -> None:
    assert english("dog red", "red dog") == (0, 1)


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("《三国演义》", "三国演义", 1),
        ("李白", "诗人李白", 4 / 6),  # 2 of 2 and 2 of 4
        ("光荣和ω-Force", "光荣和ω-force", 1),
        ("iPhone手机", "IPHONE手机", 1),
        ("用iPhone", "iPhone手机", 2 / 5),  # one word of 2 and of 3 tokens: 用 iphone, iphone 手 机
        ("3.5公里", "3.5公尺", 4 / 6),  # a number is one token
        ("北京天津上海", "北京重庆上海", 2 * 2 / 12),  # the longest run, not all that is common
        ("天气😀好", "天气😀好", 1),
        ("东", "西", 0),
    ],
)
def test_chinese_is_compared_as_cmrc_does(text: str, reference: str, f1: float) -> None:
    exact, found = chinese(text, reference)
    assert found == pytest.approx(f1)
    assert exact == (f1 == 1)


def test_the_order_of_characters_counts_in_chinese() -> None:
    assert chinese("京北", "北京") == (0, 0.5)


def test_the_best_reference_counts() -> None:
    assert english("Denver", "the Denver Broncos", "Denver") == (1, 1)
    assert chinese("布隆迪", "非洲的布隆迪", "布隆迪") == (1, 1)


@pytest.mark.parametrize("compare", [english, chinese])
def test_no_answer_is_right_only_where_there_is_none(compare: object) -> None:
    assert callable(compare)
    assert compare("") == (1, 1)
    assert compare(" \u3000") == (1, 1)
    assert compare("words 文字") == (0, 0)
    assert compare("", "the") == (0, 0)
    assert compare("", "《》") == (0, 0)


@pytest.mark.parametrize("compare", [english, chinese])
def test_a_failed_row_is_wrong_in_any_case(compare: object) -> None:
    assert callable(compare)
    assert compare(None) == compare(None, "x") == (0, 0)


TEXTS = st.text(st.sampled_from("ab the北京。《》, .-😀３\u3000"), max_size=12)


@given(TEXTS, st.lists(TEXTS.filter(str.strip), max_size=3), st.booleans())
def test_f1_lies_between_exact_match_and_1(
    text: str, references: list[str], is_chinese: bool
) -> None:
    exact, f1 = exact_and_f1(Replied(text, tuple(references), is_chinese))
    assert exact in (0, 1)
    assert exact <= f1 <= 1


@given(st.text().filter(str.strip), st.booleans())
def test_the_reference_itself_is_right(text: str, is_chinese: bool) -> None:
    assert exact_and_f1(Replied(text, ("other", text), is_chinese)) == (1, 1)


@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1), st.randoms())
def test_means_do_not_depend_on_the_order_of_rows(
    pairs: list[tuple[str, str]], rng: random.Random
) -> None:
    rows = [Replied(text, (reference,), True) for text, reference in pairs]
    found = question_metrics(rows, n_resamples=10).values
    mixed = question_metrics(rng.sample(rows, len(rows)), n_resamples=0).values
    for name in ("exact_match", "f1"):
        # another order of the same sum
        assert mixed[name].value == pytest.approx(found[name].value, abs=1e-12)
        assert 0 <= found[name].low <= found[name].high <= 1


def test_means_and_counts_over_rows() -> None:
    rows = [
        Replied("Denver", ("Denver",), False),
        Replied("李白", ("诗人李白",), True),
        Replied("", (), True),
        Replied(None, (), True),
    ]
    found = question_metrics(rows)
    assert found.values["exact_match"].value == 0.5
    assert found.values["f1"].value == pytest.approx((1 + 2 / 3 + 1) / 4)
    assert found.facts == {"n_unanswerable": 2, "n_no_answer": 1}
    with pytest.raises(ValueError, match="no questions"):
        question_metrics([])


@pytest.mark.parametrize(
    ("lang", "text", "wanted"),
    [
        ("zh", "Only Latin here", True),
        ("zh-Hans", "", True),
        ("en", "北京", False),
        ("", "北京是中国的首都 (Beijing)", True),
        ("", "Beijing (北京) is the capital", False),
        ("", "2018 😀", False),
        ("", "𠮷野家", True),
    ],
)
def test_the_language_is_the_rows_own_or_its_letters(lang: str, text: str, wanted: bool) -> None:
    assert reads_as_chinese(lang, text) is wanted

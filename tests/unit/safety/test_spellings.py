"""Spelled-out and spaced-out numbers and addresses: found, in the span as sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.spellings import unspell
from instructrec_deploy.text.normalize import lower_in_place
from tests.unit.safety import made_up as made

RNG = random.Random(20241212)
GUARD = Guard()
HAN = str.maketrans("0123456789", "零一二三四五六七八九")
FINANCIAL = str.maketrans("0123456789", "零壹貳叁肆伍陸柒捌玖")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def _positives() -> list[tuple[str, str, str]]:
    mobile, card, resident = made.cn_mobile(RNG), made.card(RNG), made.cn_id(RNG, check="1")
    return [
        ("电话{}", mobile.translate(HAN), "PHONE"),
        ("加我{}😀", made.grouped(mobile.translate(HAN), 3, 4, 4), "PHONE"),
        ("打{}", mobile[:5] + mobile[5:].translate(HAN), "PHONE"),
        ("手机{}", "幺" + mobile[1:].translate(HAN), "PHONE"),
        ("手机{}", "·".join(mobile), "PHONE"),
        ("手机{}", "_".join(mobile), "PHONE"),
        ("手机{}", made.grouped(mobile, 3, 4, 4, mark="/"), "PHONE"),
        ("手机{}", ", ".join(made.full_width(mobile)), "PHONE"),
        ("call me at {} ok", " ".join(NAMES[int(d)] for d in "2125550143"), "PHONE"),
        ("身份证{}", resident.translate(HAN), "CN_ID"),
        ("卡号{}", "*".join(card), "CREDIT_CARD"),
        ("mail {} now", "bob [at] mail.example.com", "EMAIL"),
        ("mail {} now", "bob at example dot com", "EMAIL"),
        ("邮箱{}，谢谢", "bob艾特example点com", "EMAIL"),
        ("邮箱{}，谢谢", "bob@example。com", "EMAIL"),
        ("mail {} now", "bob @ example . com", "EMAIL"),
        ("mail {} now", "bоb@еxаmple.com", "EMAIL"),  # Cyrillic letters
        ("手机{}", mobile.replace("0", "O").replace("1", "l"), "PHONE"),
        ("手機{}", mobile.translate(FINANCIAL), "PHONE"),
        ("手机{}", made.grouped(mobile.translate(HAN), 3, 4, 4, mark="，"), "PHONE"),
        ("手机{}", "♥".join(mobile), "PHONE"),
        ("手机{}", "、".join(mobile), "PHONE"),
        ("手机{}", made.grouped(mobile, 3, 4, 4, mark="杠"), "PHONE"),
        ("身份證{}", resident.translate(FINANCIAL), "CN_ID"),
        ("pay to {}, thanks", " ".join(made.iban(RNG)), "IBAN"),
        ("信用代码{}", " ".join(made.cn_uscc(RNG)), "CN_USCC"),
        ("mail {} now", "a n n . l e e @ m a i l . i o", "EMAIL"),
        ("text me: {}", "2 1 2 - 5 5 5 - 0 1 4 3", "PHONE"),
        ("my x {}", " ".join(mobile), "PHONE"),  # a letter before it hides no number
        ("call {} ok", "two one two 5 5 5 oh one four three", "PHONE"),
    ]


@pytest.mark.parametrize(("template", "value", "category"), _positives())
def test_a_hidden_value_is_found_in_its_exact_span(
    template: str, value: str, category: str
) -> None:
    text = template.format(value)
    findings = GUARD.check_input(text).verdict.findings
    assert [(f.category, text[f.start : f.end]) for f in findings] == [(category, value)]


@pytest.mark.parametrize(
    "text",
    [
        "一二三四五六七八九十",
        "1, 2, 3, 4, 5, 6, 7, 8, 9",
        "one two three four five six seven",
        "人民币 13,812,345,678",
        "we meet at noon dot",
        "看点电影，早上八点见",
        "look at this dot com bubble",
        "138****5678",
        "拨打110、119、120或12315",
        "part IOI-SOS-BOSS-110",
        "bill no. SOIl5OOZZ88 B00K",
        "grid a 1 b 2 c 3 d 4 e 5 f 6 g 7",
        "A B C D E F G and I @ home",
    ],
)
def test_plain_counting_and_plain_words_are_left_alone(text: str) -> None:
    findings = GUARD.check_input(text).verdict.findings
    assert findings == ()
    assert GUARD.check_input(text).text is text


@given(st.text(max_size=60) | st.text("0123一二·_ ,at[]@dotone five three", max_size=60))
def test_every_character_of_the_second_copy_has_a_place_in_the_first(text: str) -> None:
    plain = unspell(text, lower_in_place(text))
    if plain is None:
        return
    assert len(plain.text) == len(plain.starts)
    for i in range(len(plain.text)):
        start, end = plain.span(i, i + 1)
        assert 0 <= start < end <= len(text)
    assert list(plain.starts) == sorted(plain.starts)


def test_a_text_without_such_spellings_has_no_second_copy() -> None:
    text = "电话13812345678, call 212-555-0143"
    assert unspell(text, text) is None

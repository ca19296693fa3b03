"""Outlines: a quick look that never misses what the patterns find."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec_deploy.safety import personal_data
from instructrec_deploy.safety.match import scan
from instructrec_deploy.safety.outlines import Gate, Outline
from instructrec_deploy.safety.recognizers import phone
from instructrec_deploy.text.normalize import lower_in_place
from tests.unit.safety import made_up as made

RNG = random.Random(20251127)
DIGITS = "".join(RNG.choice("0123456789") for _ in range(40))
PIECES = [
    *(made.cn_mobile(RNG), made.cn_id(RNG), made.card(RNG), made.card(RNG, "37", 15)),
    *(made.iban(RNG), made.ipv4(RNG), "91350211M000100Y43", "AB 12 34 56 C", "X-1234567-L"),
    *("12345678Z", "RSSMRA85T10A562S", "085 55 0019", "212-555-0143", "(021) 6053-3447"),
    *("0755 2345 6789", "+44 (0)20 7946 0018", "+49 30 901820", "07911 123456", "2a00:1450::200e"),
    *("2 85 05 78 006 084 36", "12/345/678/903", "943 476 5919", "ssn ", "nhs ", "tel ", "税号"),
    *(
        "nino ",
        "dni ",
        "bsn ",
        "pesel ",
        "电话",
        "号",
        " ",
        "-",
        ".",
        "(",
        ")",
        "+",
        "/",
        "\n",
        "a",
    ),
    *("1", "0", "86", "x", "é", "😀", "１", DIGITS[:4], DIGITS[4:7], DIGITS[7:13], DIGITS[13:23]),
]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join))
def test_what_a_recognizer_finds_its_gate_lets_through(text: str) -> None:
    lower, outline = lower_in_place(text), Outline(text)
    n_digits = min(outline.n_digits, personal_data._MANY_DIGITS)
    for name, (_, find) in personal_data.RECOGNIZERS.items():
        if list(find(text, lower)):
            tried = personal_data._recognizers(frozenset([name]), n_digits)
            assert [gate.is_open(outline) for gate, _, _ in tried] == [True], name


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join))
def test_each_form_of_a_phone_number_passes_its_gate(text: str) -> None:
    for rule, pattern, accept in phone._FORMS:
        if any(scan(pattern, text, accept)):
            assert phone._STEMS[rule][1].is_open(Outline(text)), rule


@pytest.mark.parametrize(
    ("gate", "text", "is_open"),
    [
        (Gate(), "", True),
        (Gate(joined=(b"000",)), "1-2.3", True),
        (Gate(joined=(b"000",)), "1-2,3", False),
        (Gate(kinds=(b"a.0",)), "😀x.7", True),
        (Gate(kinds=(b"a.0",)), "号.7", False),
        (Gate(spaced=(b"00 00",)), "(12) - 34", True),
        (Gate(spaced=(b"00 00",)), "12\n34", False),
        (Gate(groups=(b"aa aa",)), "x1-2y", True),
    ],
)
def test_an_outline_says_what_a_text_is_made_of(gate: Gate, text: str, *, is_open: bool) -> None:
    assert gate.is_open(Outline(text)) is is_open

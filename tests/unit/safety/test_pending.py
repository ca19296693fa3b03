"""The open form of a pattern: each beginning of a match is held, what cannot go on is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructrec_deploy.safety.pending import Shape, open_form

PATTERNS = [
    r"(?<![0-9])1[3-9][0-9]{9}(?![0-9])",
    r"(?:ab|a(?:cd){2,3})e",
    r"x(?P<mark>[-.]?)y(?P=mark)z",
    r"(?P<open>\()?12(?(open)\)| )3",
    r"go(?= (?:left|right)).{1,3}",
    r"want to die(?! (?:of|for))",
    r"(?:[a-c]{1,3}_){0,3}key[:=]?",
    r"[傻沙]逼(?!例)",
    r"you (?:are|re) (?:all |just ){0,2}bad",
    r"[^\]\-a]{2}[\]^-]",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_each_beginning_of_a_match_is_open_until_it_is_decided(
    pattern: str, data: st.DataObject
) -> None:
    compiled = re.compile(pattern)
    text = data.draw(st.from_regex(compiled))
    found = compiled.search(text)
    assert found
    is_open = open_form(compiled)
    for end in range(found.start(), found.end()):
        assert is_open.match(text[:end], found.start())


@pytest.mark.parametrize(
    ("pattern", "text", "first"),
    [
        (PATTERNS[0], "tel 138123", 4),
        (PATTERNS[0], "tel 13812345678", 4),  # another digit would make it none
        (PATTERNS[0], "tel 13812345678.", 16),
        (PATTERNS[0], "tel 12", 6),
        (PATTERNS[5], "I want to die", 2),
        (PATTERNS[5], "I want to die o", 2),
        (PATTERNS[5], "I want to die here", 18),
        (PATTERNS[7], "一傻", 1),
        (PATTERNS[7], "一傻瓜", 3),
        (PATTERNS[3], "call (12", 5),
    ],
)
def test_what_cannot_become_a_match_is_not_held(pattern: str, text: str, first: int) -> None:
    assert Shape(re.compile(pattern)).first(text, 0) == first


def test_a_match_is_open_until_the_rule_has_read_what_stands_behind_it() -> None:
    shape = Shape(re.compile("[0-9]{3}"), after=4)
    assert shape.first("a 123 bc", 0) == 2
    assert shape.first("a 123 bcd", 0) == 9

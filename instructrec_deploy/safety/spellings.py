"""Undo spellings that hide a number or an address: 一三八…, one three eight, 1·3·8, bob [at] x.

Gives a second copy of a folded text to search, and the way back; nothing where nothing is spelled
so. Linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HAN = str.maketrans("〇零一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两", "0012345678911234567892")
_DIGIT = "[0-9〇零一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两]"
_ODD = r"·•*_|~\\/"  # marks that no written number has
# 7 digits at least: the shortest phone number. Two marks at most between them.
_RUN = re.compile(rf"{_DIGIT}(?:[ .\-,{_ODD}]{{0,2}}{_DIGIT}){{6,}}")
_NAMES = {"zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_NAMES |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_NAME = "|".join(_NAMES)
_NAME_RUN = re.compile(rf"(?<![a-z])(?:{_NAME})(?:[ ,.\-]{{1,2}}(?:{_NAME})){{6,}}(?![a-z])")
_NAME_ONE = re.compile(_NAME)
_AT = re.compile(
    r" ?[\[({<] ?(?:at|@|艾特) ?[\])}>] ?| ?艾特 ?"
    r"| at (?!(?:this|that|the|a|an|any|every|each|which) )"
    r"(?=[a-z0-9\-]{1,63}(?: dot | ?[\[({<] ?(?:dot|\.) ?[\])}>]| ?点))"
)
_DOT = re.compile(r" ?[\[({<] ?(?:dot|点|\.) ?[\])}>] ?| dot | ?点 ?(?=[a-z])")


@dataclass(frozen=True, slots=True)
class Unspelled:
    """A copy of a folded text, and where each of its characters stands there."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A non-empty half-open span of `text` as a span of the folded text."""
        return self.starts[start], self.ends[end - 1]


def unspell(text: str, lower: str) -> Unspelled | None:
    """The text with such spellings undone; None if there are none.

    Args:
        text: folded.
        lower: the same in lower case, of the same length.
    """
    edits = sorted((*_digit_edits(text), *_name_edits(lower), *_mark_edits(lower)))
    if not edits:
        return None
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    done = 0
    for start, end, new in edits:
        if start < done:
            continue
        parts += (text[done:start], new)
        starts += (*range(done, start), *([start] * len(new)))
        ends += (*range(done + 1, start + 1), *([end] * len(new)))
        done = end
    parts.append(text[done:])
    starts += range(done, len(text))
    ends += range(done + 1, len(text) + 1)
    return Unspelled("".join(parts), tuple(starts), tuple(ends))


Edit = tuple[int, int, str]  # [start, end) of the folded text becomes the string


def _digit_edits(text: str) -> Iterator[Edit]:
    """Han digits become digits; digits that stand apart are put together."""
    for run in _RUN.finditer(text):
        found = run[0]
        plain = found.translate(_HAN)
        is_apart = not re.search("[0-9]{2}", plain)
        marks = set(plain) - set("0123456789 .-")
        is_odd = len(marks) == 1 and marks <= set(_ODD.replace("\\\\", "\\"))
        if plain == found and not is_apart and not is_odd:
            continue
        for at, char in enumerate(plain, run.start()):
            if not char.isdecimal():
                if is_apart:
                    yield at, at + 1, ""
                elif is_odd and char in marks:
                    yield at, at + 1, "-"
            elif char != text[at]:
                yield at, at + 1, char


def _name_edits(lower: str) -> Iterator[Edit]:
    """English names of digits become digits."""
    if not ("one" in lower or "five" in lower or "three" in lower or "eight" in lower):
        return
    for run in _NAME_RUN.finditer(lower):
        done = run.start()
        for name in _NAME_ONE.finditer(lower, run.start(), run.end()):
            if name.start() > done:
                yield done, name.start(), ""
            yield name.start(), name.end(), _NAMES[name[0]]
            done = name.end()


def _mark_edits(lower: str) -> Iterator[Edit]:
    """`[at]`, `艾特` become @, and the dots spelled behind them dots."""
    if "at" not in lower and "艾特" not in lower and "@" not in lower:
        return
    done = 0
    for at in _AT.finditer(lower):
        if at.start() < done:
            continue
        yield at.start(), at.end(), "@"
        done = at.end()
        for dot in _DOT.finditer(lower, done, done + 80):
            yield dot.start(), dot.end(), "."
            done = dot.end()

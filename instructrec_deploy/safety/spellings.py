"""Undo spellings that hide a number or an address: 一三八…, one three eight, 1·3·8, bob [at] x.

Gives a second copy of a folded text to search, and the way back; nothing where nothing is spelled
so. Linear in the text's length.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import has_any


def keeping(chars: str) -> bytes:
    """A table for `keep_only`: which characters stay, all of them ASCII."""
    return bytes(chr(code) in chars and chr(code) != "?" for code in range(256))


_HAN_DIGITS = "〇零○一二三四五六七八九幺壹贰叁参肆伍陆柒捌玖两拐洞勾"
_HAN = str.maketrans(_HAN_DIGITS, "000123456789112334567892709")
_DIGIT = f"[0-9{_HAN_DIGITS}]"
_ODD = r"·•*_|~\\/杠"  # marks that no written number has
# 7 digits at least: the shortest phone number. Two marks at most between them; of one kind where
# they stand between all digits.
# One class, without digits: a mark that could be read in two ways would be tried in both, each of
# them twice as often as the one before, where more text is awaited (`pending`). 杠 is U+6760.
_BETWEEN = r"[^0-9A-Za-z\n\r\t()\[\]{}<>@%$¥€£〇○\u3040-\u675f\u6761-\u9fff]"
_RUN = re.compile(rf"{_DIGIT}(?:{_BETWEEN}{{0,2}}{_DIGIT}){{6,}}")
_IS_DIGIT = keeping(string.digits)
_TWO_DIGITS = bytes((1, 1))
_HAS_DIGIT = re.compile("[0-9]")
_ODD_MARKS = frozenset(_ODD.replace("\\\\", "\\"))
_PLAIN_MARKS = frozenset(" .,-")
_DIGITS = frozenset("0123456789")
# Letters in place of digits, in a run of digits that stands free: l38OO1380OO.
_LETTERS = str.maketrans("OoОоQIil|ІSsZzBЗзб", "000001111155228336")
_AS_DIGIT = "[0-9OoОоQIil|ІSsZzBЗзб]"
_LETTER_RUN = re.compile(
    rf"(?<![0-9A-Za-z])(?![Ii]s ){_AS_DIGIT}(?:[ .\-]?{_AS_DIGIT}){{6,30}}(?![0-9A-Za-z])"
)
_LETTER_NEAR_DIGIT = re.compile(
    r"[OoОоQIil|ІSsZzBЗзб](?:(?=[ .\-]?[0-9])|(?<=[0-9].)|(?<=[0-9][ .\-].))"
)
_NAMES = {"zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_NAMES |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_NAME = "|".join(_NAMES)
_NAME_RUN = re.compile(
    rf"(?<![a-z0-9])(?:{_NAME}|[0-9])(?:[ ,.\-/]{{0,2}}(?:{_NAME}|[0-9])){{6,}}(?![a-z0-9])"
)
_LETTER = re.compile("[a-z]")
_NAME_ONE = re.compile(f"{_NAME}|[0-9]")
# The first character, then by what it is the rest: so a search skips to where one may begin.
_AT = re.compile(
    r"[ \[({<#*艾@](?:(?<=[ \[({<#*])(?:(?<= )[\[({<#*]|(?<! )) ?(?:at|@|艾特) ?[\])}>#*] ?"
    r"|(?<=艾)特 ?|(?<= )(?:艾特 ?|@ (?=[a-z0-9\-]{1,63} \. )"
    r"|at (?!(?:this|that|the|a|an|any|every|each|which) )"
    r"(?=[a-z0-9\-]{1,63}(?: dot | ?[\[({<] ?(?:dot|\.) ?[\])}>]| ?点)))"
    r"|(?<=@)(?=[a-z0-9\-]{1,63}"
    r"(?: dot | ?[\[({<] ?(?:dot|点|\.) ?[\])}>]| ?点| ?[。丶·] ?[a-z]| \. [a-z])))"
)
# As for "@": the first character, then the rest by what it is.
_DOT_PATTERN = (
    r"[ \[({<#*点。丶·](?:(?<=[ \[({<#*])(?:(?<= )[\[({<#*]|(?<! )) ?(?:dot|点|\.) ?[\])}>#*] ?"
    r"|(?<= )(?:dot |点 ?(?=NEXT)|\. (?=NEXT)|(?<=[a-z0-9] )[。丶·] ?(?=NEXT))"
    r"|(?<=点) ?(?=NEXT)|(?<=[a-z0-9][。丶·]) ?(?=NEXT))"
)
_DOT = re.compile(_DOT_PATTERN.replace("NEXT", "[a-z]"))
# Dots spelled before such an "@", with what stands between them.
_LOCAL = r"[a-z0-9_%+\-]{1,32}"
_LOCAL_DOT = re.compile(_DOT_PATTERN.replace("NEXT", "[a-z0-9]"))
_DOT_SIGN = re.compile("[.点。丶·t](?:(?<!t)|(?<=dot))")  # each of these has one
_MAIL_END = re.compile(rf"{_DOT_SIGN.pattern}[ \])}}>#*]{{0,3}}[a-z]{{2}}")  # each address has one
_LOCAL_PART = re.compile(_LOCAL)
_LOCAL_TEXT = "abcdefghijklmnopqrstuvwxyz0123456789_%+-"
_LOCAL_CHARS = frozenset(_LOCAL_TEXT)
_DOT_ENDS = ".点。丶·t])}>#*"
_DOTTED_AT = re.compile(rf"(?:{_LOCAL}(?:{_LOCAL_DOT.pattern})){{1,3}}{_LOCAL}(?:{_AT.pattern})")
_BRACKETED_AT = re.compile(r"[\[({<#*] ?at ?[\])}>#*]")
_BRACKETED_DOT = re.compile(r"[\[({<] ?\.")
# Letters, digits and marks, each apart by a space: "D E 8 9 3 7 ...", "a n n @ x . i o".
_APART_CHAR = r"[0-9A-Za-z@._+\-]"
_APART_RUN = re.compile(
    rf"(?<![0-9A-Za-z@._+\-]){_APART_CHAR}(?: {_APART_CHAR}){{8,}}(?![0-9A-Za-z])"
)
_APART_HINT = re.compile(rf"[0-9@] (?:{_APART_CHAR} ){{2}}")  # each of them has one
_APART_DIGITS = 6  # of a number with letters or marks in it; others have an "@"
# What more text could turn into such a spelling.
SPELLING_SHAPES = (
    *(Shape(pattern) for pattern in (_RUN, _LETTER_RUN, _APART_RUN)),
    *(Shape(pattern, is_lower=True) for pattern in (_NAME_RUN, _AT, _DOT, _DOTTED_AT)),
)


Span = tuple[int, int]
_START = itemgetter(0)
SINGLE: Mapping[int, int] = MappingProxyType({})  # each character stands for one


@dataclass(frozen=True, slots=True)
class Unspelled:
    """A copy of a folded text, and where each of its characters stands there.

    `starts`: one for each character. `ends`: where one ends that stands for more than a single
    character, by where it starts.
    """

    text: str
    starts: Sequence[int]
    ends: Mapping[int, int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A non-empty half-open span of `text` as a span of the folded text."""
        last = self.starts[end - 1]
        return self.starts[start], self.ends.get(last, last + 1)

    def spans(self, spans: list[Span]) -> list[Span]:
        """Non-empty half-open spans of `text` as spans of the folded text."""
        starts, ends = self.starts, self.ends
        if isinstance(starts, range) and not ends:  # as leetspeak: every character in its place
            return spans
        return [(starts[a], ends.get(last := starts[b - 1], last + 1)) for a, b in spans]


class Edit(NamedTuple):  # cheap to make: a hostile text has thousands
    """[start, end) of a text becomes `new`.

    `starts` and `ends` say which part of the text a character of `new` stands for, as in a copy;
    without them a single one stands for all of it.
    """

    start: int
    end: int
    new: str
    starts: Sequence[int] = ()
    ends: Mapping[int, int] = SINGLE


def unspell(text: str, lower: str) -> Unspelled | None:
    """The text with such spellings undone; None if there are none.

    Args:
        text: folded.
        lower: the same in lower case, of the same length.
    """
    return apply_edits(text, _spelled(text, lower, is_whole=True))


def spelled(text: str, lower: str) -> list[Edit]:
    """What undoes the spellings of a text, by start; the parts may overlap."""
    return _spelled(text, lower, is_whole=False)


def put_together(text: str) -> Unspelled | None:
    """The folded text with what stands apart by single spaces put together; None if nothing does.

    A copy beside that of `unspell`: a letter before a number apart must not hide it there.
    """
    return apply_edits(text, apart(text)) if _APART_HINT.search(text) else None


def apart(text: str) -> list[Edit]:
    """What puts together codes and addresses that stand apart, by start."""
    new, edits = tuple.__new__, []
    for run in _APART_RUN.finditer(text):
        start, end = run.span()
        found = text[start:end:2]
        is_code = not found.isdigit() and sum(map(found.count, "0123456789")) >= _APART_DIGITS
        if is_code or ("@" in found and "." in found):
            edits.append(new(Edit, (start, end, found, range(start, end, 2), SINGLE)))
    return edits


def _spelled(text: str, lower: str, *, is_whole: bool) -> list[Edit]:
    edits = [*_digit_edits(text), *_letter_edits(text), *_name_edits(lower)]
    if _may_spell_at(lower) and not (is_whole and not _MAIL_END.search(lower)):
        edits += _mark_edits(lower)
    return sorted(edits, key=_START)


def apply_edits(text: str, edits: Iterable[Edit]) -> Unspelled | None:
    """The text with edits made, sorted by start, the first of two that overlap; None if none."""
    parts: list[str] = []
    starts: list[int] = []
    ends: dict[int, int] = {}
    done = 0
    for start, end, new, places, wide in edits:
        if start < done:
            continue
        parts += (text[done:start], new)
        starts += range(done, start)
        if places:
            starts += places
            ends.update(wide)
        elif new:
            starts.append(start)
            ends[start] = end
        done = end
    if not parts:
        return None
    parts.append(text[done:])
    starts += range(done, len(text))
    return Unspelled("".join(parts), starts, ends)


def in_place(start: int, new: str) -> Edit:
    """An edit that changes characters one by one."""
    end = start + len(new)
    return Edit(start, end, new, range(start, end))


def keep_only(start: int, text: str, keep: bytes) -> Edit:
    """An edit that drops from `text`, which stands at `start`, all characters but these."""
    kept = text.encode("ascii", "replace").translate(keep)
    end = start + len(text)
    return Edit(start, end, "".join(compress(text, kept)), [*compress(range(start, end), kept)])


def _digit_edits(text: str) -> Iterator[Edit]:
    """Han digits become digits; digits that stand apart are put together."""
    if text.isascii() and not _HAS_DIGIT.search(text):
        return
    for run in _RUN.finditer(text):
        found = run[0]
        plain = found if found.isascii() else found.translate(_HAN)
        marks = frozenset(plain) - _DIGITS
        odd = marks - _PLAIN_MARKS
        if marks and _TWO_DIGITS not in plain.encode("ascii", "replace").translate(_IS_DIGIT):
            if len(odd) <= 1:
                yield keep_only(run.start(), plain, _IS_DIGIT)
        elif len(odd) == 1 and odd <= _ODD_MARKS and len(marks) == 1:
            yield in_place(run.start(), plain.replace(next(iter(odd)), "-"))
        elif plain is not found and not odd:
            yield in_place(run.start(), plain.replace(",", "-"))


def _letter_edits(text: str) -> Iterator[Edit]:
    """O, l and their like become digits in a number with four digits and about as many letters."""
    if not (_HAS_DIGIT.search(text) and _LETTER_NEAR_DIGIT.search(text)):
        return
    for run in _LETTER_RUN.finditer(text):
        plain = run[0].translate(_LETTERS)
        if plain == run[0]:
            continue
        n_digits = sum(map(run[0].count, "0123456789"))
        n_letters = sum(map(plain.count, "0123456789")) - n_digits
        if n_digits >= 4 and 0 < n_letters <= n_digits + 2:
            yield in_place(run.start(), plain)


def _name_edits(lower: str) -> Iterator[Edit]:
    """English names of digits become digits."""
    if not (_LETTER.search(lower) and has_any(_NAMES, lower)):
        return
    for run in _NAME_RUN.finditer(lower):
        if _LETTER.search(run[0]):
            names = list(_NAME_ONE.finditer(lower, run.start(), run.end()))
            new = "".join([_NAMES.get(name[0], name[0]) for name in names])
            ends = {name.start(): name.end() for name in names}
            yield Edit(run.start(), run.end(), new, [*ends], ends)


def _mark_edits(lower: str) -> list[Edit]:
    """`[at]`, `艾特` become @, and the dots spelled around them dots."""
    ats = [found.span() for found in _AT.finditer(lower)]
    if not ats:
        return []
    dots = [found.span() for found in _DOT.finditer(lower)] if _DOT_SIGN.search(lower) else []
    behind_all = (len(lower), len(lower))
    ats.append(behind_all)
    dots.append(behind_all)
    new, edits = tuple.__new__, []
    done = first = 0
    for (start, stop), (end, _) in pairwise(ats):
        floor = max(done, start - reach.MAIL_NAME)
        # What ends before the name's last part, where that is a dot: a quick look.
        before = lower[floor:start].rstrip(_LOCAL_TEXT).rstrip(" ")
        if before and before[-1] in _DOT_ENDS:
            is_spaced = lower[start:stop] == " @ "
            spelled_dots = _local_dots(lower, floor, start, is_spaced=is_spaced)
            edits += [Edit(*dot, ".") for dot in spelled_dots]
        if stop - start > 1 or lower[start] != "@":
            edits.append(new(Edit, (start, stop, "@", (), SINGLE)))
        done = stop
        far = min(end, stop + reach.MAIL_DOTS)
        while dots[first][0] < stop:
            first += 1
        last = first
        while dots[last][0] < far:
            last += 1
        own = dots[first:last]
        if (first and dots[first - 1][1] > stop) or (own and own[-1][1] > far):  # cut by a border
            own = [found.span() for found in _DOT.finditer(lower, stop, far)]
        for begin, behind in own:
            edits.append(new(Edit, (begin, behind, ".", (), SINGLE)))
    return edits


def _local_dots(lower: str, floor: int, end: int, *, is_spaced: bool) -> Iterator[Span]:
    """The dots spelled before an "@" at `end`, from there back to where the name begins."""
    for dot in [*_LOCAL_DOT.finditer(lower, floor, end)][::-1]:
        start, stop = dot.span()
        begins = start > floor and lower[start - 1] in _LOCAL_CHARS
        if not begins or not _LOCAL_PART.fullmatch(lower, stop, end):
            return
        if dot[0] == " . " and not is_spaced:  # the end of a sentence
            return
        yield start, stop
        end = start


def _may_spell_at(lower: str) -> bool:
    """Whether a text may hold what `_AT` looks for: a quick look before it."""
    if "@" in lower or "艾特" in lower:
        return True
    if "at" not in lower:
        return False
    if " at " in lower and ("dot" in lower or "点" in lower or _BRACKETED_DOT.search(lower)):
        return True
    return _BRACKETED_AT.search(lower) is not None

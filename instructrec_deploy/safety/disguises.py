"""Undo spellings that hide a word: leetspeak (sh1t), letters apart (f u c k), fuuuck, 傻*逼.

Gives second copies of a folded text in lower case for the word list, each with the way back.
Linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, groupby
from operator import attrgetter, itemgetter

from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import has_any
from instructrec_deploy.safety.spellings import (
    SINGLE,
    Edit,
    Span,
    Unspelled,
    apply_edits,
    keep_only,
    keeping,
)

# One sign, one letter: every offset stays. 1 is an i in one copy and an l in the other.
_LEET = str.maketrans("01345789@$€", "oieastbgase")
_LEET_L = _LEET | {ord("1"): ord("l")}
_INNER = str.maketrans("!|+", "iit")
# Letters or digits of leetspeak with marks between them, also with marks that only stand inside.
_MIXED = re.compile(r"[a-z][0-9@$!|+€]|[0-9@$!|+€][a-z]")
_INNER_MARK = re.compile(r"(?<=[a-z0-9$@])[!|+](?=[a-z0-9$@])")
_LETTER = "[a-z@$]"
_APART_MARKS = " .,-_*~·•|/\\+"
_APART = re.compile(
    rf"{_LETTER}(?<![a-z0-9@$].)(?:[{re.escape(_APART_MARKS)}]{{1,2}}{_LETTER}){{2,}}(?![a-z0-9@$])"
)
_PUT_TOGETHER = {ord(mark): None for mark in _APART_MARKS} | {ord("@"): "a", ord("$"): "s"}
_LONG = re.compile(r"([a-z])\1{2,}")
# What each of these holds: quick looks before the patterns. In the outline a letter of _LETTER
# is an a, a digit a 0, a mark between letters a space; what is not ASCII may be a mark.
_OUTLINE = bytes(
    0x61
    if chr(code) in "abcdefghijklmnopqrstuvwxyz@$"
    else 0x30
    if chr(code) in "0123456789"
    else 0x20
    if chr(code) in " .,-_*~|/\\+?"
    else 0x21
    for code in range(256)
)
_APART_INSIDE = b" a "
_TRIPLES = tuple(letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz")
_LATIN_MARKS = "*_·•~^|`\\"
_LEET_MARKS = "0123456789@$!|+€"
_LATIN_MARK = r"[*_·•~^|`\\]"
_HAN_MARK = r"[ .,\-*_·•~^|/\\+#@&]"
_HAN = "[\u4e00-\u9fff]"
# Marks between two letters, or two Han characters. A mark first, then what must stand before it:
# so a search skips to where marks are.
_LATIN_GAP = re.compile(rf"{_LATIN_MARK}(?<=[a-z].){_LATIN_MARK}?(?=[a-z])")
_HAN_GAP = re.compile(rf"{_HAN_MARK}(?<={_HAN}.){_HAN_MARK}{{0,2}}(?={_HAN})")
# The same with what stands before them, in stretches.
_LATIN_MARKED = rf"(?:[a-z]{_LATIN_MARK}{{1,2}}){{1,32}}(?=[a-z])"
_HAN_MARKED = rf"(?:{_HAN}{_HAN_MARK}{{1,3}}){{1,32}}(?={_HAN})"
_LATIN_STRETCH, _HAN_STRETCH = map(re.compile, (_LATIN_MARKED, _HAN_MARKED))
_MARKED = re.compile(f"{_LATIN_MARKED}|{_HAN_MARKED}")
# What more text could turn into such a spelling.
DISGUISE_SHAPES = tuple(map(Shape, (_APART, _LONG, _MARKED, _INNER_MARK)))
_START = attrgetter("start")
_LETTERS = keeping("abcdefghijklmnopqrstuvwxyz@$")
# Words that stand beside those of the list when a sentence is spelled letter by letter.
_COMMON_WORDS = """
a an the i u you your we he she they him her them it is are am was will shall would should can could
to of in on at and or so just not no do does did have has had go going gonna wanna want be been all
every one this that what my me our whole family up down off out people such
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_DOUBLES = frozenset("ls")  # killll, asssshole: letters that the list's words have twice


@dataclass(frozen=True, slots=True)
class Plain:
    """A copy of a text with spellings undone."""

    copy: Unspelled
    leet: str = ""  # what the copy was before it was read as leetspeak, of the same length

    def spelled(self, spans: list[Span]) -> list[Span]:
        """Those of the copy's spans that are spelled so themselves, whatever stands elsewhere."""
        if not self.leet:
            return spans
        parts = [self.leet[start:end] for start, end in spans]
        mixed = {part for part in set(parts) if _is_mixed(part)}
        return [span for span, part in zip(spans, parts, strict=True) if part in mixed]


def _is_mixed(part: str) -> bool:
    """Whether a part of a text in lower case has letters beside digits or marks of leetspeak."""
    if part.isascii() and part.isalnum():
        return not part.isalpha() and not part.isdecimal()
    return _MIXED.search(part) is not None


def undisguise(
    text: str, words: frozenset[str], *, is_open: bool = False, has_han: bool = True
) -> Iterator[Plain]:
    """Copies of the text with such spellings undone; none where nothing is spelled so.

    Args:
        text: folded, in lower case.
        words: triggers of the word list; what is spelled apart is cut into them.
        is_open: the text goes on, so that a digit at its end may begin a word.
        has_han: whether marks between Han characters matter.
    """
    plain = apply_edits(text, _copy_edits(text, words, has_han=has_han))
    if plain is not None:
        yield Plain(plain)
    copy = plain.text if plain is not None else text
    if not (is_open or (has_any(_LEET_MARKS, copy) and _MIXED.search(copy))):
        return
    starts = plain.starts if plain is not None else range(len(text))
    ends = plain.ends if plain is not None else SINGLE
    has_inner = has_any("!|+", copy)
    letters = _INNER_MARK.sub(lambda mark: mark[0].translate(_INNER), copy) if has_inner else copy
    yield Plain(Unspelled(letters.translate(_LEET), starts, ends), copy)
    if "1" in letters:
        yield Plain(Unspelled(letters.translate(_LEET_L), starts, ends), copy)


def disguised(text: str, words: frozenset[str]) -> list[Edit]:
    """What undoes the disguises that change a text's length, by start; the parts may overlap."""
    gaps = (_LATIN_GAP,) if text.isascii() else (_LATIN_GAP, _HAN_GAP)
    edits = [*_word_edits(text, words), *(edit for gap in gaps for edit in _gap_edits(gap, text))]
    return sorted(edits, key=_START)


def _copy_edits(text: str, words: frozenset[str], *, has_han: bool) -> list[Edit]:
    """The same, with as few edits as may be: gaps that follow each other are one."""
    edits = [*_word_edits(text, words)]
    if has_any(_LATIN_MARKS, text):
        # Where words are edited, too, a stretch could overlap them.
        latin = _gap_edits(_LATIN_GAP, text) if edits else _stretch_edits(_LATIN_STRETCH, text)
        edits += latin
    if has_han and not text.isascii():
        edits += _stretch_edits(_HAN_STRETCH, text)
    edits.sort(key=_START)
    return edits


def _word_edits(text: str, words: frozenset[str]) -> Iterator[Edit]:
    if _APART_INSIDE in text.encode("ascii", "replace").translate(_OUTLINE):
        has_word = _listed(words).search
        for run in _APART.finditer(text):
            letters = run[0].translate(_PUT_TOGETHER)
            if has_word(letters):
                yield _cut(keep_only(run.start(), run[0], _LETTERS), run.end(), letters, words)
    if not has_any(_TRIPLES, text):
        return
    for run in _LONG.finditer(text):
        letter, (start, end) = run[1], run.span()
        if letter in _DOUBLES:
            yield Edit(start, end, letter * 2, (start, start + 1), {start + 1: end})
        else:
            yield Edit(start, end, letter)


def _gap_edits(gap: re.Pattern[str], text: str) -> Iterator[Edit]:
    for marks in gap.finditer(text):
        yield Edit(marks.start(), marks.end(), "")


def _stretch_edits(stretch: re.Pattern[str], text: str) -> Iterator[Edit]:
    for run in stretch.finditer(text):
        start, end = run.span()
        kept = [*map(str.isalnum, run[0])]
        new = "".join(compress(run[0], kept))
        yield Edit(start, end, new, [*compress(range(start, end), kept)])


def _cut(whole: Edit, end: int, letters: str, words: frozenset[str]) -> Edit:
    """Letters put together, with a space before and behind each word that is known.

    `whole` is the edit that only puts them together, `letters` what they stand for.
    """
    pieces = _known(words).split(letters)  # other letters and known words in turn
    pieces[::2] = [piece.replace("i", "i ").replace("u", "u ").strip() for piece in pieces[::2]]
    new = " ".join(filter(None, pieces))
    starts: list[int] = []
    done = 0  # letters
    for word in new.split(" "):
        starts += whole.starts[done : done + len(word)]
        starts.append(starts[-1])  # of the space behind it
        done += len(word)
    return Edit(whole.start, end, new, starts[:-1])


@lru_cache(maxsize=4)
def _listed(words: frozenset[str]) -> re.Pattern[str]:
    """A pattern of the words of the list: letters without one are put together for nothing."""
    return re.compile(_trie(sorted(words)) or "(?!)")


@lru_cache(maxsize=4)
def _known(words: frozenset[str]) -> re.Pattern[str]:
    """The words that letters are put together to: at each place the longest."""
    return re.compile(f"({_trie(sorted(word for word in words | _COMMON if len(word) > 1))})")


def _trie(words: list[str]) -> str:
    """A pattern of sorted words, shared beginnings written once: tried letter by letter."""
    rest = [word for word in words if word]
    branches = [
        re.escape(first) + _trie([word[1:] for word in same])
        for first, same in groupby(rest, key=itemgetter(0))
    ]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)}){'?' if len(rest) < len(words) else ''}"

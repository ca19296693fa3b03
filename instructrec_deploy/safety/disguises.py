"""Undo spellings that hide a word: leetspeak (sh1t), letters apart (f u c k), fuuuck, 傻*逼.

Gives second copies of a folded text in lower case for the word list, each with the way back.
Linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from operator import itemgetter

from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.spellings import SINGLE, Edit, Unspelled, apply_edits, keep_only

# One sign, one letter: every offset stays. 1 is an i in one copy and an l in the other.
_LEET = str.maketrans("01345789@$€", "oieastbgase")
_LEET_L = _LEET | {ord("1"): ord("l")}
_INNER = str.maketrans("!|+", "iit")
# Letters or digits of leetspeak with marks between them, also with marks that only stand inside.
_MIXED = re.compile(r"[a-z][0-9@$!|+€]|[0-9@$!|+€][a-z]")
_INNER_MARK = re.compile(r"(?<=[a-z0-9$@])[!|+](?=[a-z0-9$@])")
_LETTER = "[a-z@$]"
_APART = re.compile(
    rf"{_LETTER}(?<![a-z0-9@$].)(?:[ .,\-_*~·•|/\\+]{{1,2}}{_LETTER}){{2,}}(?![a-z0-9@$])"
)
_LONG = re.compile(r"([a-z])\1{2,}")
_LATIN_MARKS = r"[*_·•~^|`\\]{1,2}"
_HAN_MARKS = r"[ .,\-*_·•~^|/\\+#@&]{1,3}"
_MARKS = re.compile(  # between two letters, or two Han characters
    rf"(?<=[a-z]){_LATIN_MARKS}(?=[a-z])"
    rf"|(?<=[\u4e00-\u9fff]){_HAN_MARKS}(?=[\u4e00-\u9fff])"
)
_MARKED = re.compile(  # with what stands before them, in stretches
    rf"(?:[a-z]{_LATIN_MARKS}){{1,32}}(?=[a-z])"
    rf"|(?:[\u4e00-\u9fff]{_HAN_MARKS}){{1,32}}(?=[\u4e00-\u9fff])"
)
# What more text could turn into such a spelling.
DISGUISE_SHAPES = tuple(map(Shape, (_APART, _LONG, _MARKED, _INNER_MARK)))
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz@$")
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

    def is_spelled(self, start: int, end: int) -> bool:
        """Whether [start, end) of the copy is spelled so itself, whatever stands elsewhere."""
        return not self.leet or _MIXED.search(self.leet, start, end) is not None


def undisguise(text: str, words: frozenset[str], *, is_open: bool = False) -> Iterator[Plain]:
    """Copies of the text with such spellings undone; none where nothing is spelled so.

    Args:
        text: folded, in lower case.
        words: triggers of the word list; what is spelled apart is cut into them.
        is_open: the text goes on, so that a digit at its end may begin a word.
    """
    plain = apply_edits(text, disguised(text, words))
    if plain is not None:
        yield Plain(plain)
    copy = plain.text if plain is not None else text
    if not (is_open or _MIXED.search(copy)):
        return
    starts = plain.starts if plain is not None else range(len(text))
    ends = plain.ends if plain is not None else SINGLE
    letters = _INNER_MARK.sub(lambda mark: mark[0].translate(_INNER), copy)
    yield Plain(Unspelled(letters.translate(_LEET), starts, ends), copy)
    if "1" in letters:
        yield Plain(Unspelled(letters.translate(_LEET_L), starts, ends), copy)


def disguised(text: str, words: frozenset[str]) -> list[Edit]:
    """What undoes the disguises that change a text's length, by start; the parts may overlap."""
    return sorted(_edits(text, words), key=lambda edit: edit.start)


def _edits(text: str, words: frozenset[str]) -> Iterator[Edit]:
    for run in _APART.finditer(text):
        whole = keep_only(run.start(), run[0], _LETTERS)
        yield _cut(whole, run.end(), words)
    for run in _LONG.finditer(text):
        new = run[1] * (2 if run[1] in _DOUBLES else 1)
        starts = range(run.start(), run.start() + len(new))
        yield Edit(run.start(), run.end(), new, starts, {starts[-1]: run.end()})
    for marks in _MARKS.finditer(text):
        yield Edit(marks.start(), marks.end(), "", ())


def _cut(whole: Edit, end: int, words: frozenset[str]) -> Edit:
    """Letters put together, with a space before and behind each word that is known."""
    letters = whole.new.replace("@", "a").replace("$", "s")
    pieces = _known(words).split(letters)  # other letters and known words in turn
    pieces[::2] = [piece.replace("i", "i ").replace("u", "u ").strip() for piece in pieces[::2]]
    new = " ".join(filter(None, pieces))
    counts = accumulate(map(" ".__ne__, new))  # of letters up to here
    return Edit(whole.start, end, new, [whole.starts[count - 1] for count in counts])


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

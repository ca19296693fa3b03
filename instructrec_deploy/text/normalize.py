"""Fold a text for detection, offsets kept.

Unified are width and compatibility forms, letters that look Latin, traditional Chinese; invisible
characters fall away. The folded copy is only ever searched: what is reported, masked or sent on is
the original, found again through the offsets.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat

from instructrec_deploy.text.look_alikes import read_as_latin
from instructrec_deploy.text.traditional import SIMPLIFIED

# Folds of one character to one character: they leave every offset where it was.
_SAME_LENGTH = {
    **SIMPLIFIED,
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
    **dict.fromkeys((0x3000, 0x00A0, 0x2002, 0x2003, 0x2007, 0x2009, 0x200A, 0x202F), 0x20),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0x2043), 0x2D),  # dashes and minus
    **dict.fromkeys((0x2018, 0x2019, 0x02BC, 0x00B4), 0x27),  # apostrophes
    **{zero + i: 0x30 + i for zero in (0x0660, 0x06F0, 0x0966) for i in range(10)},  # digits
}
# Characters without a width of their own: zero-width, bidi controls, fillers, combining marks,
# variation selectors, tags. Put between two digits they hide a number from every pattern.
_MARKS = "\u0300-\u036f\u20d0-\u20ff\ufe00-\ufe0f\U000e0100-\U000e01ef"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    f"\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f{_MARKS}]"
)
# All but ASCII, Han, kana and Hangul syllables, which no compatibility form changes.
_MAY_CHANGE = re.compile(
    "[^\\x00-\\x7f\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]"
)
_TRAILING_MARKS = re.compile(f"[{_MARKS}]*")


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded copy and the way back.

    `origins` is empty where every offset is its own; otherwise origins[i] is the index in `source`
    of the character that gave text[i].
    """

    source: str
    text: str
    origins: tuple[int, ...] = ()

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A non-empty half-open span of `text` as a span of `source`, in code points.

        Marks that sit on the last character (a keycap, an accent) belong to the span.
        """
        if not self.origins:
            return start, end
        last = self.origins[end - 1] + 1
        marks = _TRAILING_MARKS.match(self.source, last)
        return self.origins[start], marks.end() if marks else last


def fold(text: str) -> Folded:
    """Fold compatibility forms (NFKC, a character at a time), look-alikes and traditional Chinese.

    Case stays as it is. Linear in the text's length; an ASCII text is its own folded copy.
    """
    if text.isascii():
        return Folded(text, text)
    quick = text.translate(_SAME_LENGTH)
    if unicodedata.is_normalized("NFKC", quick) and not _INVISIBLE.search(quick):
        return Folded(text, read_as_latin(quick))
    table = {char: _plain(char) for char in set(quick) if _MAY_CHANGE.match(char)}
    folded = quick.translate({ord(char): plain for char, plain in table.items()})
    if len(folded) == len(quick) and all(len(plain) == 1 for plain in table.values()):
        return Folded(text, read_as_latin(folded))
    sizes = {char: len(table.get(char, char)) for char in set(quick)}
    repeated = map(repeat, range(len(quick)), map(sizes.__getitem__, quick))
    return Folded(text, read_as_latin(folded), tuple(chain.from_iterable(repeated)))


@lru_cache(maxsize=1 << 16)  # all of the basic plane
def _plain(char: str) -> str:
    """What a character is folded to: "" where it is invisible."""
    if _INVISIBLE.match(char):
        return ""
    plain = unicodedata.normalize("NFKC", char)
    return _INVISIBLE.sub("", plain).translate(_SAME_LENGTH)


def lower_in_place(text: str) -> str:
    """Lower case of the same length, so that offsets stay ("İ" would become two characters)."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)

"""Fold a text for detection, offsets kept.

Unified are width and compatibility forms, letters that look Latin, traditional Chinese; invisible
characters fall away. The folded copy is only ever searched: what is reported, masked or sent on is
the original, found again through the offsets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain, compress, repeat

from instructrec_deploy.text.look_alikes import mapped, may_look_latin, read_as_latin
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
# Stretches of all but ASCII, kana, Hangul syllables and simplified Han, which stay as they are.
_MAY_CHANGE = re.compile(
    "[\x80-\u3040\u3097-\u30a0\u30fb-\u33ff\u4dc0-\u4dff\ua000-\uabff\ud7a4-\uffff"
    f"\U00010000-\U0010ffff{''.join(map(chr, SIMPLIFIED))}]+"
)
_TRAILING_MARKS = re.compile(f"[{_MARKS}]*")


class Folded:
    """A folded copy and the way back.

    Attributes:
        source: the text as sent.
        text: the copy.
    """

    __slots__ = ("_origins", "_sizes", "source", "text")

    def __init__(self, source: str, text: str, sizes: Mapping[str, int] | None = None) -> None:
        self.source = source
        self.text = text
        self._sizes = sizes  # of what a character became, where that is not 1
        self._origins: tuple[int, ...] = ()

    @property
    def is_aligned(self) -> bool:
        """Whether every offset is its own."""
        return not self._sizes

    @property
    def origins(self) -> tuple[int, ...]:
        """The index in `source` of the character that gave text[i]; empty where aligned."""
        if self._sizes and not self._origins:  # seldom asked for, so made then
            self._origins = _origins(self.source, self._sizes)
        return self._origins

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A non-empty half-open span of `text` as a span of `source`, in code points.

        Marks that sit on the last character (a keycap, an accent) belong to the span.
        """
        if not self._sizes:
            return start, end
        origins = self.origins
        last = origins[end - 1] + 1
        marks = _TRAILING_MARKS.match(self.source, last)
        return origins[start], marks.end() if marks else last


def fold(text: str) -> Folded:
    """Fold compatibility forms (NFKC, a character at a time), look-alikes and traditional Chinese.

    Case stays as it is. Linear in the text's length; an ASCII text is its own folded copy.
    """
    if text.isascii():
        return Folded(text, text)
    chars = set("".join(_MAY_CHANGE.findall(text)))
    plain = {char: _plain(char) for char in chars}
    table = {char: new for char, new in plain.items() if new != char}
    folded = mapped(text, table)
    if may_look_latin("".join(plain.values())):
        folded = read_as_latin(folded)
    return Folded(text, folded, {char: n for char, new in table.items() if (n := len(new)) != 1})


def _origins(source: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    counts = map(sizes.get, source, repeat(1))
    if max(sizes.values()) == 0:
        return tuple(compress(range(len(source)), counts))
    return tuple(chain.from_iterable(map(repeat, range(len(source)), counts)))


@lru_cache(maxsize=1 << 16)  # all of the basic plane
def _plain(char: str) -> str:
    """What a character is folded to: "" where it is invisible."""
    if _INVISIBLE.match(char):
        return ""
    plain = unicodedata.normalize("NFKC", char.translate(_SAME_LENGTH))
    return _INVISIBLE.sub("", plain).translate(_SAME_LENGTH)


def lower_in_place(text: str) -> str:
    """Lower case of the same length, so that offsets stay ("İ" would become two characters)."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)

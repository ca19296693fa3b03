"""What kinds of characters a text is made of: bytes that are searched much faster than a pattern.

A recognizer names what the outline of each of its values holds; where a text's outline has none of
it, the recognizer's patterns need not be tried. Linear in the text's length, a few microseconds for
a short text.
"""

from __future__ import annotations

import string
from typing import NamedTuple

_KINDS = bytes(
    0x30 if chr(code) in string.digits else 0x61 if chr(code) in string.ascii_letters else code
    for code in range(256)
)
_BETWEEN = b" .-()/"  # what may stand between the groups of a number
_WORDS = bytes(  # letters and digits alike, one mark between groups
    0x61 if chr(code) in string.digits + string.ascii_letters else 0x20 if code == 0x2D else code
    for code in range(256)
)


_SPACES = bytes(  # a white space that is none of them is no space here
    0x20 if chr(code) in " .-" else 0x3F if chr(code).isspace() else code for code in range(256)
)


class Outline:
    """The outlines of one text.

    Attributes:
        kinds: a byte for each character: 0 for a digit, a for a letter of ASCII, other ASCII as it
            is, ? for all else.
        joined: the same without what may stand between groups.
        n_digits: how many digits of ASCII the text has.
    """

    __slots__ = ("_spaced", "joined", "kinds", "n_digits")

    def __init__(self, text: str) -> None:
        self.kinds = text.encode("ascii", "replace").translate(_KINDS)
        self.n_digits = self.kinds.count(b"0")
        self.joined = self.kinds.translate(None, _BETWEEN) if self.n_digits else b""
        self._spaced: bytes | None = None

    @property
    def spaced(self) -> bytes:
        """As `kinds`, one space for any points, dashes and spaces, and no brackets."""
        if self._spaced is None:
            self._spaced = b" ".join(self.kinds.translate(_SPACES, b"()").split())
        return self._spaced


class Gate(NamedTuple):
    """What the outline of a text must hold for a recognizer to be tried: any of all these.

    joined: without separators. kinds: as written. spaced: with one kind of separator. groups: as
    written, digits counted as letters and dashes as spaces. Empty throughout: nothing.
    """

    joined: tuple[bytes, ...] = ()
    kinds: tuple[bytes, ...] = ()
    groups: tuple[bytes, ...] = ()
    spaced: tuple[bytes, ...] = ()

    def is_open(self, outline: Outline) -> bool:
        """Whether a text with this outline is worth a look."""
        for part in self.joined:
            if part in outline.joined:
                return True
        for part in self.kinds:
            if part in outline.kinds:
                return True
        for part in self.spaced:
            if part in outline.spaced:
                return True
        if not self.groups:
            return not (self.joined or self.kinds or self.spaced)
        words = outline.kinds.translate(_WORDS)
        for part in self.groups:  # noqa: SIM110 - `any` with a generator takes twice as long
            if part in words:
                return True
        return False

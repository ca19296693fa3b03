"""The tags of a token-classification head, and the entities that a row of them spells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

OUTSIDE = "O"
PREFIXED = re.compile(r"([BIESLUM])[-_](.+)", re.DOTALL)
SAME = {"L": "E", "U": "S", "M": "I"}  # BILOU and BMES in the letters of BIOES
Place = Literal["first", "inner", "last", "single"]  # of a word in its entity
PLACES: dict[tuple[bool, bool], Place] = {
    (True, True): "single",
    (True, False): "first",
    (False, True): "last",
    (False, False): "inner",
}
# What says it, the first letter that the scheme has.
LETTERS: dict[Place, str] = {"first": "BI", "inner": "IB", "last": "EIB", "single": "SBI"}


@dataclass(frozen=True, slots=True)
class TagScheme:
    """The tags of a head, in the order of its logits, taken apart.

    `marks` are B, I, E or S, and O outside of entities; a tag without such a letter ("PER" in a
    head of plain labels) is an I. `kinds` are the types, "" outside.
    """

    tags: tuple[str, ...]
    marks: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, tags: Sequence[str]) -> TagScheme:
        """Read a head's labels: IOB, IOB2, BIOES, BILOU, BMES, or plain ones."""
        found = [PREFIXED.fullmatch(tag) for tag in tags]
        is_plain = any(
            f is None and not _is_outside(tag) for f, tag in zip(found, tags, strict=True)
        )
        marks, kinds = [], []
        for tag, match in zip(tags, found, strict=True):
            if _is_outside(tag):
                mark, kind = OUTSIDE, ""
            elif match is None or is_plain:
                mark, kind = "I", tag
            else:
                mark, kind = SAME.get(match[1], match[1]), match[2]
            marks.append(mark)
            kinds.append(kind)
        return cls(tuple(tags), tuple(marks), tuple(kinds))

    @property
    def types(self) -> tuple[str, ...]:
        """What it finds, in the order of the tags."""
        return tuple(dict.fromkeys(kind for kind in self.kinds if kind))

    @property
    def outside(self) -> int | None:
        """The tag of words in no entity; None in a head where each word has a type."""
        return self.marks.index(OUTSIDE) if OUTSIDE in self.marks else None

    def tag(self, kind: str, place: Place) -> int | None:
        """The tag of a word of an entity; None where the head does not know the type."""
        known = {
            m: i for i, (m, k) in enumerate(zip(self.marks, self.kinds, strict=True)) if k == kind
        }
        return next((known[letter] for letter in LETTERS[place] if letter in known), None)

    def chunks(self, tags: Sequence[int]) -> list[tuple[int, int, str]]:
        """The entities of a row of tags: (first word, last word, type).

        As seqeval reads them in its default mode, which is conlleval's: a type that begins with an
        I begins an entity, and a B or an S always does; an E or an S ends one.
        """
        found: list[tuple[int, int, str]] = []
        mark, kind = OUTSIDE, ""
        for place, tag in enumerate(tags):
            before, kind_before = mark, kind
            mark, kind = self.marks[tag], self.kinds[tag]
            if mark == OUTSIDE:
                continue
            goes_on = before not in (OUTSIDE, "E", "S") and mark in "IE" and kind == kind_before
            first = found.pop()[0] if goes_on else place
            found.append((first, place, kind))
        return found


def fresh_tags(types: Sequence[str]) -> tuple[str, ...]:
    """IOB2 tags for a head that is made anew."""
    return (OUTSIDE, *(f"{mark}-{kind}" for kind in types for mark in "BI"))


def _is_outside(tag: str) -> bool:
    return tag.upper() == OUTSIDE

"""What a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """The question for an error: `did you mean 'one' or 'another'?`; "" where nothing is near.

    Args:
        word: as it was written.
        known: the names there are.
        most: how many are named.
        cutoff: how alike a name must be, 0 to 1 (Ratcliff and Obershelp, as difflib has it).
    """
    near = difflib.get_close_matches(word, list(known), most, cutoff)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""

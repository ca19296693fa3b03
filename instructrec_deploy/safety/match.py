"""What a recognizer reports, and how patterns walk over a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Match(NamedTuple):  # cheap to make: a hostile text has thousands
    """One hit in a folded text, half-open [start, end).

    `is_quoted`: the text only quotes it, so the policy may flag it but not more. `score`: how sure
    the recognizer is; a rule is.
    """

    category: str
    rule: str
    start: int
    end: int
    is_quoted: bool = False
    score: float = 1.0


def matches(category: str, rule: str, spans: Iterable[tuple[int, int]]) -> list[Match]:
    """Hits of one rule. Without the constructor's call each takes half the time."""
    new = tuple.__new__
    return [new(Match, (category, rule, start, end, False, 1.0)) for start, end in spans]


def scan(
    pattern: re.Pattern[str], text: str, accept: Callable[[re.Match[str]], bool]
) -> Iterator[re.Match[str]]:
    """Accepted matches, left to right, not overlapping.

    After a refusal the search goes on one character later, not behind the match: a number may
    start inside what was refused. Linear as long as the pattern's length is bounded.
    """
    found = pattern.search(text)
    while found:
        if accept(found):
            yield found
            found = pattern.search(text, found.end())
        else:
            found = pattern.search(text, found.start() + 1)

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


def moved(hit: Match, start: int, end: int) -> Match:
    """The hit at another place, as that is named elsewhere."""
    new = tuple.__new__
    return new(Match, (hit.category, hit.rule, start, end, hit.is_quoted, hit.score))


def scan(
    pattern: re.Pattern[str], text: str, accept: Callable[[re.Match[str]], bool]
) -> Iterator[re.Match[str]]:
    """Accepted matches, left to right, not overlapping.

    After a refusal the search goes on one character later, not behind the match: a number may
    start inside what was refused. Linear as long as the pattern's length is bounded.
    """
    search = pattern.search
    found = search(text)
    while found:
        if not accept(found):
            found = search(text, found.start() + 1)
            continue
        yield found
        done = found.end()
        for found in pattern.finditer(text, done):  # half the time of a search for each
            if not accept(found):
                break
            yield found
        else:
            return
        found = search(text, found.start() + 1)


def scan_values(
    pattern: re.Pattern[str], text: str, is_valid: Callable[[str], bool]
) -> Iterator[tuple[int, int]]:
    """Spans of matches that are valid by themselves, as `scan`; each value is tested once."""
    known: dict[str, bool] = {}

    def accept(found: re.Match[str]) -> bool:
        value = found[0]
        answer = known.get(value)
        if answer is None:
            answer = known[value] = is_valid(value)
        return answer

    for found in scan(pattern, text, accept):
        yield found.span()

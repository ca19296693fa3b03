r"""What recognizers share: borders of a value, the words around it, its bare characters.

`\b`, `\w` and `\d` are not used: they take Han characters for word characters, and a pattern would
never fire in "电话138...".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from instructrec_deploy.safety import reach

LEFT = r"(?<![0-9A-Za-z])"
RIGHT = r"(?![0-9A-Za-z])"

_MARKS = re.compile(r"[\W_]+")
_COMMON_MARKS = {ord(mark): None for mark in " .-/()"}


def words(latin: str, other: str = "") -> re.Pattern[str]:
    """A pattern of words that name a value: whole words in lower case, or parts of Han text."""
    pattern = rf"(?<![a-z])(?:{latin})(?![a-z])"
    return re.compile(f"{pattern}|{other}" if other else pattern)


def has_any(stems: Iterable[str], lower: str) -> bool:
    """Whether a text in lower case holds one of the stems: a quick look before a pattern."""
    for stem in stems:  # noqa: SIM110 - `any` with a generator takes twice as long
        if stem in lower:
            return True
    return False


def is_near(names: re.Pattern[str], lower: str, start: int, end: int) -> bool:
    """Whether one of the words stands close to [start, end) of a text in lower case."""
    at = max(0, start - reach.NAME_BEFORE)
    if names.search(lower, at, start):
        return True
    return bool(names.search(lower, end, end + reach.NAME_AFTER))


def bare(value: str) -> str:
    """A value without the marks that stand between its groups, in upper case."""
    if not value.isalnum():
        value = value.translate(_COMMON_MARKS)
        if not value.isalnum():
            value = _MARKS.sub("", value)
    return value.upper()

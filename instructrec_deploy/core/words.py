"""When two names read alike, and whether there is anything to read."""

from __future__ import annotations

import unicodedata


def fold_words(text: str) -> str:
    """The text without what no reader tells apart: width (NFKC), case, runs of white space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.casefold().split())


def is_readable(text: str) -> bool:
    """Whether a letter, a digit or a Han character stands in it."""
    return any(character.isalnum() for character in text)

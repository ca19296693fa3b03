"""Small changes of a wording that leave it readable: drop, swap and join sentences, replace words.

The operations are those of GrIPS (arXiv:2203.07281), without its paraphrase model; ours work on
sentences, clauses and trailing phrases, so that what comes out can still be read aloud.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_CHARS = 300  # longer than any good instruction; edits that grow beyond are given up
MARKS = ".,;:?!。，；：？！"
STOPS = ".:?!。：？！"
HAN = re.compile(r"[\u4e00-\u9fff]")
SENTENCE = re.compile(r"(?<=[;.?!])\s+|(?<=[。；？！])")
LEAD = re.compile(
    r"^[^,，.?!。？！]+(?:,\s+|，)(?=.*\w)"
)  # "Given this tweet, | name the emotion."
TAIL = re.compile(  # a last phrase that can go: "Identify the emotion | of this tweet."
    r"^(?P<head>\S+(?: \S+){2,}?) (?:of|in|by|from|behind|about|as|that|which|to|for|with) "
    r"[^.?!:,;]+(?P<stop>[.?!:]?)$",
    re.IGNORECASE,
)
OPEN_END = re.compile(  # cannot end a wording that was shortened
    r"\b(?:the|a|an|of|in|by|and|or|to|that|which|what|is|are|does|do|this|how|with|for)$",
    re.IGNORECASE,
)
MIN_LATIN_WORDS, MIN_HAN = 3, 4  # of a sentence that may stand beside another
COMPLETION = re.compile(r"(?:\b(?:is|are|to|with|about|around|of)|[是于用着])$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Material:
    """What an edit may use."""

    text: str
    other: str = ""  # another wording
    groups: Sequence[Sequence[str]] = ()  # words that can stand for each other


def sentences(text: str) -> list[str]:
    """A wording cut behind its full stops; `joined` puts it together again."""
    return [part for part in SENTENCE.split(" ".join(text.split())) if part]


def joined(parts: Sequence[str]) -> str:
    """Sentences as one wording: a blank between Latin ones, none around Chinese ones."""
    text = ""
    for part in parts:
        gap = " " if text and not (HAN.search(part) or HAN.search(text)) else ""
        text += gap + part
    return text


def is_usable(text: str) -> bool:
    """Whether each of its sentences says something, once, at an acceptable length."""
    parts = [part.strip(MARKS + " ").casefold() for part in sentences(text)]
    return (
        len(text) <= MAX_CHARS
        and bool(parts)
        and all(any(c.isalnum() for c in part) for part in parts)
        and len(set(parts)) == len(parts)
    )


def drop(material: Material, rng: random.Random) -> str:
    """Leave out a sentence, a clause at the beginning, or the phrase at the end."""
    parts = sentences(material.text)
    if len(parts) > 1:
        del parts[rng.randrange(len(parts))]
        return _capital(joined(parts))
    if lead := LEAD.match(material.text):
        return _capital(material.text[lead.end() :])
    found = TAIL.match(material.text)
    if found and not OPEN_END.search(found["head"]):
        return found["head"] + found["stop"]
    return material.text


def swap(material: Material, rng: random.Random) -> str:
    """Two sentences in the other order."""
    parts = sentences(material.text)
    if len(parts) < 2 or any(part[-1] not in STOPS for part in parts):
        return material.text
    at = rng.randrange(len(parts) - 1)
    parts[at : at + 2] = parts[at + 1], parts[at]
    return joined(parts)


def mix(material: Material, rng: random.Random) -> str:
    """A sentence of one wording and a sentence of another; one to be completed comes last."""
    first, second = (rng.choice(sentences(text)) for text in (material.text, material.other))
    if not (_is_whole(first) and _is_whole(second)):
        return material.text
    if COMPLETION.search(first):
        first, second = second, first
    if first[-1] not in STOPS:
        first = first.rstrip(MARKS) + ("。" if HAN.search(first) else ".")
    return joined([_capital(first), _capital(second)])


def replace(material: Material, rng: random.Random) -> str:
    """One word or phrase by another of its group."""
    found = [
        (match, group)
        for group in material.groups
        for word in group
        for match in [_find(word, material.text)]
        if match
    ]
    found = [  # "review" inside "this review" is no word of its own
        (match, group)
        for match, group in found
        if not any(_holds(other, match) for other, _ in found)
    ]
    if not found:
        return material.text
    match, group = rng.choice(found)
    new = rng.choice(group)
    new = _capital(new) if match.start() == 0 else new
    return material.text[: match.start()] + new + material.text[match.end() :]


def borrow(material: Material, rng: random.Random) -> str:
    """Another wording; what stays of the parent is how it puts the labels."""
    return material.other


def _find(word: str, text: str) -> re.Match[str] | None:
    border = "" if HAN.search(word) else r"\b"
    return re.search(border + re.escape(word) + border, text, re.IGNORECASE)


def _holds(outer: re.Match[str], inner: re.Match[str]) -> bool:
    is_wider = outer.end() - outer.start() > inner.end() - inner.start()
    return is_wider and outer.start() <= inner.start() and inner.end() <= outer.end()


def _is_whole(sentence: str) -> bool:
    if HAN.search(sentence):
        return len(HAN.findall(sentence)) >= MIN_HAN
    return len(sentence.split()) >= MIN_LATIN_WORDS


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


Edit = Callable[[Material, random.Random], str]
EDITS: dict[str, Edit] = {edit.__name__: edit for edit in (drop, swap, mix, replace, borrow)}

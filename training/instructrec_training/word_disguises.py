"""A program of spelling disguises: words of the lexicon, written so that lists miss them."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator

from instructrec_deploy.safety.lexicon import ENTRIES
from instructrec_deploy.safety.word_forms import PLAIN_HAN, homophones, sounds_of

# Of the lexicon's triggers those that are abusive by themselves; the others need a sentence.
_BY_THEMSELVES = ("slur_en", "swear_en", "swear_pinyin")
_IN_SENTENCES = (
    "dirty human humans sandhead sandheads f*ck sh*t sh$t cao sha bi ta made wang dan gou dead"
)
_INSULTS = "idiot moron retard imbecile"
HAN_WORDS = tuple(sorted(PLAIN_HAN))
_LOOKS = ("i1!", "o0", "e3", "a4@", "s5$", "t7", "b8", "l1", "g9")
_LEET = {look[0]: look[1:] for look in _LOOKS}
_MARKS = ".-_*"
_VOWELS = "aeiou"
_PHONES = (("ck", "k"), ("ck", "q"), ("ph", "f"), ("er", "a"), ("u", "oo"), ("s", "z"))


def latin_words() -> list[str]:
    """Abusive words of the lexicon in ASCII."""
    skipped = frozenset(_IN_SENTENCES.split())
    words = {
        word
        for entry in ENTRIES
        if entry.rule in _BY_THEMSELVES
        for word in entry.triggers.split()
        if len(word) > 2 and word not in skipped
    }
    return sorted(words | set(_INSULTS.split()))


def disguise_latin(word: str, rng: random.Random) -> str:
    """A word in one or two of the disguises to train on."""
    for _ in range(rng.choice((1, 1, 2))):
        word = rng.choice(_LATIN_RULES)(word, rng)
    return word


def disguise_han(word: str, rng: random.Random, *, share: float = 0.5) -> str:
    """A Chinese word with characters that sound alike, letters, or marks between."""
    kind = rng.random()
    if kind < share:
        chars = [_another(char, rng) if rng.random() < 0.6 else char for char in word]
    elif kind < share + 0.2:
        chars = [sounds_of(char)[0] if rng.random() < 0.5 else char for char in word]
    elif kind < share + 0.3:
        chars = [sounds_of(char) if rng.random() < 0.5 else char for char in word]
    else:
        return rng.choice("*.-_ ").join(word)
    return "".join(chars)


def _another(char: str, rng: random.Random) -> str:
    return rng.choice(homophones(char)[::2] or char)  # every other: the rest is kept for tests


def _leet(word: str, rng: random.Random) -> str:
    return "".join(rng.choice(_LEET[c]) if c in _LEET and rng.random() < 0.6 else c for c in word)


def _marks(word: str, rng: random.Random) -> str:
    return rng.choice(_MARKS).join(word)


def _one_mark(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word)) if len(word) > 1 else 0
    return word[:at] + rng.choice(_MARKS) * rng.choice((1, 1, 2)) + word[at:]


def _starred(word: str, rng: random.Random) -> str:
    vowels = [at for at, char in enumerate(word) if char in _VOWELS]
    if not vowels:
        return word
    at = rng.choice(vowels)
    return word[:at] + rng.choice("*#x-") + word[at + 1 :]


def _no_vowel(word: str, rng: random.Random) -> str:
    return re.sub(f"(?<=[a-z])[{_VOWELS}]", "", word, count=1)


def _longer(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[: at + 1] + word[at] * rng.randint(1, 4) + word[at + 1 :]


def _by_sound(word: str, rng: random.Random) -> str:
    old, new = rng.choice(_PHONES)
    return word.replace(old, new)


def _swapped(word: str, rng: random.Random) -> str:
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


_LATIN_RULES = (_leet, _leet, _marks, _one_mark, _starred, _no_vowel, _longer, _by_sound, _swapped)


def training_words(n: int, rng: random.Random) -> Iterator[str]:
    """Disguised words of both languages."""
    latin = latin_words()
    for _ in range(n):
        yield disguise_latin(rng.choice(latin), rng)
        yield disguise_han(rng.choice(HAN_WORDS), rng)


def codes(n: int, rng: random.Random) -> Iterator[str]:
    """What is written with letters, digits and marks and is no word: part numbers, serials."""
    for _ in range(n):
        parts = []
        for _ in range(rng.randint(1, 3)):
            kind = rng.random()
            letters = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(1, 4)))
            digits = "".join(rng.choice(string.digits) for _ in range(rng.randint(1, 4)))
            parts.append(letters + digits if kind < 0.4 else digits + letters if kind < 0.6 else "")
            parts[-1] = parts[-1] or (letters if kind < 0.8 else digits)
        yield rng.choice(("-", "", "/", ".", "_")).join(parts)

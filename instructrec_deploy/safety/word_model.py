"""A small model of letters that knows disguised words: hashed n-grams and one weight for each.

Its weights are a file of the package (docs/adr/0014-word-model.md), made by
`python -m instructrec_training.word_model`. Needs nothing but numpy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from instructrec_deploy.safety.lexicon import Lexicon
from instructrec_deploy.safety.match import Match
from instructrec_deploy.safety.word_forms import PLAIN_HAN, WORD_SHAPES, Candidate, candidates

N_WEIGHTS = 1 << 14
RULE = "disguised_word"
CATEGORY = "profanity"
_PAD = "\0" * 3
_FACTORS = (7_919, 104_729, 611_953, 1_299_709)  # by place in the n-gram; sums stay below 2^63
_FEW = 12  # words: up to so many are faster without arrays
_SIZES = (2, 3, 4)
WEIGHTS_FILE = "word_model.bin"
# The file: bias, scale, threshold en, zh (little-endian float32); weights (int8); bits of the words
# that are known to be ordinary, two for each (a Bloom filter).
_MASK = N_WEIGHTS - 1
_HEAD_BYTES = 16
_KNOWN_BITS = 1 << 19

SHAPES = WORD_SHAPES
Ints = NDArray[np.int64]


def features(words: Sequence[Candidate]) -> tuple[Ints, Ints]:
    """Which weights count for which word.

    Returns:
        [N] indexes of weights and [N] indexes of the words that they count for.
    """
    parts = [_text_of(word) for word in words]
    lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
    text = "".join(parts) + _PAD
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    n = int(lengths.sum())
    owner = np.repeat(np.arange(len(parts)), lengths)
    kept = codes[:n] != 0
    hashed, owners = [], []
    total = codes[:n] * _FACTORS[0]
    for size in range(2, max(_SIZES) + 1):
        total = total + codes[size - 1 : n + size - 1] * _FACTORS[size - 1]
        hashed.append((((total >> 13) ^ total) % N_WEIGHTS)[kept])
        owners.append(owner[kept])
    return np.concatenate(hashed), np.concatenate(owners)


def _text_of(word: Candidate) -> str:
    """What n-grams are taken of: the word as written and by its letters, with borders."""
    form = f"{{{word.raw}}}[{word.letters}]" if word.is_han else f"^{word.raw}$<{word.letters}>"
    return form + _PAD


def known_bits(words: Iterable[str]) -> bytes:
    """The Bloom filter of words: 64 kB."""
    bits = bytearray(_KNOWN_BITS // 8)
    for word in words:
        for place in _places(word):
            bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def _places(word: str) -> tuple[int, int]:
    code = zlib.crc32(word.encode("utf-8", "surrogatepass"))
    return code % _KNOWN_BITS, (code >> 13) % _KNOWN_BITS


class WordModel:
    """The model, ready to score. Immutable; threads may share it."""

    def __init__(self, data: bytes | None = None, plain: frozenset[str] = frozenset()) -> None:
        raw = data if data is not None else _shipped()
        head = np.frombuffer(raw[:_HEAD_BYTES], dtype="<f4")
        self._bias, scale = float(head[0]), float(head[1])
        self._least = (float(head[2]), float(head[3]))  # probability from which it is a hit: en, zh
        end = _HEAD_BYTES + N_WEIGHTS
        self._weights = np.frombuffer(raw[_HEAD_BYTES:end], np.int8).astype(np.float32) * scale
        self._table: list[float] = self._weights.tolist()
        self._known = raw[end:]
        self._plain = plain | PLAIN_HAN

    def is_known(self, word: str) -> bool:
        """Whether a word is ordinary (wrongly so for one in 100 others), or for the word list."""
        if word in self._plain:
            return True
        one, other = _places(word)
        known = self._known
        return bool(known[one >> 3] >> (one & 7) & known[other >> 3] >> (other & 7) & 1)

    def scores(self, words: Sequence[Candidate]) -> list[float]:
        """The probability of each word that it disguises an abusive one, calibrated on words."""
        if len(words) <= _FEW:
            return [self._score(_text_of(word)) for word in words]
        indexes, owners = features(words)
        sums = np.bincount(owners, weights=self._weights[indexes], minlength=len(words))
        return [_probability(total + self._bias) for total in sums.tolist()]

    def _score(self, text: str) -> float:
        """The same for one word, in plain Python: an array takes longer to make."""
        table, total = self._table, self._bias
        one, two, three, four = _FACTORS
        codes = [*map(ord, text)]
        for a, b, c, d in zip(codes, codes[1:], codes[2:], codes[3:], strict=False):
            place = a * one + b * two
            total += table[((place >> 13) ^ place) & _MASK]
            place += c * three
            total += table[((place >> 13) ^ place) & _MASK]
            place += d * four
            total += table[((place >> 13) ^ place) & _MASK]
        return _probability(total)

    def find(self, lower: str, others: Iterable[Match] = ()) -> list[Match]:
        """Hits in a folded text in lower case, where none of the others overlaps it."""
        words = candidates(lower, self.is_known)
        taken = {at for hit in others for at in range(hit.start, hit.end)} if words else set()
        if taken:
            words = [word for word in words if taken.isdisjoint(range(word.start, word.end))]
        return [
            Match(CATEGORY, RULE, word.start, word.end, score=score)
            for word, score in zip(words, self.scores(words), strict=True)
            if self.is_hit(word, score)
        ]

    def is_hit(self, word: Candidate, score: float) -> bool:
        """Whether a score reaches the threshold of the word's language."""
        return score >= self._least[word.is_han]


def _probability(total: float) -> float:
    return 1 / (1 + math.exp(-min(max(total, -30.0), 30.0)))


@cache
def shipped_model() -> WordModel:
    """The model of this package, read once; what the word list has is left to it."""
    return WordModel(plain=Lexicon().words)


def _shipped() -> bytes:
    return (files("instructrec_deploy.safety") / WEIGHTS_FILE).read_bytes()

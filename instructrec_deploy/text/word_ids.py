"""BERT's tokens of plain English text, word by word from memory.

BERT's way of cutting looks at one word at a time: white space parts words, each punctuation mark is
a word of its own, case is folded or not, and what a word becomes does not hang on its neighbours.
So the ids of a word are asked of the tokenizer once. That is done for printable ASCII alone; any
other text, and any other way of cutting, goes through the tokenizer as before.
"""

from __future__ import annotations

import re
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

MAX_WORDS = 20_000  # some megabytes; then it begins anew
MAX_KEPT_CHARS = 32  # of a word; longer ones are rare and seldom come again
_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")


class WordIds:
    """The ids of printable ASCII texts, as the tokenizer gives them. Safe to share between threads.

    Args:
        tokenizer: one that `fits`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._is_lower = bool(tokenizer.normalizer.lowercase)
        self._known = _Known(tokenizer)

    @staticmethod
    def fits(tokenizer: Tokenizer) -> bool:
        """Whether a tokenizer cuts as BERT does, and knows no words that stand before that."""
        added = tokenizer.get_added_tokens_decoder().values()
        return (
            isinstance(tokenizer.model, WordPiece)
            and isinstance(tokenizer.normalizer, BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
            and bool(tokenizer.encode_special_tokens)
            and all(token.special for token in added)
        )

    def read(self, text: str) -> list[int] | None:
        """The ids of a text without control tokens; None where it is no printable ASCII."""
        if not (text.isascii() and text.isprintable()):
            return None
        words = _WORD.findall(text.lower() if self._is_lower else text)
        return [*chain.from_iterable(map(self._known.__getitem__, words))]


class _Known(dict[str, tuple[int, ...]]):
    """Words by what they become; what is not known is asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= MAX_KEPT_CHARS:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids

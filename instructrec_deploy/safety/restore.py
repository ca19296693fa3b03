"""Values that can be brought back: encrypted where they are masked, decrypted by who has the key.

A token is `[PHONE:...]`. The value is encrypted with AES-256-SIV (RFC 5297): authenticated, so that
a token that was changed, or comes from another key or type, restores nothing; and without chance,
so that one value always has one token, and a text one masked form. It shows which values are equal
and how long they are, and no more.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from instructrec_deploy.core.errors import MissingExtra
from instructrec_deploy.safety.keys import SafetyKeys
from instructrec_deploy.safety.pending import Shape

# Base 32 with letters in place of its digits: nothing in a token looks like a number or a key.
_TO_LETTERS = bytes.maketrans(b"234567", b"abcdef")
_TO_BASE32 = bytes.maketrans(b"abcdef", b"234567")
# 28: sixteen bytes of authentication and one of the value.
TOKEN = re.compile(r"\[([A-Z][A-Z0-9_]{0,31}):([A-Za-f]{28,})\]")
_TOKEN_SHAPE = Shape(TOKEN)
TOKEN_CATEGORY = "RESTORABLE"  # of a token that stood in a text before it was masked


@dataclass(frozen=True, slots=True)
class Restored:
    """A text with its values back.

    `n_left`: tokens that another key made, or that were changed; they stand as they were.
    """

    text: str
    n_restored: int
    n_left: int


class Cipher:
    """Encrypts values of personal data and restores them. Threads may share it."""

    def __init__(self, keys: SafetyKeys) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "the operator encrypt needs the package cryptography, which is not installed",
                hint="pip install 'instructrec-deploy[privacy]'",
            ) from error
        self._aead: Any = AESSIV(keys.encrypting)
        self._invalid: type[Exception] = InvalidTag

    def token(self, category: str, value: str) -> str:
        """What stands in a masked text in place of a value, which is not empty."""
        sealed = self._aead.encrypt(value.encode("utf-8", "surrogatepass"), [category.encode()])
        letters = base64.b32encode(sealed).rstrip(b"=").translate(_TO_LETTERS).decode()
        return f"[{category}:{letters}]"

    def value(self, category: str, letters: str) -> str | None:
        """The value behind the letters of a token; None where it is none of this key and type."""
        packed = letters.encode().translate(_TO_BASE32)
        try:
            sealed = base64.b32decode(packed + b"=" * (-len(packed) % 8))
            value = self._aead.decrypt(sealed, [category.encode()])
            return bytes(value).decode("utf-8", "surrogatepass")
        except (ValueError, self._invalid):
            return None

    def restore(self, text: str) -> Restored:
        """The text with the value in place of each token. What a value holds is not looked into."""
        n_restored = n_left = 0

        def put(token: re.Match[str]) -> str:
            nonlocal n_restored, n_left
            value = self.value(token[1], token[2])
            if value is None:
                n_left += 1
                return token[0]
            n_restored += 1
            return value

        return Restored(TOKEN.sub(put, text), n_restored, n_left)


def find_tokens(text: str) -> Iterator[tuple[int, int]]:
    """Where tokens stand in a text, or what looks like some."""
    if "[" in text:
        for token in TOKEN.finditer(text):
            yield token.span()


def open_token(text: str, start: int) -> int:
    """Where a token begins that more text could complete; the text's length where there is none."""
    return _TOKEN_SHAPE.first(text, start)

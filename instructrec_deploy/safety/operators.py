"""Operators: what stands in place of a value that is masked, by its type.

mask [PHONE] · replace <PHONE_1>, numbered within a text · hash [PHONE#...], one pseudonym for a
value under one key · encrypt [PHONE:...], which the key restores.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from instructrec_deploy.core.errors import SafetyKeyMissing
from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.keys import KEY_ENV, KEY_FILE_ENV, SafetyKeys
from instructrec_deploy.safety.restore import TOKEN_CATEGORY, Cipher
from instructrec_deploy.text.normalize import fold

_AS_WRITTEN = frozenset(("SECRET", "URL"))  # case and marks make another value
_AS_WORDS = frozenset(("EMAIL", "ADDRESS"))  # marks do, case does not
_HASH_BYTES = 8  # 64 bits: two of a million values meet with a chance below one in ten million
_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")


class Numbers:
    """Numbers for the values of one text, in the order in which they are met."""

    def __init__(self) -> None:
        self._by_value: dict[tuple[str, str], int] = {}
        self._counts: dict[str, int] = {}

    def of(self, category: str, value: str) -> int:
        """The number of a value among those of its type; the same value has the same."""
        key = (category, same_value(category, value))
        if key not in self._by_value:
            self._counts[category] = self._counts.get(category, 0) + 1
            self._by_value[key] = self._counts[category]
        return self._by_value[key]


class Operators:
    """Makes the stand-ins of one direction. Threads may share it.

    Args:
        by_type: category -> replace, hash or encrypt; others are masked by their type's name.

    Raises:
        SafetyKeyMissing: an operator needs a key, and there is none.
        MissingExtra: encrypt needs a package that is not installed.
    """

    def __init__(self, by_type: Mapping[str, str], keys: SafetyKeys | None) -> None:
        self._by_type = {k: v for k, v in by_type.items() if v not in ("mask", "keep")}
        used = set(self._by_type.values())
        if keys is None and (needy := sorted(used & {"hash", "encrypt"})):
            raise SafetyKeyMissing(
                f"the safety policy asks for {' and '.join(needy)}, and there is no key",
                hint=f"name a file with a key by {KEY_FILE_ENV} (or put a key into {KEY_ENV}); "
                "make one with `openssl rand -hex 32`",
            )
        self._keys = keys
        self._cipher = Cipher(keys) if keys is not None and "encrypt" in used else None

    def __bool__(self) -> bool:
        """Whether anything but the type's name ever stands in a value's place."""
        return bool(self._by_type)

    @property
    def is_restorable(self) -> bool:
        """Whether a type is encrypted: then a token that a text brings must not pass for ours."""
        return self._cipher is not None

    def apply(
        self, text: str, findings: Sequence[Finding], numbers: Numbers
    ) -> tuple[Finding, ...]:
        """The findings, sorted by start, with what stands in place of those that are masked."""
        return tuple(self._applied(text, finding, numbers) for finding in findings)

    def _applied(self, text: str, finding: Finding, numbers: Numbers) -> Finding:
        category = finding.category
        operator = "encrypt" if category == TOKEN_CATEGORY else self._by_type.get(category)
        if finding.action != "mask" or finding.start < 0 or operator is None:
            return finding
        value = text[finding.start : finding.end]
        if operator == "replace":
            put = f"<{category}_{numbers.of(category, value)}>"
        elif operator == "hash" and self._keys is not None:
            put = f"[{category}#{pseudonym(category, value, self._keys)}]"
        elif self._cipher is not None:
            put = self._cipher.token(category, value)
        else:
            return finding
        return finding._replace(stand_in=put)


def pseudonym(category: str, value: str, keys: SafetyKeys) -> str:
    """Sixteen letters for a value, the same under the same key however it is written."""
    content = f"{category}\0{same_value(category, value)}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(keys.hashing, content, hashlib.sha256)[:_HASH_BYTES]
    return digest.hex().encode().translate(_LETTERS).decode()


def same_value(category: str, value: str) -> str:
    """A value without what only its writing adds: width, invisible characters, marks, case."""
    plain = fold(value).text
    if category in _AS_WRITTEN:
        return plain
    if category in _AS_WORDS:
        return " ".join(plain.lower().split())
    return "".join(char for char in plain if char.isalnum()).upper()

"""The secret behind keyed hashes and encryption: from a file or the environment, never a policy."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instructrec_deploy.core.errors import FileMissing, FileUnusable, SafetyKeyMissing

KEY_ENV = "INSTRUCTREC_SAFETY_KEY"
KEY_FILE_ENV = "INSTRUCTREC_SAFETY_KEY_FILE"
MIN_KEY_BYTES = 32  # `openssl rand -hex 32` makes 64 characters
MAX_KEY_BYTES = 4096  # more is a wrong file
HOW_TO_MAKE = "make one with `openssl rand -hex 32 > FILE`"


@dataclass(frozen=True, slots=True)
class SafetyKeys:
    """Keys made of one secret, each for one purpose. They do not show in a `repr`.

    Attributes:
        hashing: for pseudonyms (HMAC-SHA-256).
        encrypting: 64 bytes for AES-256-SIV.
        auditing: for the hashes of texts.
    """

    hashing: bytes = field(repr=False)
    encrypting: bytes = field(repr=False)
    auditing: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes, *, where: str = "the key") -> SafetyKeys:
        """Derive the keys of a secret; white space around it does not count.

        Raises:
            SafetyKeyMissing: it is too short to be one.
        """
        stripped = secret.strip()
        if len(stripped) < MIN_KEY_BYTES:
            raise SafetyKeyMissing(
                f"{where} has {len(stripped)} bytes, a key needs {MIN_KEY_BYTES} at least",
                hint=HOW_TO_MAKE,
            )
        return cls(
            hmac.digest(stripped, b"instructrec safety hash 1", hashlib.sha256),
            hmac.digest(stripped, b"instructrec safety encrypt 1", hashlib.sha512),
            hmac.digest(stripped, b"instructrec safety audit 1", hashlib.sha256),
        )


def load_keys(
    file: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> SafetyKeys | None:
    """The keys of a file, else those that the environment names; None where nothing names any.

    Raises:
        FileMissing, FileUnusable: the file cannot be read.
        SafetyKeyMissing: what is there is too short.
    """
    env = os.environ if environ is None else environ
    if file is None and env.get(KEY_FILE_ENV):
        file = Path(env[KEY_FILE_ENV])
    if file is not None:
        return SafetyKeys.of(_read(file), where=f"the key file {file}")
    if env.get(KEY_ENV):
        return SafetyKeys.of(env[KEY_ENV].encode(), where=KEY_ENV)
    return None


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            secret = stream.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError as error:
        raise FileMissing(f"no key file {file}", hint=HOW_TO_MAKE) from error
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise FileUnusable(
            f"{file}: {reason}", hint="check the path and who may read it"
        ) from error
    if len(secret) > MAX_KEY_BYTES:
        raise FileUnusable(f"{file}: too long to be a key", hint=HOW_TO_MAKE)
    return secret

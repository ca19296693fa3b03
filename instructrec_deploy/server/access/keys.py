"""API keys: made once, shown once, kept as hashes.

A key reads `ir_ID_SECRET`: the id finds its entry, the secret (256 random bits) proves it. The file
holds SHA-256 of the secret: what nobody can guess needs no slow hash, and a call no milliseconds.

    [keys.3f9a1c20]
    name = "shop"                        # the caller, and its tenant
    hash = "sha256:..."
    roles = ["predict"]                  # predict, feedback, admin
    tasks = ["intent"]                   # left out: all tasks, and instructions of its own
    models = ["bank"]                    # left out: all models
    expires = 2027-01-01T00:00:00Z       # left out: never
    tokens_per_s = 5000.0                # left out: [overload] tenant_tokens_per_s; 0: no limit
    burst_tokens = 20000                 # left out: ten seconds of it
    share = 4.0                          # of the workers where several wait; left out: 1
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from instructrec_deploy.core.errors import ConfigError, FileMissing, Unauthenticated

PREFIX = "ir_"
ID_BYTES, SECRET_BYTES = 4, 32
NOBODY = "0" * 64  # what an unknown id is compared with, so that it takes as long
Role = Literal["predict", "feedback", "admin"]
HEADER = """# API keys of InstructRec Deploy: hashes alone. Written by `instructrec keys`.
"""


class KeyEntry(BaseModel):
    """What is known of a key; never the key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    roles: tuple[Role, ...] = ("predict",)
    tasks: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    tokens_per_s: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    burst_tokens: int | None = Field(default=None, ge=1)
    share: float | None = Field(default=None, ge=0.01, le=100.0)

    def is_over(self, now: datetime) -> bool:
        """Whether the key has expired."""
        return self.expires is not None and now >= self.expires


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: dict[str, KeyEntry] = {}


def new_key() -> tuple[str, str, str]:
    """(id, the key to hand out, the hash to keep)."""
    id_, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    return id_, f"{PREFIX}{id_}_{secret}", f"sha256:{_digest(secret)}"


def find_key(keys: Mapping[str, KeyEntry], given: str, now: datetime) -> tuple[str, KeyEntry]:
    """The entry that a key opens, compared in constant time.

    Raises:
        Unauthenticated: there is none, or it has expired; the answer does not say which.
    """
    id_, _, secret = given.removeprefix(PREFIX).partition("_")
    entry = keys.get(id_) if given.startswith(PREFIX) else None
    kept = entry.hash.removeprefix("sha256:") if entry else NOBODY
    is_right = hmac.compare_digest(_digest(secret), kept)
    if entry is None or not is_right or entry.is_over(now):
        raise Unauthenticated(
            "the API key is not valid", hint="ask the operator for a new one: it may have expired"
        )
    return id_, entry


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """The entries of a file of keys by id.

    Raises:
        FileMissing: there is no such file.
        ConfigError: it is not valid; the fault is named, no hash is shown.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return dict(_KeyFile.model_validate(content).keys)
    except FileNotFoundError as error:
        raise FileMissing(
            f"no file of API keys {path}", hint=f"instructrec keys new NAME --file {path}"
        ) from error
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        told = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in faults)
        raise ConfigError(f"{path}: {told}", hint="`instructrec keys` writes it") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {type(error).__name__}", hint="`instructrec keys` writes it"
        ) from error


def write_keys(path: Path, keys: Mapping[str, KeyEntry]) -> None:
    """Replace the file in one step; its owner alone may read it."""
    lines = [HEADER]
    for id_, entry in keys.items():
        lines.append(f"[keys.{id_}]")
        lines.append(f"name = {_quoted(entry.name)}")
        lines.append(f"hash = {_quoted(entry.hash)}")
        lines.append(f"roles = [{', '.join(map(_quoted, entry.roles))}]")
        for limit in ("tasks", "models"):
            words: tuple[str, ...] | None = getattr(entry, limit)
            if words is not None:
                lines.append(f"{limit} = [{', '.join(map(_quoted, words))}]")
        for name in ("created", "expires"):
            moment: datetime | None = getattr(entry, name)
            if moment is not None:
                lines.append(f"{name} = {moment.astimezone(UTC).isoformat(timespec='seconds')}")
        for name in ("tokens_per_s", "burst_tokens", "share"):
            if getattr(entry, name) is not None:
                lines.append(f"{name} = {getattr(entry, name)}")
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    number, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _quoted(words: str) -> str:
    """A TOML basic string."""
    escaped = words.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

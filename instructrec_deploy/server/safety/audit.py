"""The audit log of safety decisions: one JSON line each, with a keyed hash in place of the text."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instructrec_deploy.core.errors import FileUnusable, SafetyKeyMissing
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.safety.keys import KEY_FILE_ENV, SafetyKeys


class AuditLog:
    """Appends lines to a file that its owner alone reads. For one thread.

    A file that was moved away (rotation) is made anew.

    Raises:
        FileUnusable: the file cannot be written.
        SafetyKeyMissing: there is no key to hash texts with.
    """

    def __init__(
        self,
        path: Path,
        keys: SafetyKeys | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if keys is None:
            raise SafetyKeyMissing(
                "the audit log hashes texts under a key, and there is none",
                hint=f"name a file with a key by {KEY_FILE_ENV}; make one with "
                "`openssl rand -hex 32`",
            )
        self._path = path
        self._key = keys.auditing
        self._now = now
        self._is_torn = False  # the last line was cut: the disk was full
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise FileUnusable(
                f"{path}: {(error.strerror or type(error).__name__).lower()}",
                hint="name a file in a folder of yours (safety.audit)",
            ) from error

    def write(self, request: Request, prediction: Prediction) -> int:
        """A line for each verdict that found something; returns how many.

        Raises:
            OSError: they could not be written whole.
        """
        lines = [
            json.dumps(facts, ensure_ascii=False) + "\n"
            for facts in audit_facts(request, prediction, self._key, self._now())
        ]
        if lines:
            self._renew()
            self._append(("\n" if self._is_torn else "") + "".join(lines))
        return len(lines)

    def close(self) -> None:
        """Have the lines on the disk, then close the file."""
        try:
            os.fsync(self._file)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a pipe or a terminal
                raise
        finally:
            os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _renew(self) -> None:
        """Open the file again where the name now means another."""
        mine = os.fstat(self._file)
        try:
            there = self._path.stat()
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        except FileNotFoundError:
            pass
        opened = self._open()
        os.close(self._file)
        self._file, self._is_torn = opened, False

    def _append(self, lines: str) -> None:
        data = lines.encode()
        n_written = os.write(self._file, data)
        self._is_torn = n_written < len(data)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def audit_facts(
    request: Request, prediction: Prediction, key: bytes, now: datetime
) -> Iterator[dict[str, Any]]:
    """What is written down about each verdict that found something; no word of a text."""
    for verdict in prediction.verdicts:
        if not verdict.findings:
            continue
        text = request.text2 if verdict.direction == "text2" else request.text
        yield {
            "time": now.isoformat(timespec="milliseconds"),
            "caller": request.tenant,
            "tasks": list(dict.fromkeys(answer.task for answer in prediction.answers)),
            "model": prediction.model,
            "model_version": prediction.model_version,
            "direction": verdict.direction,
            "action": verdict.action,
            "dry_run_action": verdict.dry_run_action,
            "policy_version": verdict.policy_version,
            "text_hash": text_hash(text, key),
            "n_chars": len(text),
            "findings": [finding.to_dict() for finding in verdict.findings],
        }


def text_hash(text: str, key: bytes) -> str:
    """HMAC-SHA-256 of a text, hex: who has key and text can find its lines, nobody else."""
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

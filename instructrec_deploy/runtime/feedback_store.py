"""Corrected answers on disk: one SQLite file, several processes, nothing acknowledged gets lost.

A correction is on the disk (WAL, synchronous=FULL) before `add` returns. The same answer to the
same text (`Feedback.key`) is kept once; another answer replaces it, and the earlier one stays as
history. What arrives last counts, whatever the clocks say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from instructrec_deploy.core.errors import (
    FeedbackFull,
    FeedbackInvalid,
    FeedbackUnusable,
    RequestError,
)
from instructrec_deploy.core.feedback import Feedback, Receipt
from instructrec_deploy.core.settings import Section
from instructrec_deploy.runtime.sqlite_file import FileKind, SqliteFile, SqliteStore

BUSY_TIMEOUT_S = 5.0  # how long a write waits for another process's
SCHEMA = (
    # content: Feedback.to_row as JSON. replaced_by: id of the later answer; NULL: this one counts.
    """CREATE TABLE feedback (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      key TEXT NOT NULL,
      task TEXT NOT NULL,
      content TEXT NOT NULL,
      replaced_by TEXT
    )""",
    "CREATE UNIQUE INDEX current_answer ON feedback (key) WHERE replaced_by IS NULL",
)
KIND = FileKind(
    name="feedback store",
    application_id=0x1F5EEDBA,
    version=1,
    schema=SCHEMA,
    unusable=FeedbackUnusable,
    full=FeedbackFull,
    how_to_make="`instructrec feedback add` and `instructrec serve --feedback` make one",
    how_to_empty="export it and start another, or raise feedback.max_rows and feedback.max_bytes",
)


class FeedbackSettings(Section):
    """`[feedback]`: where corrections are kept, and how many."""

    file: str = ""  # the store; made where missing. Empty: the server keeps no feedback
    max_rows: int = Field(default=100_000, ge=1)  # history included
    max_bytes: int = Field(default=256 << 20, ge=64 << 10)  # of the file


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the store."""

    feedback: Feedback
    replaced_by: str = ""  # "" for the answer that counts


class FeedbackStore(SqliteStore):
    """An open store. Threads may share it; so may processes, each with its own."""

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: FeedbackSettings = FeedbackSettings(),
        *,
        create: bool = False,
    ) -> FeedbackStore:
        """Open a store; with `create`, make it where it is missing, readable by its owner alone.

        Raises:
            FileMissing: no such file, and not to be made.
            FeedbackUnusable: it is no feedback store, is damaged, or cannot be opened.
        """
        file = SqliteFile.open(
            Path(path),
            KIND,
            max_bytes=settings.max_bytes,
            create=create,
            timeout_s=BUSY_TIMEOUT_S,
        )
        return cls(file, settings.max_rows)

    def add(self, feedback: Feedback) -> Receipt:
        """Keep a correction; it is on the disk when this returns.

        Raises:
            FeedbackFull: the limit of rows or bytes is reached, or the disk is full.
            FeedbackInvalid: its id is another correction's.
            Overloaded: another process has been writing for too long.
            FeedbackUnusable: the file cannot be written.
        """
        key = feedback.key
        content = json.dumps(feedback.to_row(), ensure_ascii=False)
        with self._file.transaction() as execute:
            found = execute(
                "SELECT id, content FROM feedback WHERE key = ? AND replaced_by IS NULL", (key,)
            ).fetchone()
            if found and self._read(found[1]).right.agrees(feedback.right):
                return Receipt(found[0], "duplicate")
            (n_rows,) = execute("SELECT count(*) FROM feedback").fetchone()
            if n_rows >= self._max_rows:
                raise KIND.full_error(f"it holds {n_rows} rows, the limit is {self._max_rows}")
            if execute("SELECT 1 FROM feedback WHERE id = ?", (feedback.id,)).fetchone():
                raise FeedbackInvalid(
                    "the id is another correction's", hint="leave the id out; one is made"
                )
            if found:
                execute("UPDATE feedback SET replaced_by = ? WHERE id = ?", (feedback.id, found[0]))
            execute(
                "INSERT INTO feedback (id, key, task, content) VALUES (?, ?, ?, ?)",
                (feedback.id, key, feedback.task, content),
            )
        return Receipt(feedback.id, "replaced" if found else "accepted")

    def rows(self, *, task: str = "", with_history: bool = False) -> Iterator[Kept]:
        """What is kept, oldest arrival first; of one task, or of all.

        Raises:
            FeedbackUnusable: the file is damaged.
        """
        query = (
            "SELECT number, content, replaced_by FROM feedback WHERE number > ? "
            "AND (? = '' OR task = ?) AND (? OR replaced_by IS NULL) ORDER BY number LIMIT ?"
        )
        for content, replaced_by in self._file.scan(query, (task, task, with_history)):
            yield Kept(self._read(content), replaced_by or "")

    @property
    def size_bytes(self) -> int:
        """Of the file, without its write-ahead log."""
        return self._file.size_bytes

    def _read(self, content: str) -> Feedback:
        try:
            # no limit: it was checked against the limit of the day when it came
            return Feedback.from_row(
                json.loads(content), where=str(self._file.path), max_text_chars=sys.maxsize
            )
        except (ValueError, RequestError) as error:
            raise KIND.damaged_error(self._file.path) from error

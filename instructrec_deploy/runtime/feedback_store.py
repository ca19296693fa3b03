"""Corrected answers on disk: one SQLite file, several processes, nothing acknowledged gets lost.

A correction is on the disk (WAL, synchronous=FULL) before `add` returns. The same answer to the
same text (`Feedback.key`) is kept once; another answer replaces it, and the earlier one stays as
history. What arrives last counts, whatever the clocks say.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field

from instructrec_deploy.core.errors import (
    FeedbackFull,
    FeedbackInvalid,
    FeedbackUnusable,
    FileMissing,
    Overloaded,
    RequestError,
)
from instructrec_deploy.core.feedback import Feedback, Receipt
from instructrec_deploy.core.settings import Section

APPLICATION_ID = 0x1F5EEDBA  # in the file's header: a feedback store, and no other database
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0  # how long a write waits for another process's
RETRY_FULL_MS = 60_000  # room comes when somebody makes it
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
PAGE_ROWS = 1_000  # read at a time: no long transaction that would keep the log from shrinking
Execute = Callable[..., sqlite3.Cursor]


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


class FeedbackStore:
    """An open store. Threads may share it; so may processes, each with its own."""

    def __init__(self, connection: sqlite3.Connection, path: Path, max_rows: int) -> None:
        self._connection = connection
        self._path = path
        self._max_rows = max_rows
        self._lock = threading.Lock()

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
        file = Path(path)
        if create:
            _make_file(file)
        elif not file.is_file():
            raise FileMissing(
                f"no feedback store {file}",
                hint="`instructrec feedback add` and `instructrec serve --feedback` make one",
            )
        with _translated(file):
            connection = sqlite3.connect(
                file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection, file, settings.max_bytes, create=create)
            except BaseException:
                connection.close()
                raise
        return cls(connection, file, settings.max_rows)

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
        with self._lock, _translated(self._path), self._transaction() as execute:
            found = execute(
                "SELECT id, content FROM feedback WHERE key = ? AND replaced_by IS NULL", (key,)
            ).fetchone()
            if found and self._read(found[1]).right.agrees(feedback.right):
                return Receipt(found[0], "duplicate")
            (n_rows,) = execute("SELECT count(*) FROM feedback").fetchone()
            if n_rows >= self._max_rows:
                raise _full(f"it holds {n_rows} rows, the limit is {self._max_rows}")
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
        last = -1
        while True:
            with self._lock, _translated(self._path):
                page = self._connection.execute(
                    query, (last, task, task, with_history, PAGE_ROWS)
                ).fetchall()
            for last, content, replaced_by in page:  # noqa: B007  `last` is where it goes on
                yield Kept(self._read(content), replaced_by or "")
            if len(page) < PAGE_ROWS:
                return

    @property
    def size_bytes(self) -> int:
        """Of the file, without its write-ahead log."""
        with self._lock, _translated(self._path):
            (n_pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(n_pages * page_bytes)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Execute]:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            yield execute
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _read(self, content: str) -> Feedback:
        try:
            # no limit: it was checked against the limit of the day when it came
            return Feedback.from_row(
                json.loads(content), where=str(self._path), max_text_chars=sys.maxsize
            )
        except (ValueError, RequestError) as error:
            raise FeedbackUnusable(
                f"{self._path}: a row is damaged", hint="take a copy from before, or start anew"
            ) from error


def _make_file(file: Path) -> None:
    """An empty file that only its owner reads, its name safe on the disk."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FeedbackUnusable(
            f"{file} cannot be made ({error.strerror})", hint="name a file in a folder of yours"
        ) from error


def _prepare(connection: sqlite3.Connection, file: Path, max_bytes: int, *, create: bool) -> None:
    """Durable settings, the limit, and the table where the file is new and to be made."""
    execute = connection.execute
    if create:
        execute("BEGIN IMMEDIATE")  # of two that make it at once, the second finds it made
        if _signature(execute) == (0, 0, 0):
            for statement in SCHEMA:
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        execute("COMMIT")
    if _signature(execute)[:2] != (APPLICATION_ID, SCHEMA_VERSION):
        raise FeedbackUnusable(
            f"{file} is a database, but no feedback store of this version",
            hint="name another file; an older store: export it with the version that made it",
        )
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    (page_bytes,) = execute("PRAGMA page_size").fetchone()
    execute(f"PRAGMA max_page_count = {max_bytes // page_bytes}")


def _signature(execute: Execute) -> tuple[int, int, int]:
    """What marks a database as somebody's: application id, version, number of tables."""
    (application_id,) = execute("PRAGMA application_id").fetchone()
    (version,) = execute("PRAGMA user_version").fetchone()
    (n_tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
    return application_id, version, n_tables


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    """SQLite's errors as ours; their messages may hold nothing of a row, so none is passed on.

    Raises:
        FeedbackFull, Overloaded, FeedbackUnusable: as `FeedbackStore.add` says.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes keep it below
        if code == sqlite3.SQLITE_FULL:
            raise _full("its limit of bytes is reached, or the disk is full") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Overloaded(
                "another process keeps the feedback store busy", hint="try again"
            ) from error
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise FeedbackUnusable(
            f"{file} cannot be used as a feedback store ({name})",
            hint="check that it is a store, undamaged, on a local disk, and yours to write",
        ) from error


def _full(why: str) -> FeedbackFull:
    return FeedbackFull(
        f"the feedback store is full: {why}",
        hint="export it and start another, or raise feedback.max_rows and feedback.max_bytes",
        retry_after_ms=RETRY_FULL_MS,
    )

"""A SQLite file of ours: durable, within a limit, one kind of content, its errors as ours.

What was committed is on the disk (WAL, synchronous=FULL). Several processes may share a file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec_deploy.core.closing import Closing
from instructrec_deploy.core.errors import ConfigError, FileMissing, Overloaded

RETRY_FULL_MS = 60_000  # room comes when somebody makes it
PAGE_ROWS = 1_000  # read at a time: no long transaction that would keep the log from shrinking
Execute = Callable[..., sqlite3.Cursor]


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file holds, and how its faults are told."""

    name: str  # "feedback store"
    application_id: int  # in the file's header: this kind, and no other database
    version: int
    schema: tuple[str, ...]
    unusable: type[ConfigError]
    full: type[Overloaded]
    how_to_make: str
    how_to_empty: str

    def full_error(self, why: str) -> Overloaded:
        """It takes no more."""
        return self.full(
            f"the {self.name} is full: {why}",
            hint=self.how_to_empty,
            retry_after_ms=RETRY_FULL_MS,
        )

    def damaged_error(self, path: Path) -> ConfigError:
        """A row cannot be read."""
        return self.unusable(
            f"{path}: a row is damaged", hint="take a copy from before, or start anew"
        )


class SqliteFile:
    """An open file. Threads may share it; so may processes, each with its own."""

    def __init__(self, connection: sqlite3.Connection, path: Path, kind: FileKind) -> None:
        self.path = path
        self._connection = connection
        self._kind = kind
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, path: Path, kind: FileKind, *, max_bytes: int, create: bool, timeout_s: float
    ) -> SqliteFile:
        """Open a file; with `create`, make it where it is missing, readable by its owner alone.

        Args:
            timeout_s: how long a write waits for another process's.

        Raises:
            FileMissing: no such file, and not to be made.
            ConfigError: the kind's; it is no such file, is damaged, or cannot be opened.
        """
        if create:
            _make_file(path, kind)
        elif not path.is_file():
            raise FileMissing(f"no {kind.name} {path}", hint=kind.how_to_make)
        with _translated(path, kind):
            connection = sqlite3.connect(
                path, timeout=timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection, path, kind, max_bytes, create=create)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path, kind)

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """All or nothing; on the disk when it ends.

        Raises:
            Overloaded: the kind's, where it is full; another process has been writing for too long.
            ConfigError: the kind's; the file cannot be written.
        """
        with self._lock, _translated(self.path, self._kind):
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            try:
                yield execute
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                raise

    def fetch(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query.

        Raises:
            ConfigError: the kind's; the file is damaged.
        """
        with self._lock, _translated(self.path, self._kind):
            return self._connection.execute(query, values).fetchall()

    def scan(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """All rows of a query, page by page, without their number.

        Args:
            query: selects `number` first, asks for `number > ?`, and ends in
                `ORDER BY number LIMIT ?`.
            values: what stands between these two.

        Raises:
            ConfigError: the kind's; the file is damaged.
        """
        last = -1
        while True:
            page = self.fetch(query, (last, *values, PAGE_ROWS))
            for last, *row in page:  # noqa: B007  `last` is where it goes on
                yield tuple(row)
            if len(page) < PAGE_ROWS:
                return

    @property
    def size_bytes(self) -> int:
        """Of the file, without its write-ahead log."""
        ((n_pages,),) = self.fetch("PRAGMA page_count")
        ((page_bytes,),) = self.fetch("PRAGMA page_size")
        return int(n_pages * page_bytes)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class SqliteStore(Closing):
    """What keeps its rows in such a file; closed at the end of a `with`."""

    def __init__(self, file: SqliteFile, max_rows: int) -> None:
        self._file = file
        self._max_rows = max_rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _make_file(file: Path, kind: FileKind) -> None:
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
        raise kind.unusable(
            f"{file} cannot be made ({error.strerror})", hint="name a file in a folder of yours"
        ) from error


def _prepare(
    connection: sqlite3.Connection, file: Path, kind: FileKind, max_bytes: int, *, create: bool
) -> None:
    """Durable settings, the limit, and the table where the file is new and to be made."""
    execute = connection.execute
    if create:
        execute("BEGIN IMMEDIATE")  # of two that make it at once, the second finds it made
        if _signature(execute) == (0, 0, 0):
            for statement in kind.schema:
                execute(statement)
            execute(f"PRAGMA application_id = {kind.application_id}")
            execute(f"PRAGMA user_version = {kind.version}")
        execute("COMMIT")
    if _signature(execute)[:2] != (kind.application_id, kind.version):
        raise kind.unusable(
            f"{file} is a database, but no {kind.name} of this version",
            hint="name another file; an older one: export it with the version that made it",
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
def _translated(file: Path, kind: FileKind) -> Iterator[None]:
    """SQLite's errors as ours; their messages may hold nothing of a row, so none is passed on."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes keep it below
        if code == sqlite3.SQLITE_FULL:
            raise kind.full_error("its limit of bytes is reached, or the disk is full") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Overloaded(
                f"another process keeps the {kind.name} busy", hint="try again"
            ) from error
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise kind.unusable(
            f"{file} cannot be used as a {kind.name} ({name})",
            hint="check that it is one, undamaged, on a local disk, and yours to write",
        ) from error

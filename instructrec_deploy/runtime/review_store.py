"""Cases that wait for a person: one SQLite file; a case is on the disk before `add` returns.

The same text with the same findings is one case, counted as often as it comes. A decision never
goes away: a later one stands behind the earlier ones, and the last counts.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from instructrec_deploy.core.errors import CaseUnknown, ReviewFull, ReviewUnusable
from instructrec_deploy.runtime.sqlite_file import FileKind, SqliteFile, SqliteStore

MAX_ROWS = 100_000
MAX_BYTES = 256 << 20
BUSY_TIMEOUT_S = 5.0
SCHEMA = (
    # content: the case as JSON. decisions: a JSON list, the last one counts.
    """CREATE TABLE cases (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      key TEXT NOT NULL UNIQUE,
      n_seen INTEGER NOT NULL DEFAULT 1,
      content TEXT NOT NULL,
      decisions TEXT NOT NULL DEFAULT '[]'
    )""",
)
KIND = FileKind(
    name="review queue",
    application_id=0x1F5E2E71,
    version=1,
    schema=SCHEMA,
    unusable=ReviewUnusable,
    full=ReviewFull,
    how_to_make="`instructrec serve --review` makes one",
    how_to_empty="export it and start another",
)
Verdict = Literal["approved", "corrected"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Case:
    """A text as a reviewer may read it, and what the policy said about it."""

    text: str  # personal data masked
    categories: tuple[str, ...]  # that were found, sorted
    findings: tuple[dict[str, Any], ...] = ()  # their spans count in `text`
    direction: str = "input"
    action: str = ""
    dry_run_action: str = ""
    policy_version: str = ""
    tasks: tuple[str, ...] = ()
    caller: str = ""
    model: str = ""
    model_version: str = ""
    labels: tuple[str, ...] = ()  # what was answered
    created: str = field(default_factory=_now)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def key(self) -> str:
        """What makes two cases one."""
        said = [self.text, self.categories, self.direction, self.action, self.dry_run_action]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person said: the categories that are right, which an approval takes as found."""

    verdict: Verdict
    categories: tuple[str, ...]
    by: str = ""
    note: str = ""
    created: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class Kept:
    """A case of the queue with what was decided, oldest first."""

    case: Case
    n_seen: int
    decisions: tuple[Decision, ...]

    @property
    def status(self) -> str:
        """open, approved or corrected."""
        return self.decisions[-1].verdict if self.decisions else "open"


class ReviewStore(SqliteStore):
    """An open queue. Threads may share it; so may processes, each with its own."""

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        create: bool = False,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
    ) -> ReviewStore:
        """Open a queue; with `create`, make it where it is missing, readable by its owner alone.

        Raises:
            FileMissing: no such file, and not to be made.
            ReviewUnusable: it is no review queue, is damaged, or cannot be opened.
        """
        file = SqliteFile.open(
            Path(path), KIND, max_bytes=max_bytes, create=create, timeout_s=BUSY_TIMEOUT_S
        )
        return cls(file, max_rows)

    def add(self, case: Case) -> bool:
        """Keep a case; False where it is there already, and is counted once more.

        Raises:
            ReviewFull: the limit of rows or bytes is reached, or the disk is full.
            Overloaded, ReviewUnusable: the file is busy, or cannot be written.
        """
        content = json.dumps(asdict(case), ensure_ascii=False)
        with self._file.transaction() as execute:
            seen = execute("UPDATE cases SET n_seen = n_seen + 1 WHERE key = ?", (case.key,))
            if seen.rowcount:
                return False
            (n_rows,) = execute("SELECT count(*) FROM cases").fetchone()
            if n_rows >= self._max_rows:
                raise KIND.full_error(f"it holds {n_rows} cases, the limit is {self._max_rows}")
            execute(
                "INSERT INTO cases (id, key, content) VALUES (?, ?, ?)",
                (case.id, case.key, content),
            )
        return True

    def cases(self, *, status: str = "") -> Iterator[Kept]:
        """All of a status, or all; oldest first.

        Raises:
            ReviewUnusable: the file is damaged.
        """
        query = (
            "SELECT number, content, n_seen, decisions FROM cases WHERE number > ? "
            "ORDER BY number LIMIT ?"
        )
        for row in self._file.scan(query):
            kept = self._read(*row)
            if status in ("", kept.status):
                yield kept

    def case(self, id: str) -> Kept:
        """The case whose id begins so.

        Raises:
            CaseUnknown: there is none, or more than one.
        """
        found = self._file.fetch(
            "SELECT content, n_seen, decisions FROM cases WHERE substr(id, 1, ?) = ? LIMIT 2",
            (len(id), id),
        )
        if len(found) != 1 or not id:
            raise CaseUnknown(
                "more than one case begins so" if found else "no case of that id",
                hint="`instructrec review list` shows ids; eight characters are mostly enough",
            )
        return self._read(*found[0])

    def decide(self, id: str, decision: Decision) -> Kept:
        """Put a decision behind those before it; it is on the disk when this returns.

        Raises:
            CaseUnknown: no such case.
            Overloaded, ReviewUnusable: the file is busy, or cannot be written.
        """
        whole = self.case(id).case.id
        with self._file.transaction() as execute:
            (known,) = execute("SELECT decisions FROM cases WHERE id = ?", (whole,)).fetchone()
            decisions = json.dumps([*json.loads(known), asdict(decision)], ensure_ascii=False)
            execute("UPDATE cases SET decisions = ? WHERE id = ?", (decisions, whole))
        return self.case(whole)

    def _read(self, content: str, n_seen: int, decisions: str) -> Kept:
        try:
            return Kept(
                Case(**_frozen(json.loads(content))),
                n_seen,
                tuple(Decision(**_frozen(one)) for one in json.loads(decisions)),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise KIND.damaged_error(self._file.path) from error


def training_row(kept: Kept, masked: Collection[str]) -> dict[str, Any] | None:
    """A decided case as a row of a data file: which kinds of content it holds.

    None where nobody has decided, where the case has no text, or where only categories that are
    `masked` (personal data) were looked at.
    """
    if not (kept.decisions and kept.case.text):
        return None
    right = [name for name in kept.decisions[-1].categories if name not in masked]
    found = [name for name in kept.case.categories if name not in masked]
    if not (right or found):
        return None
    return {
        "id": kept.case.id,
        "text": kept.case.text,
        "target": sorted(right),
        "predicted": found,
        "dataset": "review",
        "source": kept.status,
    }


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

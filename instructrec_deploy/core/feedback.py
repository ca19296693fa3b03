"""A corrected answer: the text, what is right about it, and what the model said.

As a row (`to_row`, `from_row`) it has the form of the data files: `target` is a label, a list of
labels, or a list of spans; an empty list says that there is nothing to mark.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from instructrec_deploy.core.errors import (
    FeedbackInvalid,
    TextEmpty,
    TextTooLong,
    TextUndecodable,
)
from instructrec_deploy.core.instruction import MAX_CANDIDATE_CHARS
from instructrec_deploy.core.request import MAX_TEXT_CHARS

MAX_WORD_CHARS = 200  # of a task, a source, a model's name
MAX_ANSWERS = 1_000  # labels or spans of one correction
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of the corrections, by a hash of their content
WORDS = ("task", "lang", "source", "model", "model_version", "id")  # fields of a word or two
_LANG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True, order=True)
class SpanMark:
    """A marked stretch of a text, half-open code points; a relation's marks have no type."""

    start: int
    end: int
    type: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """An answer: labels, or spans (None: it has none; empty: there is nothing to mark)."""

    labels: tuple[str, ...] = ()
    spans: tuple[SpanMark, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not self.labels and self.spans is None

    def agrees(self, other: Target) -> bool:
        """Whether both say the same, in whatever order."""
        mine, yours = self.spans, other.spans
        if (mine is None) != (yours is None) or set(self.labels) != set(other.labels):
            return False
        return set(mine or ()) == set(yours or ())


@dataclass(frozen=True, slots=True)
class Feedback:
    """One corrected (or confirmed) answer. Build it with `Feedback.of`, which checks it."""

    text: str
    right: Target
    task: str = ""  # a task of the bundle; "" = its default task, until a store takes it
    predicted: Target = field(default_factory=Target)  # what the model said; may be empty
    text2: str = ""
    head: SpanMark | None = None
    tail: SpanMark | None = None
    lang: str = ""
    source: str = ""  # who corrected it
    model: str = ""
    model_version: str = ""
    created: str = ""  # ISO 8601, UTC
    id: str = ""

    @classmethod
    def of(
        cls, text: str, right: Target, *, max_text_chars: int = MAX_TEXT_CHARS, **fields: Any
    ) -> Feedback:
        """Check and build; `created` and `id` are made where they are not given.

        Raises:
            TextEmpty, TextTooLong, TextUndecodable: as their names say.
            FeedbackInvalid: no answer, or labels and spans; a span outside the text; a field
                that is too long or has another form.
        """
        made = cls(text, right, **fields)
        _check_texts(made, max_text_chars)
        _check_answers(made)
        _check_words(made)
        return replace(
            made,
            right=_sorted(made.right),
            predicted=_sorted(made.predicted),
            created=_as_utc(made.created),
            id=made.id or uuid.uuid4().hex,
        )

    @property
    def key(self) -> str:
        """Content hash (32 hex digits) of task and text, without width, case and white space.

        Two corrections with the same key answer the same question; the later one counts.
        """
        marks = [
            [len(normal_text(self.text[: m.start])), normal_text(self.text[m.start : m.end])]
            for m in (self.head, self.tail)
            if m is not None
        ]
        content = [self.task, normal_text(self.text), normal_text(self.text2), marks]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:32]

    @property
    def split(self) -> str:
        """train, val or test, by its key: the same in every process, and on every day."""
        position = int(self.key[:16], 16) / 2**64
        if position < TEST_SHARE:
            return "test"
        return "val" if position < TEST_SHARE + VALIDATION_SHARE else "train"

    def to_row(self) -> dict[str, Any]:
        """As a row of a data file; fields that say nothing are left out."""
        row: dict[str, Any] = {"id": self.id, "text": self.text, "task": self.task}
        row["target"] = _write_target(self.right, self.text)
        for name in ("text2", "lang", "source", "model", "model_version", "created"):
            row[name] = getattr(self, name)
        if not self.predicted.is_empty:
            row["predicted"] = _write_target(self.predicted, self.text)
        for name in ("head", "tail"):
            mark = getattr(self, name)
            if mark is not None:
                row[name] = _write_span(mark, self.text)
        return {name: value for name, value in row.items() if value != ""}

    @classmethod
    def from_row(
        cls, row: Mapping[str, Any], *, where: str, max_text_chars: int = MAX_TEXT_CHARS
    ) -> Feedback:
        """Read a row; fields it does not know are ignored.

        Args:
            row: a parsed JSON object.
            where: file and line, for the error.
            max_text_chars: of each text.

        Raises:
            FeedbackInvalid, TextEmpty, TextTooLong, TextUndecodable: as `of`, or a field has
                another type.
        """
        for name in ("text", "text2", "created", *WORDS):
            if not isinstance(row.get(name, ""), str):
                raise _bad_row(where, name, "is no string")
        if "text" not in row or "target" not in row:
            raise FeedbackInvalid(
                f"{where}: a correction has `text` and `target`",
                hint='write {"text": ..., "task": ..., "target": "the right label"}',
            )
        return cls.of(
            row["text"],
            _read_target(row["target"], where, "target"),
            max_text_chars=max_text_chars,
            predicted=_read_target(row.get("predicted"), where, "predicted"),
            head=_read_mark(row.get("head"), where, "head"),
            tail=_read_mark(row.get("tail"), where, "tail"),
            text2=row.get("text2", ""),
            created=row.get("created", ""),
            **{name: row.get(name, "") for name in WORDS},
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a correction. `text` is set only where it is kept masked."""

    id: str
    outcome: str  # accepted, replaced (an earlier answer to the text is history now), duplicate
    text: str = ""


def normal_text(text: str) -> str:
    """A text without width, case and white space that mean nothing: equal texts, equal words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def _sorted(target: Target) -> Target:
    if target.spans is None:
        return target
    return replace(target, spans=tuple(sorted(set(target.spans))))


def _as_utc(created: str) -> str:
    try:
        moment = datetime.fromisoformat(created) if created else datetime.now(UTC)
        if moment.tzinfo is None:
            raise FeedbackInvalid("`created` has no time zone", hint="end it with Z for UTC")
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FeedbackInvalid(
            "`created` is no time", hint="write it as 2026-01-31T12:00:00Z"
        ) from error
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check_texts(made: Feedback, max_text_chars: int) -> None:
    if not made.text.strip():
        raise TextEmpty("the text is empty", hint="send the text that was answered")
    if max(len(made.text), len(made.text2)) > max_text_chars:
        raise TextTooLong(
            f"a text has more than {max_text_chars} characters", hint="send the relevant part"
        )
    words = [made.text, made.text2, made.created, *(getattr(made, name) for name in WORDS)]
    words += [*made.right.labels, *made.predicted.labels]
    words += [s.type for t in (made.right, made.predicted) for s in t.spans or ()]
    try:
        "".join(words).encode()
    except UnicodeEncodeError as error:
        raise TextUndecodable(
            "a string has lone surrogates, which are not Unicode text", hint="send valid Unicode"
        ) from error


def _check_answers(made: Feedback) -> None:
    if made.right.is_empty:
        raise FeedbackInvalid(
            "the right answer is missing", hint="send the right label, or the right spans"
        )
    for target in (made.right, made.predicted):
        if target.labels and target.spans is not None:
            raise FeedbackInvalid("labels and spans together", hint="send the one the task has")
        if max(len(target.labels), len(target.spans or ())) > MAX_ANSWERS:
            raise FeedbackInvalid(f"more than {MAX_ANSWERS} labels or spans", hint="send fewer")
        if len(set(target.labels)) < len(target.labels):
            raise FeedbackInvalid("a label stands there twice", hint="send each label once")
        for label in (*target.labels, *(span.type for span in target.spans or ())):
            if not label.strip() or len(label) > MAX_CANDIDATE_CHARS:
                raise FeedbackInvalid(
                    f"a label or type is empty or has more than {MAX_CANDIDATE_CHARS} characters",
                    hint="use the words of the task's labels",
                )
        _check_marks(target.spans or (), made.text)
    _check_marks([mark for mark in (made.head, made.tail) if mark is not None], made.text)
    if (made.head is None) != (made.tail is None):
        raise FeedbackInvalid("a relation has a head and a tail", hint="send both, or neither")


def _check_marks(marks: Iterable[SpanMark], text: str) -> None:
    for mark in marks:
        if not 0 <= mark.start < mark.end <= len(text):
            raise FeedbackInvalid(
                f"a span from {mark.start} to {mark.end} in a text of {len(text)} characters",
                hint="count code points of `text`, half-open [start, end)",
            )


def _check_words(made: Feedback) -> None:
    for name in WORDS:
        word = getattr(made, name)
        if len(word) > MAX_WORD_CHARS or not word.isprintable():
            raise FeedbackInvalid(
                f"`{name}` has more than {MAX_WORD_CHARS} characters, or control characters",
                hint="send a word or two",
            )
    if made.lang and not _LANG.fullmatch(made.lang):
        raise FeedbackInvalid("`lang` is no language tag", hint="send en, zh, zh-Hant, ...")


def _write_target(target: Target, text: str) -> str | list[str] | list[dict[str, Any]]:
    if target.spans is not None:
        return [{"type": span.type, **_write_span(span, text)} for span in target.spans]
    return target.labels[0] if len(target.labels) == 1 else list(target.labels)


def _write_span(span: SpanMark, text: str) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "text": text[span.start : span.end]}


def _read_target(value: Any, where: str, name: str) -> Target:
    if value is None:
        return Target()
    if isinstance(value, str):
        return Target((value,))
    if not isinstance(value, list):
        raise _bad_row(where, name, "is neither a label nor a list")
    if value and all(isinstance(item, str) for item in value):
        return Target(tuple(value))
    return Target(spans=tuple(_read_span(item, where, name) for item in value))


def _read_mark(value: Any, where: str, name: str) -> SpanMark | None:
    return None if value is None else _read_span(value, where, name)


def _read_span(value: Any, where: str, name: str) -> SpanMark:
    if not isinstance(value, Mapping) or not isinstance(value.get("type", ""), str):
        raise _bad_row(where, name, "holds something that is no span")
    ends = [value.get("start"), value.get("end")]
    if any(not isinstance(end, int) or isinstance(end, bool) for end in ends):
        raise _bad_row(where, name, "has a span without whole numbers `start` and `end`")
    return SpanMark(value["start"], value["end"], value.get("type", ""))


def _bad_row(where: str, name: str, what: str) -> FeedbackInvalid:
    return FeedbackInvalid(
        f"{where}: `{name}` {what}",
        hint='"target" is "a label", ["several"], or [{"type": ..., "start": 0, "end": 4}]',
    )

"""A request as the runtime sees it: one text, what it brings beside it, and questions about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructrec_deploy.core.errors import (
    MarkInvalid,
    MarkMissing,
    RequestError,
    TextEmpty,
    TextTooLong,
)
from instructrec_deploy.core.instruction import Instruction

MAX_TEXT_CHARS = 50_000  # cap before tokenizing: a million characters take seconds to tokenize
MAX_QUESTIONS = 64
MAX_TOP_K = 2**32 - 1  # what the wire can carry


@dataclass(frozen=True, slots=True)
class Question:
    """How one question names what is asked; exactly one of the three ways.

    `instruction`: inline, with its candidates. `prepared_id`: the key of a prepared instruction.
    `task`: a task of the bundle ("" = the bundle's default task).
    """

    task: str = ""
    prepared_id: str = ""
    instruction: Instruction | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked part of the text, half-open, in code points. Head and tail may overlap."""

    start: int
    end: int


MarkLike = Mark | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Request:
    """One text and what is asked about it. Build with `Request.of`, which checks it."""

    text: str
    questions: tuple[Question, ...] = (Question(),)
    id: str = ""  # the caller's own; comes back with the answer
    top_k: int = 5  # how many scores come back; 0 = all
    text2: str = ""  # of a pair: what `text` is held against
    head: Mark | None = None  # of a relation: from this part of `text` ...
    tail: Mark | None = None  # ... to this one
    explain: bool = False  # say which words moved the answers
    tenant: str = ""  # who asks, where the server knows; never what a request says of itself
    share: float = 1.0  # of the workers, where several tenants wait; as little its own word

    @property
    def texts(self) -> tuple[str, str, Mark | None, Mark | None]:
        """All that the model is to read of it, before any guard."""
        return self.text, self.text2, self.head, self.tail

    @classmethod
    def of(
        cls,
        text: str,
        questions: tuple[Question, ...] = (Question(),),
        *,
        id: str = "",
        top_k: int = 5,
        text2: str = "",
        head: MarkLike | None = None,
        tail: MarkLike | None = None,
        explain: bool = False,
        max_text_chars: int = MAX_TEXT_CHARS,
    ) -> Request:
        """Check and build.

        Args:
            text2: the second text of a pair; it counts to the limit.
            head, tail: two parts of `text`, or neither.
            explain: say which words moved the answers; it costs up to 32 more readings.

        Raises:
            TextEmpty, TextTooLong, MarkInvalid, MarkMissing: as their names say.
            RequestError: too many questions, or a `top_k` that is no count.
        """
        _check_texts(text, text2, max_text_chars)
        first, last = check_marks(text, as_mark(head, "head"), as_mark(tail, "tail"))
        if not questions or len(questions) > MAX_QUESTIONS:
            raise RequestError(
                f"{len(questions)} questions about one text, allowed are 1 to {MAX_QUESTIONS}",
                hint="split the request",
            )
        if not 0 <= top_k <= MAX_TOP_K:
            raise RequestError(f"top_k is {top_k}", hint="use 0 for all scores, or a count")
        return cls(text, questions, id, top_k, text2, first, last, explain)


def guess_tokens(*texts: str) -> int:
    """About how many tokens texts have: one for four bytes of UTF-8.

    That is near enough to count by before they are read, in English and in Chinese.
    """
    n_bytes = sum(
        len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        for text in texts
    )
    return 2 + n_bytes // 4


def as_mark(value: MarkLike | Sequence[int] | Mapping[str, Any] | None, name: str) -> Mark | None:
    """A mark from a mark, a pair of numbers, or an object with `start` and `end`.

    Raises:
        MarkInvalid: it is none of these, or a number is negative.
    """
    if value is None or isinstance(value, Mark):
        found = value
    elif isinstance(value, Mapping):
        found = Mark(value.get("start", -1), value.get("end", -1))
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        found = Mark(*value)
    else:
        found = Mark(-1, -1)
    if found is not None and not (_is_position(found.start) and _is_position(found.end)):
        raise MarkInvalid(
            f"{name} is no span",
            hint="give its start and end in code points from 0, the end not included: (3, 7)",
        )
    return found


def check_marks(
    text: str, head: Mark | None, tail: Mark | None
) -> tuple[Mark, Mark] | tuple[None, None]:
    """Both marks of a text, or neither.

    Raises:
        MarkMissing: one of them alone.
        MarkInvalid: one lies outside the text, or holds nothing visible.
    """
    if head is None and tail is None:
        return None, None
    if head is None or tail is None:
        raise MarkMissing(
            "a head came without a tail" if tail is None else "a tail came without a head",
            hint="a relation goes from one part of the text to another: mark both",
        )
    for name, mark in (("head", head), ("tail", tail)):
        if not 0 <= mark.start < mark.end <= len(text):
            raise MarkInvalid(
                f"{name} goes from {mark.start} to {mark.end}, the text has {len(text)} characters",
                hint="count code points from 0, the end not included",
            )
        if not text[mark.start : mark.end].strip():
            raise MarkInvalid(
                f"{name} marks white space only", hint="mark at least one visible character"
            )
    return head, tail


def plain_request(request: Request) -> dict[str, Any]:
    """What a request brings, without its questions, as plain data for JSON lines."""
    row: dict[str, Any] = {"text": request.text}
    if request.text2:
        row["text2"] = request.text2
    for name, mark in (("head", request.head), ("tail", request.tail)):
        if mark is not None:
            row[name] = {"start": mark.start, "end": mark.end}
    return row


def _check_texts(text: str, text2: str, max_chars: int) -> None:
    if not text.strip():
        raise TextEmpty("the text is empty", hint="send at least one visible character")
    if text2 and not text2.strip():
        raise TextEmpty("text2 holds white space only", hint="leave it out, or send a second text")
    if len(text) + len(text2) > max_chars:
        both = f"text and text2 together have {len(text) + len(text2)}"
        raise TextTooLong(
            f"{both if text2 else f'the text has {len(text)}'} characters, "
            f"the limit is {max_chars}",
            hint="send the relevant part, or split the text",
        )


def _is_position(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32

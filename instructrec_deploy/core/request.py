"""A request as the runtime sees it: one text, and one or more questions about it."""

from __future__ import annotations

from dataclasses import dataclass

from instructrec_deploy.core.errors import RequestError, TextEmpty, TextTooLong
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
class Request:
    """One text and what is asked about it. Build with `Request.of`, which checks it."""

    text: str
    questions: tuple[Question, ...] = (Question(),)
    id: str = ""  # the caller's own; comes back with the answer
    top_k: int = 5  # how many scores come back; 0 = all

    @classmethod
    def of(
        cls,
        text: str,
        questions: tuple[Question, ...] = (Question(),),
        *,
        id: str = "",
        top_k: int = 5,
        max_text_chars: int = MAX_TEXT_CHARS,
    ) -> Request:
        """Check and build.

        Raises:
            TextEmpty, TextTooLong: as their names say.
            RequestError: too many questions, or a `top_k` that is no count.
        """
        if not text.strip():
            raise TextEmpty("the text is empty", hint="send at least one visible character")
        if len(text) > max_text_chars:
            raise TextTooLong(
                f"the text has {len(text)} characters, the limit is {max_text_chars}",
                hint="send the relevant part, or split the text",
            )
        if not questions or len(questions) > MAX_QUESTIONS:
            raise RequestError(
                f"{len(questions)} questions about one text, allowed are 1 to {MAX_QUESTIONS}",
                hint="split the request",
            )
        if not 0 <= top_k <= MAX_TOP_K:
            raise RequestError(f"top_k is {top_k}", hint="use 0 for all scores, or a count")
        return cls(text, questions, id, top_k)

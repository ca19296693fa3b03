"""What the encoder reads of a text, a second text, two marks or a history: one rendering for all.

Training, evaluation, export and serving go through `render`, so that a model is asked as it was
taught. No rendering holds a word of any language, and none holds the instruction, which is read on
the candidates' side: whatever a text says, it is text. Measured: docs/adr/0005-one-text-in.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from instructrec_deploy.core.errors import HistoryInvalid
from instructrec_deploy.core.request import Mark, Request

HEAD_SIGNS = ("@ ", " @")  # around the head, where it stands
TAIL_SIGNS = ("# ", " #")
BETWEEN = " ... "  # head and tail, named before the text
BEFORE_TEXT = ": "
MAX_NAME_CHARS = 100  # of a mark named before the text; where it stands it is read whole


class Piece(NamedTuple):
    """`n_chars` code points that stand at `place` in the rendering and at `source` in the text."""

    place: int
    source: int
    n_chars: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A rendering.

    Offsets into `text` are offsets into the text as it was given where `pieces` is empty (always
    without marks); `source_span` leads back from a rendering with marks. `second` is never changed.
    """

    text: str
    second: str = ""  # the second text of a pair; read behind a control token, which no text holds
    keep: tuple[tuple[int, int], ...] = ()  # parts of `text` that stay when it is cut
    pieces: tuple[Piece, ...] = ()  # in the order of their places; what lies between was put in

    @property
    def is_plain(self) -> bool:
        """Whether it is one text that may lose its end."""
        return not (self.second or self.keep)

    def source_span(self, start: int, end: int) -> tuple[int, int] | None:
        """A half-open span of `text` as a span of the text that was given.

        None where nothing in it was given. A span across a sign gives what lies on both sides.
        """
        if not self.pieces:
            return start, end
        found = [
            (source + max(0, start - place), source + min(n_chars, end - place))
            for place, source, n_chars in self.pieces
            if start < place + n_chars and place < end
        ]
        return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def render(
    text: str, *, text2: str = "", head: Mark | None = None, tail: Mark | None = None
) -> Passage:
    """What the encoder reads.

    A text alone is read as it is. A pair is two texts with a control token between them, which no
    text can spell out. Of a text with marks, head and tail are named before it and marked in it by
    signs: "Paris ... France: @ Paris @ is the capital of # France #." Marks may overlap and nest.

    Args:
        text: not empty.
        text2: the second text of a pair.
        head, tail: checked marks of `text` (`check_marks`), both or neither.
    """
    if head is None or tail is None:
        return Passage(text, text2)
    built = _Built(text)
    built.copy(head.start, min(head.end, head.start + MAX_NAME_CHARS))
    built.put(BETWEEN)
    built.copy(tail.start, min(tail.end, tail.start + MAX_NAME_CHARS))
    built.put(BEFORE_TEXT)
    names = (0, built.n_chars)
    done, begins, ends = 0, [0, 0], [0, 0]
    for at, is_opening, *_, which in _signs(head, tail):
        built.copy(done, at)
        done = at
        if is_opening:
            begins[which] = built.n_chars
        built.put((HEAD_SIGNS, TAIL_SIGNS)[which][0 if is_opening else 1])
        if not is_opening:
            ends[which] = built.n_chars
    built.copy(done, len(text))
    keep = (names, *zip(begins, ends, strict=True))
    return Passage("".join(built.parts), text2, keep, tuple(built.pieces))


def render_request(request: Request) -> Passage:
    """What the encoder reads of a checked request, where no policy changes it before."""
    return render(request.text, text2=request.text2, head=request.head, tail=request.tail)


def render_history(items: Sequence[str | Mapping[str, Any]]) -> str:
    """A user's history as a text: an item a line, the newest first, so that a cut takes the oldest.

    Args:
        items: oldest first; titles, or objects as `item_words` reads them.

    Raises:
        HistoryInvalid: it is empty or no list, or an item has no title.
    """
    if isinstance(items, str | Mapping) or not isinstance(items, Sequence) or not items:
        raise HistoryInvalid(
            "the history is no list of items, or an empty one",
            hint='write [{"title": "...", "genres": "..."}, ...], the oldest first',
        )
    lines = [item_words(item, where=f"history item {i}") for i, item in enumerate(items)]
    return "\n".join(reversed(lines))


def item_words(item: str | Mapping[str, Any], *, where: str = "item") -> str:
    """How an item is read, in a history and as a candidate alike: `title: genres`.

    Args:
        item: a title, or an object with `title` and, as a string or a list, `genres`.
        where: goes into the error.

    Raises:
        HistoryInvalid: it has no title.
    """
    title = item.get("title") if isinstance(item, Mapping) else item
    genres = item.get("genres", "") if isinstance(item, Mapping) else ""
    if isinstance(genres, list | tuple):
        genres = ", ".join(str(genre) for genre in genres)
    if not isinstance(title, str) or not title.strip() or not isinstance(genres, str):
        raise HistoryInvalid(
            f"{where}: it has no title, or its genres are no words",
            hint='write a title, or {"title": "...", "genres": "..."}',
        )
    return BEFORE_TEXT.join(" ".join(part.split()) for part in (title, genres) if part.strip())


def _signs(head: Mark, tail: Mark) -> list[tuple[int, ...]]:
    """Where which sign goes, in order: (place, 1 where it opens, ties, ties, 0 head or 1 tail).

    At one place what closes goes before what opens; of two that open the longer one goes first, of
    two that close the shorter one, so that marks nest. Of equals the head is the outer one.
    """
    signs = []
    for which, mark in enumerate((head, tail)):
        n_chars = mark.end - mark.start
        signs.append((mark.start, 1, -n_chars, which, which))
        signs.append((mark.end, 0, n_chars, -which, which))
    return sorted(signs)


class _Built:
    """A rendering in the making."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.parts: list[str] = []
        self.pieces: list[Piece] = []
        self.n_chars = 0

    def put(self, sign: str) -> None:
        """Something that was not given."""
        self.parts.append(sign)
        self.n_chars += len(sign)

    def copy(self, start: int, end: int) -> None:
        """A part of the text."""
        if start < end:
            self.pieces.append(Piece(self.n_chars, start, end - start))
            self.put(self._text[start:end])

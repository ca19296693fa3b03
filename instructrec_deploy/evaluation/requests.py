"""Labelled rows to requests: a text or a history, a second text, marks, and a row's own candidates.

No message holds a row's text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instructrec_deploy.core.errors import InstructRecError, RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate
from instructrec_deploy.core.request import Mark, Question, Request, as_mark, check_marks
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.reader import iter_objects
from instructrec_deploy.evaluation.targets import kind_of, question_of
from instructrec_deploy.text.render import Passage, item_words, render_history, render_request

Items = Mapping[str, Candidate]
Ask = Callable[[tuple[Candidate, ...]], Question]  # the question with these candidates
LABEL_NAMES = ("label", "item", "id", "title")  # fields that may name a candidate; the first wins
COUNT_NAMES = ("popularity", "ratings")  # how often an item was chosen; its prior is log(1 + n)


def request_of(
    example: Example,
    question: Question = Question(),
    *,
    ask: Ask | None = None,
    items: Items | None = None,
    top_k: int = 5,
) -> Request:
    """What a row asks.

    Args:
        example: of a classifying task.
        question: asked of a row without candidates of its own.
        ask: makes a question of a row's own candidates; None: they are left aside.
        items: what the ids among the candidates stand for (`read_items`).
        top_k: how many scores come back.

    Raises:
        RowInvalid: a field of the row has another form than it should.
        RequestError: what `Request.of` and `ask` raise.
    """
    if ask is not None and has_candidates(example):
        question = ask(candidates_of(example, items))
    own = content_of(example)
    return Request.of(
        own.text,
        (question,),
        id=example.id,
        top_k=top_k,
        text2=own.text2,
        head=own.head,
        tail=own.tail,
    )


def content_of(example: Example) -> Request:
    """What a row brings, of any length, without a question.

    Raises:
        RowInvalid: as `request_of`.
    """
    head, tail = marks_of(example)
    return Request(text_of(example), text2=example.text2, head=head, tail=tail)


def passage_of(example: Example) -> Passage:
    """What the encoder reads of a row, for who tokenizes it; as `request_of` has it served.

    Raises:
        RowInvalid: as `request_of`.
    """
    return render_request(content_of(example))


def text_of(example: Example) -> str:
    """The row's text, or its history as one.

    Raises:
        RowInvalid: it has both, or the history is no list of items.
    """
    if "history" not in example.extra:
        return example.text
    if example.text:
        raise example.fault("it has a text and a history", "a history stands in place of a text")
    try:
        return render_history(example.extra["history"])
    except InstructRecError as error:
        raise example.fault(error.message, error.hint) from error


def marks_of(example: Example) -> tuple[Mark, Mark] | tuple[None, None]:
    """The row's `head` and `tail`.

    Raises:
        RowInvalid: one of them alone, one outside the text, or one whose words stand elsewhere, as
            happens when bytes or UTF-16 units were counted.
    """
    given = [example.extra.get(name) for name in ("head", "tail")]
    if given == [None, None]:
        return None, None
    try:
        head, tail = (as_mark(m, n) for m, n in zip(given, ("head", "tail"), strict=True))
        marks = check_marks(example.text, head, tail)
    except InstructRecError as error:
        raise example.fault(error.message, error.hint) from error
    for name, mark, raw in zip(("head", "tail"), marks, given, strict=True):
        words = raw.get("text") if isinstance(raw, Mapping) else None
        if mark is not None and words not in (None, example.text[mark.start : mark.end]):
            raise example.fault(
                f"the words of its {name} do not stand where it says",
                "count code points from 0, the end not included",
            )
    return marks


def has_candidates(example: Example) -> bool:
    """Whether the row brings candidates of its own; a question is one, of its passage."""
    return "candidates" in example.extra or kind_of(example) is TaskKind.QA


def candidates_of(example: Example, items: Items | None = None) -> tuple[Candidate, ...]:
    """The row's own candidates, in order.

    Raises:
        RowInvalid: they are no list, one has no name, or an id is not among the items.
    """
    if kind_of(example) is TaskKind.QA:
        return (Candidate(question_of(example)),)
    given = example.extra.get("candidates")
    if not isinstance(given, list) or not given:
        raise example.fault("candidates are no list", 'write "candidates": ["one", "two"]')
    if not items and all(isinstance(one, str) and one.isdecimal() for one in given):
        raise example.fault(
            "its candidates are bare numbers",
            "say what the ids stand for: --items FILE, or `items` in a recipe's [[data]]",
        )
    where = example.name
    return tuple(
        candidate_of(one, items, where=f"{where}, candidate {i}") for i, one in enumerate(given)
    )


def candidate_of(given: Any, items: Items | None = None, *, where: str = "candidate") -> Candidate:
    """A candidate from a string or an object.

    A string is an item's id where there are items, else a label. An object has a label in `label`,
    `item`, `id` or `title`; is read by its `description`, else by title and genres, else by its
    label; and has a log prior in `prior`, or a count in `popularity` or `ratings`. What it leaves
    open is taken from the item of that id, if there is one.

    Args:
        given: the string or object.
        items: by id.
        where: goes into the error.

    Raises:
        RowInvalid: it is neither, has no name, or names no item.
    """
    if isinstance(given, str) and given:
        if items and given not in items:
            raise RowInvalid(
                f"{where}: it is not among the {len(items)} items",
                hint="add it to the file of items, or write the candidate as an object",
            )
        return items[given] if items else Candidate(given)
    fields = given if isinstance(given, Mapping) else {}
    names = (fields.get(name) for name in LABEL_NAMES)
    label = next((name for name in names if isinstance(name, str) and name), "")
    if not label:
        raise RowInvalid(
            f"{where}: it has no name",
            hint=f"write a string, or an object with one of {', '.join(LABEL_NAMES)}",
        )
    known = (items or {}).get(label, Candidate(label))
    prior = _prior(fields, where)
    words = _words(fields, where) or known.description
    return Candidate(label, words, known.prior if prior is None else prior)


def read_items(path: str | Path) -> dict[str, Candidate]:
    """A file of items (JSON lines, plain or gzipped; objects as of `candidate_of`) by id.

    Raises:
        FileMissing: no such file.
        RowInvalid: a line is no item, or repeats one.
    """
    items: dict[str, Candidate] = {}
    for where, row in iter_objects(Path(path)):
        candidate = candidate_of(row, where=where)
        if candidate.label in items:
            raise RowInvalid(f"{where}: an item of that id stands above", hint="keep one of them")
        items[candidate.label] = candidate
    if not items:
        raise RowInvalid(f"{path} has no items", hint='write {"item": "7", "title": ...} lines')
    return items


def _words(fields: Mapping[str, Any], where: str) -> str:
    """What the model reads in place of the label; "" where the label is all there is."""
    words = fields.get("description")
    if isinstance(words, str) and words:
        return words
    if "title" not in fields:
        return ""
    try:
        return item_words(fields, where=where)
    except InstructRecError as error:
        raise RowInvalid(error.message, hint=error.hint) from error


def _prior(fields: Mapping[str, Any], where: str) -> float | None:
    for name in ("prior", *COUNT_NAMES):
        value = fields.get(name)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or (name != "prior" and value < 0):
            raise RowInvalid(
                f"{where}: its {name} is no number it could be",
                hint="prior is a logarithm; popularity and ratings are counts",
            )
        return float(value) if name == "prior" else math.log1p(value)
    return None

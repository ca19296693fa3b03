"""Examples to tokenized rows, by the shape of their task's answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.evaluate import text_of
from instructrec_deploy.text.tokenizer import Encoded, TextTokenizer
from instructrec_training.rows import Row

EMPTY_WINDOWS = 1  # windows without an answer that are learned from, of each long passage


def labels_of(spec: TaskSpec, examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels or types that stand in training rows, sorted; none where rows bring their own."""
    if spec.kind is TaskKind.QA:
        return ()
    if SHAPES[spec.kind] is Shape.EXTRACT:
        found = {kind for example in examples for kind in example.extra.get("types", ())}
        found |= {span["type"] for example in examples for span in spans_of(example)}
        return tuple(sorted(found))
    return tuple(sorted({label_of(example) for example in examples}))


def rows_of(
    examples: Sequence[Example], spec: TaskSpec, tokenizer: TextTokenizer, *, is_training: bool
) -> Iterator[Row]:
    """Tokenize examples.

    Args:
        examples: rows whose label is not among the task's are left out.
        spec: the task, its labels filled in.
        tokenizer: of the model.
        is_training: leave out most windows of a long passage that hold no answer.

    Raises:
        RowInvalid: a target has another form than the task's kind wants.
    """
    if SHAPES[spec.kind] is Shape.EXTRACT:
        for example in examples:
            yield from _span_rows(example, spec, tokenizer, is_training=is_training)
        return
    position = {label: i for i, label in enumerate(spec.labels)}
    encoded = tokenizer.encode_texts([text_of(example) for example in examples], use_offsets=False)
    for found, example in zip(encoded, examples, strict=True):
        label = position.get(label_of(example))
        if label is not None:
            yield Row(found.ids, label, text_of(example), example=example)


def label_of(example: Example) -> str:
    """The label's words.

    Raises:
        RowInvalid: there are none.
    """
    if not isinstance(example.target, str) or not example.target:
        raise RowInvalid(
            f"row {example.id!r} of {example.dataset!r} has no label in `target`",
            hint="classification rows carry the label's words as a string",
        )
    return example.target


def spans_of(example: Example) -> list[dict[str, object]]:
    """The spans of a row: `{type, start, end}` of entities, `{text, start}` of answers.

    Raises:
        RowInvalid: the target is no list of such.
    """
    spans = example.target
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        raise RowInvalid(
            f"row {example.id!r} of {example.dataset!r} has no list of spans in `target`",
            hint='write {"type": ..., "start": ..., "end": ...}, or {"text": ..., "start": ...} '
            "for an answer",
        )
    return spans


def question_of(example: Example) -> str:
    """The question of a row.

    Raises:
        RowInvalid: there is none.
    """
    question = example.extra.get("question")
    if not isinstance(question, str) or not question.strip():
        raise RowInvalid(
            f"row {example.id!r} of {example.dataset!r} has no `question`",
            hint="rows of kind qa carry the passage in `text` and a `question`",
        )
    return question


def _span_rows(
    example: Example, spec: TaskSpec, tokenizer: TextTokenizer, *, is_training: bool
) -> list[Row]:
    is_question = spec.kind is TaskKind.QA
    words = (question_of(example),) if is_question else ()
    wanted = _wanted_spans(example, spec)
    full, empty = [], []
    for window in tokenizer.encode_windows(example.text):
        spans = tuple(s for span in wanted if (s := _token_span(window, *span)) is not None)
        row = Row(window.ids, -1, example.text, tuple(window.offsets), spans, words, (), example)
        (full if spans or not is_question else empty).append((window.offsets, row))
    if is_training and full and len(empty) > EMPTY_WINDOWS:
        empty = random.Random(example.id).sample(empty, EMPTY_WINDOWS)
    together = sorted(full + empty, key=lambda pair: _first_place(pair[0]))
    return [row for _, row in together]


def _wanted_spans(example: Example, spec: TaskSpec) -> list[tuple[int, int, int]]:
    """(candidate, start, end) in code points."""
    spans = spans_of(example)
    try:
        if spec.kind is TaskKind.QA:
            firsts = [(int(s["start"]), str(s["text"])) for s in spans][:1]  # type: ignore[call-overload]
            return [(0, start, start + len(text)) for start, text in firsts]
        position = {label: i for i, label in enumerate(spec.labels)}
        return [
            (position[str(s["type"])], int(s["start"]), int(s["end"]))  # type: ignore[call-overload]
            for s in spans
            if s["type"] in position
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise RowInvalid(
            f"row {example.id!r} of {example.dataset!r}: a span in `target` lacks a field",
            hint="an entity has type, start and end; an answer has text and start",
        ) from error


def _token_span(
    window: Encoded, candidate: int, start: int, end: int
) -> tuple[int, int, int] | None:
    """The tokens that cover [start, end); None where the window does not hold all of it."""
    inside = [
        place for place, (a, b) in enumerate(window.offsets) if b > a and a < end and b > start
    ]
    if not inside:
        return None
    first, last = inside[0], inside[-1]
    is_whole = window.offsets[first][0] <= start and window.offsets[last][1] >= end
    return (candidate, first, last) if is_whole else None


def _first_place(offsets: Sequence[tuple[int, int]]) -> int:
    return next((start for start, end in offsets if end > start), 0)

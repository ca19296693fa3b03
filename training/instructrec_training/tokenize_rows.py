"""Examples to tokenized rows, by the shape of their task's answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.requests import passage_of
from instructrec_deploy.evaluation.targets import (
    entities_of,
    label_of,
    label_set_of,
    question_of,
    references_of,
    relevant_of,
    types_of,
)
from instructrec_deploy.text.render import Passage
from instructrec_deploy.text.tokenizer import Encoded, TextTokenizer
from instructrec_training.calibrate import read_labels
from instructrec_training.catalogue import Catalogue
from instructrec_training.rows import Row

EMPTY_WINDOWS = 1  # windows without an answer that are learned from, of each long passage
EMPTY_SHARE = 0.25  # of the passages that are cut shorter to learn from: those that give one, too


def labels_of(spec: TaskSpec, examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels or types that stand in training rows, sorted; none where rows bring their own."""
    if spec.kind is TaskKind.QA:
        return ()
    if SHAPES[spec.kind] is Shape.EXTRACT:
        return tuple(sorted({kind for example in examples for kind in types_of(example)}))
    if spec.decision == "any":
        return tuple(sorted({label for e in examples for label in label_set_of(e)}))
    return tuple(sorted({label_of(example) for example in examples} - {spec.none_label}))


def rows_of(
    examples: Sequence[Example],
    spec: TaskSpec,
    tokenizer: TextTokenizer,
    *,
    is_training: bool,
    catalogue: Catalogue | None = None,
    joint_questions: bool = False,
    window_tokens: int = 0,
) -> Iterator[Row]:
    """Tokenize examples.

    Args:
        examples: rows whose label is not among the task's are left out; those that fit none of
            them are kept where nothing is trained on them.
        spec: the task, its labels filled in.
        tokenizer: of the model.
        is_training: leave out most windows of a long passage that hold no answer.
        catalogue: of a ranking task.
        joint_questions: the question stands behind each window of its passage.
        window_tokens: of a window to learn a question from; 0 takes the model's. Shorter ones cost
            less, and one window with the answer is learned from, drawn by the row's id.

    Raises:
        RowInvalid: a target has another form than the task's kind wants.
    """
    if SHAPES[spec.kind] is Shape.EXTRACT:
        for example in examples:
            second = question_of(example) if joint_questions and spec.kind is TaskKind.QA else ""
            cut = window_tokens if is_training else 0
            windows = tokenizer.encode_windows(example.text, second=second, max_tokens=cut)
            rows = _span_rows(example, spec, windows)
            yield from _learned_windows(rows, example, is_cut=cut > 0) if is_training else rows
        return
    passages = [passage_of(example) for example in examples]
    encoded = tokenizer.encode_passages(passages, use_offsets=False)
    for found, example, passage in zip(encoded, examples, passages, strict=True):
        if catalogue is not None:
            yield _ranked_row(found.ids, words_of(passage), example, catalogue)
            continue
        row = _labelled_row(found.ids, words_of(passage), example, spec)
        if row.label >= 0 or spec.decision == "any" or (row.is_outside and not is_training):
            yield row


def words_of(passage: Passage) -> str:
    """All that is read of a row, as one text: rows that are read alike have the same."""
    return f"{passage.text}\n{passage.second}" if passage.second else passage.text


def _labelled_row(ids: list[int], text: str, example: Example, spec: TaskSpec) -> Row:
    """A row with its right label, or with all of them where any may be right."""
    if spec.decision == "any":
        wanted = sorted(label_set_of(example) - {spec.none_label})
        where = f"row {example.id!r}"
        labels = read_labels(wanted, spec, where=where)
        return Row(ids, -1, text, labels, example=example)
    label = label_of(example)
    is_outside = bool(spec.none_label) and label == spec.none_label
    place = spec.labels.index(label) if label in spec.labels else -1
    return Row(ids, place, text, example=example, is_outside=is_outside)


def _ranked_row(ids: list[int], text: str, example: Example, catalogue: Catalogue) -> Row:
    """A row with its own candidates; `labels` are the places of those that are wanted."""
    candidates, wanted = catalogue.candidates(example), relevant_of(example)
    places = tuple(i for i, candidate in enumerate(candidates) if candidate.label in wanted)
    if not places:
        raise RowInvalid(
            f"row {example.id!r}: what is wanted is not among its candidates",
            hint="a ranking's target is a position in `candidates`, from 0, or a label of one",
        )
    seen = catalogue.seen(example)
    return Row(ids, -1, text, places, candidates=candidates, seen=seen, example=example)


def _span_rows(example: Example, spec: TaskSpec, windows: Sequence[Encoded]) -> list[Row]:
    """A row for each window, in their order."""
    words = (question_of(example),) if spec.kind is TaskKind.QA else ()
    wanted = _wanted_spans(example, spec)
    return [
        Row(
            window.ids,
            -1,
            example.text,
            offsets=tuple(window.offsets),
            spans=tuple(s for span in wanted if (s := _token_span(window, *span)) is not None),
            words=words,
            example=example,
        )
        for window in windows
    ]


def _learned_windows(rows: Sequence[Row], example: Example, *, is_cut: bool) -> list[Row]:
    """Not all windows of a question's passage: those with the answer, and few of the others."""
    full = [row for row in rows if row.spans or not row.words]
    empty = [row for row in rows if row.words and not row.spans]
    if not full:
        return list(rows)
    rng = random.Random(example.id)
    n_empty = EMPTY_WINDOWS
    if is_cut:
        full = [rng.choice(full)]
        n_empty = int(rng.random() < EMPTY_SHARE)
    kept = {id(row) for row in full + rng.sample(empty, min(n_empty, len(empty)))}
    return [row for row in rows if id(row) in kept]


def _wanted_spans(example: Example, spec: TaskSpec) -> list[tuple[int, int, int]]:
    """(candidate, start, end) in code points."""
    if spec.kind is not TaskKind.QA:
        position = {label: i for i, label in enumerate(spec.labels)}
        found = sorted(entities_of(example))
        return [(position[kind], start, end) for start, end, kind in found if kind in position]
    if not references_of(example):
        return []
    first = example.target[0]
    start = first.get("start") if isinstance(first, dict) else None
    if not isinstance(start, int):
        start = example.text.find(references_of(example)[0])
    return [(0, start, start + len(references_of(example)[0]))] if start >= 0 else []


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

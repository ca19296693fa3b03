"""What the `target` of a data row says, by the kind of its task; a faulty one is named by its row.

No message holds a row's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.task import ROW_KINDS, TaskKind
from instructrec_deploy.evaluation.spans import Entity

JSON_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
CANDIDATE_NAMES = ("label", "item", "id", "title")  # fields that may name a candidate; first wins


def kind_of(example: Example) -> TaskKind:
    """The row's kind of task; a word in `task` that names no kind is a classification's name."""
    return ROW_KINDS.get(example.task, TaskKind.CLASSIFICATION)


def label_of(example: Example) -> str:
    """The row's right label.

    Raises:
        RowInvalid: the target is missing or is no string.
    """
    if not isinstance(example.target, str) or not example.target:
        raise example.fault(
            f"{_given(example)}, not a label",
            'classification rows look like {"text": ..., "target": "the label"}',
        )
    return example.target


def label_set_of(example: Example) -> frozenset[str]:
    """The row's right labels, where any number of them may be right.

    Raises:
        RowInvalid: the target is neither a label nor a list of labels.
    """
    if not isinstance(example.target, list):
        return frozenset([label_of(example)])
    if not all(isinstance(label, str) and label for label in example.target):
        raise example.fault(
            "target is a list that does not hold labels alone",
            'rows with several labels look like {"text": ..., "target": ["one", "two"]}; '
            'rows of spans say "task": "ner" or "qa"',
        )
    return frozenset(example.target)


def labels_of(examples: Sequence[Example]) -> list[str]:
    """All labels, or types of entities, that stand in the rows, sorted."""
    found: set[str] = set()
    for example in examples:
        if kind_of(example) is TaskKind.NER:
            found |= types_of(example)
        else:
            found |= label_set_of(example)
    return sorted(found)


def types_of(example: Example) -> set[str]:
    """The types that are sought in the row's set, and those of its entities."""
    sought = example.extra.get("types", ())
    named = {kind for kind in sought if isinstance(kind, str)}
    return named | {kind for _, _, kind in entities_of(example)}


def question_of(example: Example) -> str:
    """The row's question.

    Raises:
        RowInvalid: there is none.
    """
    question = example.extra.get("question")
    if not isinstance(question, str) or not question.strip():
        raise example.fault(
            "it has no question",
            'rows of kind qa carry the passage in "text" and a "question"',
        )
    return question


def entities_of(example: Example) -> frozenset[Entity]:
    """The row's right entities.

    Raises:
        RowInvalid: the target is no list of spans, or a span lies outside its text or (where it
            says its words) elsewhere, as it does when bytes or UTF-16 units were counted.
    """
    found = set()
    for number, span in enumerate(_list(example, "entities", '[{"type", "start", "end"}, ...]')):
        fields = span if isinstance(span, dict) else {}
        start, end, name = (fields.get(key) for key in ("start", "end", "type"))
        if not (_is_position(start) and _is_position(end) and isinstance(name, str) and name):
            raise example.fault(
                f"target[{number}] is no entity",
                'an entity looks like {"type": "person", "start": 3, "end": 7}',
            )
        words = fields.get("text")
        if not start < end <= len(example.text) or words not in (None, example.text[start:end]):
            raise example.fault(
                f"target[{number}] does not lie where it says, {start} to {end} of a text of "
                f"{len(example.text)} characters",
                "count code points from 0, the end not included",
            )
        found.add((start, end, name))
    return frozenset(found)


def references_of(example: Example) -> tuple[str, ...]:
    """The right answers to the row's question; none: the passage holds no answer.

    Raises:
        RowInvalid: the target is no list of answers.
    """
    found = []
    for number, answer in enumerate(_list(example, "answers", '[{"text", "start"}, ...]')):
        text = answer.get("text") if isinstance(answer, dict) else answer
        if not isinstance(text, str) or not text.strip():
            raise example.fault(
                f"target[{number}] is no answer",
                'an answer looks like {"text": "its words", "start": 3}',
            )
        found.append(text)
    return tuple(found)


def relevant_of(example: Example) -> frozenset[str]:
    """The labels of the row's wanted candidates.

    The target is a position in the row's `candidates`, a label, or a list of either.

    Raises:
        RowInvalid: it is something else, an empty list, or a position that is not there.
    """
    target = example.target
    candidates = example.extra.get("candidates", [])
    if not isinstance(candidates, list):
        raise example.fault("candidates are no list", 'write "candidates": ["one", "two"]')
    found = set()
    for one in target if isinstance(target, list) else [target]:
        if isinstance(one, str) and one:
            found.add(one)
        elif _is_position(one) and one < len(candidates):
            found.add(candidate_label(candidates[one], where=f"{example.name}, candidate {one}"))
        else:
            raise example.fault(
                f"target names no candidate (the row has {len(candidates)})",
                "a ranking's target is a position in `candidates`, from 0, or a label",
            )
    if not found:
        raise example.fault("target is empty", "a ranking needs at least one wanted candidate")
    return frozenset(found)


def candidate_label(candidate: str | Mapping[str, Any], *, where: str) -> str:
    """The label by which a row's candidate is asked and answered.

    A string is its own label; of an object it is the first of the fields `label`, `item`, `id` and
    `title` that it has. What else it holds is for the model to read. `where` goes into the error.

    Raises:
        RowInvalid: it has none of them.
    """
    if isinstance(candidate, str) and candidate:
        return candidate
    if isinstance(candidate, Mapping):
        for name in CANDIDATE_NAMES:
            label = candidate.get(name)
            if isinstance(label, str) and label:
                return label
    raise RowInvalid(
        f"{where}: it has no name",
        hint=f"write a string, or an object with one of {', '.join(CANDIDATE_NAMES)}",
    )


def _given(example: Example) -> str:
    """What stands for the target, in JSON's words."""
    if example.target is None:
        return "there is no target"
    if example.target == "":
        return "target is empty"
    return f"target is {JSON_NAMES.get(type(example.target), 'of another type')}"


def _list(example: Example, what: str, shape: str) -> list[Any]:
    if not isinstance(example.target, list):
        raise example.fault(
            f"{_given(example)}, not a list of {what}",
            f'rows with {what} have "target": {shape}',
        )
    return example.target


def _is_position(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

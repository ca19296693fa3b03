"""What targets say, and how a faulty one is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.targets import (
    candidate_label,
    entities_of,
    kind_of,
    label_set_of,
    labels_of,
    references_of,
    relevant_of,
)

TEXT = "secret 😀张伟 lives"


def row(target: Any, task: str = "classification", **extra: Any) -> Example:
    return Example(TEXT, target, id="r7", task=task, extra=extra)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("classification", TaskKind.CLASSIFICATION),
        ("safety", TaskKind.SAFETY),
        ("relation", TaskKind.RELATION),
        ("ner", TaskKind.NER),
        ("pii", TaskKind.NER),
        ("qa", TaskKind.QA),
        ("recommendation", TaskKind.RANKING),
        ("ranking", TaskKind.RANKING),
        ("a task's own name", TaskKind.CLASSIFICATION),
    ],
)
def test_the_word_in_task_says_the_kind(task: str, kind: TaskKind) -> None:
    assert kind_of(row("x", task)) is kind


def test_labels_are_one_or_several_or_none() -> None:
    assert label_set_of(row("退款")) == {"退款"}
    assert label_set_of(row(["退款", "card"])) == {"退款", "card"}
    assert label_set_of(row([])) == frozenset()
    assert labels_of([row("z"), row(["y", "z"]), row([])]) == ["y", "z"]


def test_entities_are_code_point_spans_with_a_type() -> None:
    target = [
        {"type": "人名", "start": 8, "end": 10, "text": "张伟"},
        {"type": "symbol", "start": 7, "end": 8},
    ]
    assert entities_of(row(target, "ner")) == {(8, 10, "人名"), (7, 8, "symbol")}
    assert entities_of(row([], "pii")) == frozenset()


def test_references_are_objects_or_plain_strings() -> None:
    target = [{"text": "张伟", "start": 8}, "Zhang Wei"]
    assert references_of(row(target, "qa")) == ("张伟", "Zhang Wei")
    assert references_of(row([], "qa")) == ()


def test_wanted_candidates_are_positions_or_labels() -> None:
    films = [{"item": "m1", "title": "活着"}, {"title": "Up"}, "m3"]
    relevant = lambda target: relevant_of(row(target, "ranking", candidates=films))  # noqa: E731
    assert relevant(0) == {"m1"}
    assert relevant([1, 2]) == {"Up", "m3"}
    assert relevant("m3") == {"m3"}
    assert candidate_label({"title": "Up", "label": "up"}, where="here") == "up"


SPAN = {"type": "人名", "start": 8, "end": 10}
FAULTS = [
    (entities_of, "person"),
    (entities_of, None),
    (entities_of, ["张伟"]),
    (entities_of, [{**SPAN, "type": ""}]),
    (entities_of, [{**SPAN, "start": "8"}]),
    (entities_of, [{**SPAN, "start": True}]),
    (entities_of, [{**SPAN, "start": -1}]),
    (entities_of, [{**SPAN, "end": 8}]),
    (entities_of, [{**SPAN, "end": len(TEXT) + 1}]),
    (entities_of, [{**SPAN, "start": 9, "end": 11, "text": "张伟"}]),  # UTF-16: emoji is two
    (references_of, {"text": "张伟"}),
    (references_of, [{"start": 8}]),
    (references_of, [" "]),
    (relevant_of, 2),
    (relevant_of, -1),
    (relevant_of, True),
    (relevant_of, []),
    (relevant_of, 1.0),
    (label_set_of, [["a"]]),
    (label_set_of, [""]),
    (label_set_of, 3),
]


@pytest.mark.parametrize(("read", "target"), FAULTS)
def test_a_faulty_target_is_named_by_its_row_without_its_text(read: Any, target: Any) -> None:
    with pytest.raises(RowInvalid) as caught:
        read(row(target, "ner", candidates=["secret a", "secret b"]))
    assert "r7" in caught.value.message
    assert caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint
    assert "张伟" not in caught.value.message


@pytest.mark.parametrize(
    ("read", "target", "said"),
    [
        (entities_of, None, "there is no target, not a list of entities"),
        (references_of, "张伟", "target is a string, not a list of answers"),
        (label_set_of, 3, "target is a number, not a label"),
        (label_set_of, "", "target is empty, not a label"),
    ],
)
def test_a_target_of_another_kind_is_told_in_the_words_of_json(
    read: Any, target: Any, said: str
) -> None:
    with pytest.raises(RowInvalid, match=said):
        read(row(target))


def test_a_candidate_without_a_name_is_refused() -> None:
    for candidate in ({"genres": "drama"}, "", {"title": 3}):
        with pytest.raises(RowInvalid, match="candidate 0"):
            relevant_of(row(0, "ranking", candidates=[candidate]))
    with pytest.raises(RowInvalid, match="no list"):
        relevant_of(row(0, "ranking", candidates="ab"))


@given(st.text(min_size=1), st.data())
def test_any_span_of_any_text_that_states_its_words_is_taken(
    text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    span = {"type": "x", "start": start, "end": end, "text": text[start:end]}
    assert entities_of(Example(text, [span])) == {(start, end, "x")}

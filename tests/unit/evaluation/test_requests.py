"""Labelled rows to requests."""

from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.errors import FileMissing, RowInvalid, TextEmpty
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Mark, Question, Request
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.requests import (
    candidate_of,
    candidates_of,
    content_of,
    passage_of,
    read_items,
    request_of,
)
from instructrec_deploy.text.render import render

DATA = os.environ.get("INSTRUCTREC_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="INSTRUCTREC_DATA names no folder")
FILMS = [
    {"item": "7", "id": "row-1", "title": "Toy Story", "genres": "Animation", "ratings": 3},
    {"item": "9", "title": "大话西游", "genres": ["喜剧", "爱情"], "prior": -2.5},
    {"item": "12", "title": "👾"},
]


def row(**fields: Any) -> Example:
    return Example.from_row(fields, where="data.jsonl:1")


@pytest.fixture
def items(tmp_path: Path) -> dict[str, Candidate]:
    path = tmp_path / "items.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(film, ensure_ascii=False) + "\n" for film in FILMS)
    return read_items(path)


def ask(candidates: tuple[Candidate, ...]) -> Question:
    return Question(instruction=Instruction.of("下一部？", candidates))


def test_a_pair_s_second_text_comes_along() -> None:
    example = row(text="花呗怎么还款", text2="如何还花呗", target="same", id="3")
    assert request_of(example, Question(task="pairs"), top_k=1) == Request(
        "花呗怎么还款", (Question(task="pairs"),), "3", 1, "如何还花呗"
    )
    assert passage_of(example) == render("花呗怎么还款", text2="如何还花呗")


def test_a_relation_s_marks_come_along() -> None:
    example = row(
        text="😊 北京是中国的首都",
        head={"start": 2, "end": 4, "text": "北京"},
        tail={"start": 5, "end": 7, "text": "中国"},
        target="capital of",
    )
    found = request_of(example)
    assert (found.head, found.tail) == (Mark(2, 4), Mark(5, 7))
    assert passage_of(example) == render(example.text, head=Mark(2, 4), tail=Mark(5, 7))


@pytest.mark.parametrize(
    "fields",
    [
        {"head": {"start": 0, "end": 6}},
        {"head": {"start": 0, "end": 6}, "tail": {"start": 7, "end": 99}},
        {"head": {"start": 0, "end": 6, "text": "ecret "}, "tail": {"start": 7, "end": 8}},
        {"head": 3, "tail": {"start": 7, "end": 8}},
        {"history": ["a"]},
        {"candidates": []},
        {"candidates": "abc"},
        {"candidates": [1]},
        {"candidates": [{"genres": "g"}]},
        {"candidates": [{"title": "a", "ratings": -1}]},
        {"candidates": [{"title": "a", "prior": "much"}]},
        {"candidates": [{"title": " ", "item": "7"}]},
        {"candidates": ["7", "9"]},
    ],
)
def test_a_row_that_brings_something_odd_is_named_and_not_quoted(fields: dict[str, Any]) -> None:
    with pytest.raises(RowInvalid, match="row r7") as caught:
        request_of(row(text="secret words", id="r7", **fields), ask=ask)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


def test_a_history_stands_in_place_of_the_text() -> None:
    example = row(history=[FILMS[0], "Heat"], candidates=["a"], target=0)
    assert request_of(example).text == "Heat\nToy Story: Animation"
    assert content_of(example).text == "Heat\nToy Story: Animation"


def test_a_row_without_text_and_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"history": ["a"], "target": 0}\n{"target": "x"}\n', encoding="utf-8")
    with pytest.raises(RowInvalid, match=":2"):
        read_examples(path)


def test_an_empty_text_is_the_request_s_fault_and_no_matter_for_the_content() -> None:
    assert content_of(row(text=" ")).text == " "
    with pytest.raises(TextEmpty):
        request_of(row(text=" "))


def test_items_are_candidates_with_words_and_priors(items: dict[str, Candidate]) -> None:
    assert items == {
        "7": Candidate("7", "Toy Story: Animation", math.log(4)),
        "9": Candidate("9", "大话西游: 喜剧, 爱情", -2.5),
        "12": Candidate("12", "👾"),
    }


def test_ids_among_candidates_are_looked_up(items: dict[str, Candidate]) -> None:
    example = row(history=["x"], candidates=["12", "7"], target=1, id="u1")
    assert candidates_of(example, items) == (items["12"], items["7"])
    request = request_of(example, ask=ask, items=items, top_k=0)
    (question,) = request.questions
    assert question.instruction is not None
    assert question.instruction.labels == ("12", "7")
    assert question.instruction.prior_logits == (0.0, math.log(4))
    with pytest.raises(RowInvalid, match="row u1, candidate 1"):
        candidates_of(row(history=["x"], candidates=["7", "8"], id="u1"), items)


def test_a_candidate_of_a_row_has_its_own_say_before_its_item(items: dict[str, Candidate]) -> None:
    assert candidate_of({"item": "7", "title": "Own", "popularity": 1}, items) == Candidate(
        "7", "Own", math.log(2)
    )
    assert candidate_of({"item": "9"}, items) == items["9"]
    assert candidate_of({"label": "no", "description": "不同意"}, items) == Candidate(
        "no", "不同意"
    )
    assert candidate_of({"title": "Heat"}) == Candidate("Heat", "Heat")
    assert candidate_of("plain") == Candidate("plain")


def test_without_an_asker_a_row_s_candidates_are_left_aside() -> None:
    example = row(text="a", candidates=["7", "9"])
    assert request_of(example, Question(task="t")).questions == (Question(task="t"),)


@pytest.mark.parametrize(
    "lines", ["", '{"title": "a"}\n{"title": "a"}\n', '{"genres": "g"}\n', "[1]\n", "{broken\n"]
)
def test_a_file_that_holds_no_items_is_refused(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(RowInvalid):
        read_items(path)
    with pytest.raises(FileMissing):
        read_items(tmp_path / "none.jsonl")


@needs_data
@pytest.mark.parametrize("name", ["relation/fewrel_wiki16", "classification/bustm"])
def test_every_row_of_a_real_set_can_be_asked(name: str) -> None:
    rows = read_examples(Path(DATA) / f"{name}.jsonl.gz")
    for row in rows:
        request = request_of(row)
        assert (request.head is not None, request.text2 != "") == (
            row.task == "relation",
            row.task == "classification",
        )


@needs_data
def test_every_candidate_of_a_real_set_is_among_its_items() -> None:
    folder = Path(DATA) / "recommendation"
    items = read_items(folder / "movielens_items.jsonl.gz")
    for row in read_examples(folder / "movielens_small.jsonl.gz"):
        candidates = candidates_of(row, items)
        assert len(candidates) == (5 if row.split == "train" else 100)
        assert all(c.prior > 0 and ": " in c.description for c in candidates)
        assert len(request_of(row).text.splitlines()) == len(row.extra["history"])

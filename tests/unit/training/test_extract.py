"""Entities and questions are learned on a tiny model, and long passages are read in windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskBook, TaskSpec, parse_toml
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.run import export_run
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.text.render import Passage
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.recipe import Recipe
from instructrec_training.run import train
from instructrec_training.tokenize_rows import rows_of

TEXTS = (
    "i lost my card",
    "my card is stolen",
    "refund my card",
    "查询余额",
    "我的余额",
    "get a refund",
)
WORDS = {"card": "thing", "余额": "thing", "lost": "event", "stolen": "event", "refund": "event"}


def entities(text: str) -> list[dict[str, Any]]:
    return [
        {"type": kind, "start": text.index(word), "end": text.index(word) + len(word), "text": word}
        for word, kind in WORDS.items()
        if word in text
    ]


def write_rows(folder: Path, kind: str) -> Path:
    rows = []
    for number in range(36):
        text = TEXTS[number % 6]
        row = {"task": kind, "text": text, "id": str(number), "split": "val"}
        row["split"] = ("train", "train", "val", "train", "test", "train")[number // 6]
        if kind == "ner":
            row["target"] = entities(text)
        else:
            answer = entities(text)[0]
            row |= {
                "question": "what thing",
                "target": [{"text": answer["text"], "start": answer["start"]}],
            }
        rows.append(json.dumps(row, ensure_ascii=False))
    folder.mkdir()
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def recipe_of(base: Path, kind: str, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"base": str(base), "dropout": 0.0, "reader_layers": 1} | model,
            "data": [{"path": "rows.jsonl", "task": "t", "validation_split": "val"}],
            "tasks": {"t": {"kind": kind, "instructions": {"en": ["Find it"], "zh": ["找出"]}}},
            "training": {"epochs": 25, "patience": 25, "batch_size": 8, "learning_rate": 5e-3}
            | {"head_learning_rate": 5e-3},
        }
    )


@pytest.mark.parametrize(
    ("kind", "headline", "is_joint"),
    [("ner", "entity_f1", False), ("qa", "f1", False), ("qa", "f1", True)],
)
def test_spans_are_learned(
    kind: str, headline: str, is_joint: bool, tiny_base: Path, tmp_path: Path
) -> None:
    root = write_rows(tmp_path / "data", kind)
    run = tmp_path / "run"
    recipe = recipe_of(tiny_base, kind, joint_questions=is_joint)
    report = train(recipe, run, data_root=root, is_quiet=True)
    assert load_checkpoint(run / "checkpoint").section.joint_questions == is_joint
    assert report.after["t"][headline] >= 0.9
    assert load_checkpoint(run / "checkpoint").section.reader_layers == 1
    book = parse_toml(TaskBook, (run / "tasks.toml").read_text(encoding="utf-8"), where="tasks")
    assert book.tasks["t"].labels == (("event", "thing") if kind == "ner" else ())
    bundle = export_run(run, tmp_path / "bundle", precision="fp32").out
    with Predictor(bundle) as predictor:
        asked = {"instruction": "what thing"} if kind == "qa" else {}
        found = predictor.predict("查询余额", task="t", **asked)
    (span,) = found.spans[:1]
    assert (span.start, span.end, span.text) == (2, 4, "余额")
    assert span.label == ("thing" if kind == "ner" else "")


def test_a_long_passage_becomes_windows_and_the_answer_lies_in_one(tiny_base: Path) -> None:
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=12)
    text = "i want my money back " * 6 + "查询余额 please"
    start = text.index("余额")
    example = Example(text, [{"text": "余额", "start": start}], extra={"question": "what"})
    spec = TaskSpec(kind=TaskKind.QA)
    rows = list(rows_of([example], spec, tokenizer, is_training=False))
    assert len(rows) > 2
    answered = [row for row in rows if row.spans]
    assert answered
    for row in answered:
        (_, first, last), *_ = row.spans
        assert text[row.offsets[first][0] : row.offsets[last][1]] == "余额"
    seen = {place for row in rows for a, b in row.offsets for place in range(a, b)}
    assert {i for i, char in enumerate(text) if char != " "} <= seen  # nothing is left out
    kept = list(rows_of([example], spec, tokenizer, is_training=True))
    assert len(kept) == len(answered) + 1


def test_a_question_that_is_read_with_its_passage_stands_behind_every_window(
    tiny_base: Path,
) -> None:
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=16)
    text = "i want my money back " * 6 + "查询余额 please"
    example = Example(text, ["余额"], extra={"question": "what thing"})
    spec = TaskSpec(kind=TaskKind.QA)
    rows = list(rows_of([example], spec, tokenizer, is_training=False, joint_questions=True))
    behind = tokenizer.encode_passages([Passage("i", "what thing")])[0].ids[2:]
    assert len(rows) > 2
    for row in rows:
        assert row.ids[-len(behind) :] == behind
        assert len(row.ids) <= 16
        assert set(row.offsets[-len(behind) :]) == {(0, 0)}
    seen = {place for row in rows for a, b in row.offsets for place in range(a, b)}
    assert {i for i, char in enumerate(text) if char != " "} <= seen


def test_shorter_windows_are_learned_from_one_with_the_answer_and_of_some_one_without(
    tiny_base: Path,
) -> None:
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    text = "i want my money back " * 12 + "查询余额 please"
    spec = TaskSpec(kind=TaskKind.QA)
    n_empty = []
    for i in range(80):
        example = Example(text, ["余额"], id=f"q{i}", extra={"question": "what thing"})
        given = {"joint_questions": True, "window_tokens": 20}
        learned = list(rows_of([example], spec, tokenizer, is_training=True, **given))
        assert max(len(row.ids) for row in learned) <= 20
        assert sum(bool(row.spans) for row in learned) == 1
        n_empty.append(len(learned) - 1)
        asked = list(rows_of([example], spec, tokenizer, is_training=False, **given))
        assert len(asked[0].ids) > 20  # what is not learned from is read as it is served
    assert set(n_empty) == {0, 1}
    assert 8 <= sum(n_empty) <= 32


def test_a_question_row_without_a_question_is_named(tiny_base: Path) -> None:
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=12)
    rows = rows_of(
        [Example("a", [], id="q7")], TaskSpec(kind=TaskKind.QA), tokenizer, is_training=True
    )
    with pytest.raises(RowInvalid, match="q7"):
        list(rows)

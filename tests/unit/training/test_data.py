"""Splits, batches and padding."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import ConfigError, FileMissing, RowInvalid
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.request import Mark
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.text.render import render
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.data import (
    EVALUATION_TOKENS,
    TaskData,
    epoch_batches,
    held_out_labels,
    in_length_order,
    in_validation,
    load_task_data,
    resolve_data,
)
from instructrec_training.recipe import Recipe
from instructrec_training.rows import Row, pad

MakeRecipe = Callable[..., Recipe]


def task_of(lengths: list[int], *, weight: float = 1.0) -> TaskData:
    rows = tuple(Row([1] * n, 0, str(i)) for i, n in enumerate(lengths))
    return TaskData("t", TaskSpec(labels=("a",)), rows, (), (), weight)


def test_the_hash_puts_about_a_tenth_of_the_rows_aside() -> None:
    chosen = sum(in_validation(f"banking77-train-{i}", 0.1) for i in range(10_000))
    assert 900 < chosen < 1_100  # 3.3 standard deviations of a fair draw


def test_a_row_stays_in_its_split_however_often_it_is_asked() -> None:
    assert in_validation("banking77-train-1", 0.1) == in_validation("banking77-train-1", 0.1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(1, 16))
def test_every_row_stands_in_exactly_one_batch(lengths: list[int], batch_size: int) -> None:
    batches = epoch_batches([task_of(lengths)], batch_size, seed=1, epoch=0)
    seen = [row.text for _, rows in batches for row in rows]
    assert sorted(seen) == sorted(str(i) for i in range(len(lengths)))
    assert max(len(rows) for _, rows in batches) <= batch_size


@given(st.lists(st.integers(1, 40), min_size=1, max_size=100), st.integers(1, 100))
def test_long_rows_share_steps_of_fewer(lengths: list[int], max_tokens: int) -> None:
    batches = epoch_batches([task_of(lengths)], 16, seed=1, epoch=0, max_tokens=max_tokens)
    seen = [row.text for _, rows in batches for row in rows]
    assert sorted(seen) == sorted(str(i) for i in range(len(lengths)))
    for _, rows in batches:
        longest = max(len(row.ids) for row in rows)
        assert len(rows) <= 16
        assert len(rows) == 1 or len(rows) * longest <= max_tokens


def test_spans_are_learned_in_batches_of_their_own_size() -> None:
    labels = task_of([5] * 40)
    entities = replace(labels, spec=labels.spec.model_copy(update={"kind": TaskKind.NER}))
    for span_batch_size, wanted in ((4, 4), (0, 16)):
        batches = epoch_batches(
            [labels, entities], 16, seed=1, epoch=0, span_batch_size=span_batch_size
        )
        assert max(len(rows) for task, rows in batches if task == 0) == 16
        assert max(len(rows) for task, rows in batches if task == 1) == wanted
        assert sum(len(rows) for task, rows in batches if task == 1) == 40


@given(st.lists(st.integers(1, 9_000), max_size=40), st.integers(1, 16))
def test_batches_to_evaluate_hold_every_row_once_and_few_long_ones(
    lengths: list[int], batch_size: int
) -> None:
    rows = task_of(lengths).train
    batches = list(in_length_order(rows, batch_size))
    assert sorted(place for places, _ in batches for place in places) == list(range(len(rows)))
    for places, batch in batches:
        assert [rows[place] for place in places] == batch
        assert 1 <= len(batch) <= batch_size
        longest = max(len(row.ids) for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= EVALUATION_TOKENS


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    tasks = [task_of(list(range(1, 50)))]
    assert epoch_batches(tasks, 8, seed=1, epoch=2) == epoch_batches(tasks, 8, seed=1, epoch=2)
    assert epoch_batches(tasks, 8, seed=1, epoch=2) != epoch_batches(tasks, 8, seed=1, epoch=3)


@pytest.mark.parametrize(("weight", "n_rows"), [(0.5, 20), (1.0, 40), (2.5, 100)])
def test_a_weight_scales_how_many_rows_are_shown(weight: float, n_rows: int) -> None:
    batches = epoch_batches([task_of([3] * 40, weight=weight)], 8, seed=1, epoch=0)
    assert sum(len(rows) for _, rows in batches) == n_rows


def test_padding_is_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_shipped_data_is_found_from_anywhere(tmp_path: Path) -> None:
    for lang in ("en", "zh"):
        assert resolve_data(f"shipped:customer_service/{lang}_intents.jsonl", tmp_path).is_file()


def test_a_missing_file_says_how_to_name_the_root(tmp_path: Path) -> None:
    with pytest.raises(FileMissing) as caught:
        resolve_data("classification/none.jsonl", tmp_path)
    assert "--data-root" in caught.value.hint


def test_labels_that_recipe_and_rows_do_not_share_are_noted(
    tmp_path: Path, make_recipe: MakeRecipe, tiny_base: Path
) -> None:
    rows = [
        {"text": "i lost my card", "target": "praise", "id": "1"},
        {"text": "my card", "target": "lost", "id": "2"},
        {"text": "card", "target": "praise", "id": "3", "split": "test"},
    ]
    lines = [json.dumps({"split": "train"} | row) for row in rows]
    (tmp_path / "intents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    recipe = make_recipe()
    (name,) = recipe.tasks
    assert load_task_data(recipe, tmp_path, tokenizer)[0].notes == ()
    spec = recipe.tasks[name].model_copy(update={"labels": ("lost", "prase")})
    recipe = recipe.model_copy(update={"tasks": {name: spec}})
    notes = load_task_data(recipe, tmp_path, tokenizer)[0].notes
    assert notes == (
        "not among its labels, and left out: 'praise' (2 rows)",
        "no training row has 'prase'",
    )


def test_rows_without_a_text_are_left_out_and_counted(
    tmp_path: Path, make_recipe: MakeRecipe, tiny_base: Path
) -> None:
    texts = ["i lost my card", "", "卡丢了", " \u3000\n"]
    lines = [
        json.dumps({"text": text, "target": "lost", "id": str(number), "split": split})
        for number, text in enumerate(texts)
        for split in ("train", "test")
    ]
    (tmp_path / "intents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    task = load_task_data(make_recipe(), tmp_path, tokenizer)[0]
    kept = [*task.train, *task.validation, *task.test]
    assert {row.example.text for row in kept if row.example} == {"i lost my card", "卡丢了"}
    assert task.notes == ("without a text, and left out: 4 rows",)


def test_a_row_without_a_label_is_named(
    tmp_path: Path, make_recipe: MakeRecipe, tiny_base: Path
) -> None:
    (tmp_path / "intents.jsonl").write_text(
        '{"text": "i lost my card", "id": "row-7", "split": "train"}\n', encoding="utf-8"
    )
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    with pytest.raises(RowInvalid, match="row-7"):
        load_task_data(make_recipe(), tmp_path, tokenizer)


def test_a_pair_is_read_as_evaluation_reads_it(
    tmp_path: Path, make_recipe: MakeRecipe, tiny_base: Path
) -> None:
    (tmp_path / "intents.jsonl").write_text(
        '{"text": "i lost my card", "text2": "my card is stolen", "target": "same", "id": "1"}\n',
        encoding="utf-8",
    )
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    row = load_task_data(make_recipe(), tmp_path, tokenizer)[0].train[0]
    pair = render("i lost my card", text2="my card is stolen")
    assert row.ids == tokenizer.encode_passages([pair])[0].ids
    assert row.example is not None
    assert row.example.text2 == "my card is stolen"


def test_a_relation_and_a_history_are_read_as_evaluation_reads_them(
    tmp_path: Path, make_recipe: MakeRecipe, tiny_base: Path
) -> None:
    rows = [
        {"text": "my card, 我的卡", "head": [3, 7], "tail": [9, 12], "target": "same", "id": "1"},
        {"history": ["card", {"title": "pin", "genres": "new"}], "target": "refund", "id": "2"},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "intents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    found = load_task_data(make_recipe(), tmp_path, tokenizer)[0].train
    wanted = [
        render("my card, 我的卡", head=Mark(3, 7), tail=Mark(9, 12)),
        render("pin: new\ncard"),
    ]
    assert [row.ids for row in found] == [e.ids for e in tokenizer.encode_passages(wanted)]


@pytest.mark.parametrize("ending", [".csv", ".tsv.gz"])
def test_a_recipe_reads_a_table_with_columns_of_other_names(
    ending: str, tmp_path: Path, make_recipe: MakeRecipe, tiny_base: Path
) -> None:
    table = "query,intent,split\n我的余额,余额,train\n查询余额,余额,val\n"
    if ending == ".csv":
        (tmp_path / "rows.csv").write_text(table, encoding="utf-8")
    else:
        (tmp_path / "rows.tsv.gz").write_bytes(gzip.compress(table.replace(",", "\t").encode()))
    columns = {"text": "query", "target": "intent"}
    recipe = make_recipe()
    part = recipe.data[0].model_copy(update={"path": f"rows{ending}", "columns": columns})
    recipe = recipe.model_copy(update={"data": (part,)})
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    (task,) = load_task_data(recipe, tmp_path, tokenizer)
    assert [row.text for row in task.train] == ["我的余额"]
    assert [row.text for row in task.validation] == ["查询余额"]
    assert task.spec.labels == ("余额",)


def test_rows_of_held_out_labels_are_in_no_part(
    make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path
) -> None:
    assert held_out_labels(["mpg", "apr", "余额", "time", "mpg"], 2) == {"mpg", "apr"}
    with pytest.raises(ConfigError, match="the file has 2 labels"):
        held_out_labels(["a", "b"], 2)
    lines = [
        json.dumps({"text": "i lost my card", "target": label, "id": f"{label}{n}", "split": split})
        for n, label in enumerate(["mpg", "apr", "time"] * 8)
        for split in ("train", "test")
    ]
    (tmp_path / "intents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = make_recipe()
    parts = [part.model_copy(update={"held_out_labels": 2}) for part in recipe.data]
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    changed = recipe.model_copy(update={"data": tuple(parts)})
    (task,) = load_task_data(changed, tmp_path, tokenizer)
    assert task.spec.labels == ("time",)
    seen = {
        row.example.target for row in (*task.train, *task.validation, *task.test) if row.example
    }
    assert seen == {"time"}


def test_evaluation_rows_are_drawn_and_training_rows_are_not(
    make_recipe: MakeRecipe, tiny_base: Path, data_root: Path
) -> None:
    recipe = make_recipe()
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    (whole,) = load_task_data(recipe, data_root, tokenizer)
    settings = recipe.training.model_copy(update={"evaluation_rows": 2})
    (few,) = load_task_data(recipe.model_copy(update={"training": settings}), data_root, tokenizer)
    assert few.train == whole.train
    for drawn, rows in ((few.validation, whole.validation), (few.test, whole.test)):
        assert len(drawn) == min(2, len(rows))
        assert [row for row in rows if row in drawn] == list(drawn)
    assert few.spec.labels == whole.spec.labels

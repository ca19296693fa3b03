"""Every data file that comes with the package, whoever adds the next one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import instructrec_training

DATA = Path(instructrec_training.__file__).parent / "data"
FILES = sorted(file.relative_to(DATA).as_posix() for file in DATA.glob("*/*.jsonl"))
LABELLED = [name for name in FILES if not name.endswith("_entities.jsonl")]


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_files_that_recipes_and_pages_name_are_there() -> None:
    assert {
        "customer_service/en_intents.jsonl",
        "customer_service/zh_intents.jsonl",
        "headlines/zh_topics.jsonl",
    } <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_in_one_language_and_its_rows_have_ids_of_their_own(name: str) -> None:
    rows = rows_of(name)
    assert {row["lang"] for row in rows} == {Path(name).name[:2]}
    assert len({row["dataset"] for row in rows}) == 1
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", LABELLED)
def test_no_text_stands_twice(name: str) -> None:
    counts = Counter(row["text"].strip().casefold() for row in rows_of(name))
    assert [text for text, n in counts.items() if n > 1] == []


@pytest.mark.parametrize("name", FILES)
def test_about_a_tenth_of_the_rows_is_put_aside_twice(name: str) -> None:
    rows = rows_of(name)
    counts = Counter(row["split"] for row in rows)
    assert set(counts) == {"train", "val", "test"}
    assert min(counts["val"], counts["test"]) > 0.05 * len(rows)
    assert counts["train"] > 0.6 * len(rows)


@pytest.mark.parametrize("name", LABELLED)
def test_every_label_is_learned_before_it_is_asked(name: str) -> None:
    rows = rows_of(name)
    learned = {row["target"] for row in rows if row["split"] == "train"}
    assert {row["target"] for row in rows} == learned


def test_most_headlines_do_not_contain_their_topic() -> None:
    rows = rows_of("headlines/zh_topics.jsonl")
    named = [row["id"] for row in rows if row["target"] in row["text"]]
    assert len(named) < len(rows) / 3

"""Made-up messages with names: the shipped rows, and what keeps test rows apart."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from instructrec_training.people import HELD_BACK, PARTS, make_rows

LANGS = ("en", "zh")


def shipped(lang: str) -> list[dict[str, Any]]:
    lines = (PARTS / f"{lang}_names.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("lang", LANGS)
def test_the_shipped_rows_are_those_that_are_made(lang: str) -> None:
    parts = tomllib.loads((PARTS / f"{lang}.toml").read_text(encoding="utf-8"))
    assert make_rows(lang, parts) == shipped(lang)


@pytest.mark.parametrize("lang", LANGS)
def test_every_span_is_what_it_says(lang: str) -> None:
    rows = shipped(lang)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        assert "{" not in row["text"]
        assert HELD_BACK not in row["text"]
        for span in row["target"]:
            assert row["text"][span["start"] : span["end"]] == span["text"]
    assert any(not row["target"] for row in rows)


@pytest.mark.parametrize(("lang", "type_"), [("en", "organization"), ("zh", "人名")])
def test_what_is_tested_was_not_trained_on(lang: str, type_: str) -> None:
    values: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in shipped(lang):
        if row["split"] in values:
            values[row["split"]] |= {s["text"] for s in row["target"] if s["type"] == type_}
    assert min(map(len, values.values())) > 10
    assert not values["train"] & values["test"]

"""Recipes: shipped ones load, faults are all named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_training.recipe import read_recipe, recipe_folders

SHIPPED = sorted({file for folder in recipe_folders() for file in folder.glob("*.toml")})
GOOD = """
name = "r"
[[data]]
path = "a.jsonl"
task = "intent"
[tasks.intent.instructions]
zh = ["这位顾客想做什么？"]
"""


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_loads(file: Path) -> None:
    assert read_recipe(file).name == file.stem


def test_a_shipped_recipe_is_found_by_its_bare_name() -> None:
    assert read_recipe("demo-zh").model.base == "e5-enzh"


def test_a_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(FileMissing) as caught:
        read_recipe("demo-fr")
    assert "demo-en" in caught.value.hint


def test_an_unknown_key_is_named_with_the_nearest_valid_one(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(GOOD + "[training]\nlearning_rat = 1e-4\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_recipe(file)
    assert "training.learning_rat: unknown key" in caught.value.message
    assert "learning_rate" in caught.value.hint


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(GOOD + "[training]\nepochs = -1\nbatch_size = 0\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_recipe(file)
    assert "training.epochs" in caught.value.message
    assert "training.batch_size" in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not valid TOML"),
        (GOOD.replace('task = "intent"', 'task = "mood"'), "'mood' is not in [tasks]"),
        (GOOD.replace('zh = ["这位顾客想做什么？"]', "zh = []"), "has no instructions"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        read_recipe(file)

"""The shipped recipe for content safety: its rows, its labels, its thresholds."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

from instructrec_deploy.core.wordings import find_family
from instructrec_training.recipe import Recipe, read_recipe
from instructrec_training.run import RunReport

OWN_TASKS = {"content": "en", "content-zh": "zh"}


def test_its_labels_are_those_of_the_family_in_each_language() -> None:
    tasks = read_recipe("content-safety").tasks
    for name, lang in OWN_TASKS.items():
        words = find_family("content").wordings(lang)
        assert list(tasks[name].labels) == list(words.styles["short"])
        assert set(tasks[name].descriptions) == set(tasks[name].labels)
        assert tasks[name].decision == "any"


def test_it_learns_from_training_rows_alone() -> None:
    parts = {part.path: part for part in read_recipe("content-safety").data}
    assert {part.train_split for part in parts.values()} == {"train"}
    assert parts["safety/tweet_offensive.jsonl.gz"].validation_split == "val"


def test_a_run_gives_each_category_a_threshold_in_each_language(
    tiny_base: Path, run: Callable[..., RunReport]
) -> None:
    content = read_recipe("content-safety").model_dump()
    content["model"] |= {"base": str(tiny_base), "max_tokens": 32}
    content["data"] = [part for part in content["data"] if part["task"] in OWN_TASKS]
    content["tasks"] = {name: content["tasks"][name] for name in OWN_TASKS}
    for task in content["tasks"].values():  # one wording: each is measured on all test rows
        task["instructions"] = {lang: words[:1] for lang, words in task["instructions"].items()}
        task["held_out"] = {}
    content["training"] |= {"freeze_layers": 0, "epochs": 1, "steps_per_epoch": 1}
    report = run(Recipe.model_validate(content))
    book = tomllib.loads((report.folder / "tasks.toml").read_text(encoding="utf-8"))["tasks"]
    for name in OWN_TASKS:
        assert set(book[name]["thresholds"]) == set(book[name]["labels"])

"""`instructions_from`: a recipe's tasks take their words from the shipped families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.core.wordings import find_family
from instructrec_training.recipe import Recipe, read_recipe

GOOD = 'name = "r"\n[[data]]\npath = "a.jsonl"\ntask = "mood"\n[tasks.mood]\n'


def recipe_of(tmp_path: Path, task: str) -> Recipe:
    file = tmp_path / "r.toml"
    file.write_text(GOOD + task, encoding="utf-8")
    return read_recipe(file)


def test_a_family_brings_wordings_and_the_unseen_one_in_both_languages(tmp_path: Path) -> None:
    spec = recipe_of(tmp_path, 'instructions_from = "emotion"\n').tasks["mood"]
    family = find_family("emotion")
    assert spec.instructions == {"en": family.en.wordings, "zh": family.zh.wordings}
    assert spec.held_out == {"en": family.en.held_out, "zh": family.zh.held_out}
    assert spec.lang == "en"
    assert spec.instruction("mood", "").text if spec.labels else True


def test_one_language_alone_may_be_taken_and_is_the_tasks_own_then(tmp_path: Path) -> None:
    spec = recipe_of(tmp_path, 'instructions_from = "review-sentiment.zh"\n').tasks["mood"]
    assert list(spec.instructions) == ["zh"]
    assert spec.lang == "zh"
    assert spec.descriptions["负面"] == "差评，不满意"


def test_the_kind_of_the_family_is_the_tasks(tmp_path: Path) -> None:
    assert recipe_of(tmp_path, 'instructions_from = "slots"\n').tasks["mood"].kind is TaskKind.NER


def test_keys_of_the_recipe_stand_before_the_familys(tmp_path: Path) -> None:
    task = (
        'instructions_from = "sentiment.en"\ndescriptions = {}\nlang = "en"\n'
        'held_out = { en = "Mine" }\n[tasks.mood.instructions]\nen = ["Own words"]\n'
    )
    spec = recipe_of(tmp_path, task).tasks["mood"]
    assert spec.descriptions == {}
    assert spec.instructions == {"en": ("Own words",)}
    assert spec.held_out == {"en": "Mine"}


def test_only_labels_the_task_has_are_described(tmp_path: Path) -> None:
    task = 'instructions_from = "sentiment"\nlang = "zh"\nlabels = ["positive", "mixed"]\n'
    assert recipe_of(tmp_path, task).tasks["mood"].descriptions == {"positive": "正面，满意"}


def test_the_resolved_recipe_holds_the_words_and_reads_back(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, 'instructions_from = "irony"\n')
    plain: dict[str, Any] = recipe.model_dump(mode="json")
    assert "instructions_from" not in plain["tasks"]["mood"]
    assert Recipe.model_validate(plain) == recipe


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ('instructions_from = "emotions"\n', "tasks.mood.instructions_from: no family"),
        ('instructions_from = "emotions"\n', "did you mean 'emotion'"),
        ('instructions_from = "emotion.fr"\n', "not in 'fr'"),
        ("instructions_from = 3\n", "no family of wordings '3'"),
        ('instruction_from = "emotion"\n', "unknown key"),
        ('instructions_from = "emotion"\nheld_out = { en = "Emotion" }\n', "held_out.en"),
    ],
)
def test_a_wrong_family_is_refused_where_it_stands(tmp_path: Path, task: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_of(tmp_path, task)
    assert words in caught.value.message


def test_a_misspelt_key_is_told_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_of(tmp_path, 'instruction_from = "emotion"\n')
    assert "instructions_from" in caught.value.hint


def test_all_unknown_families_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_of(tmp_path, 'instructions_from = "x"\n[tasks.other]\ninstructions_from = "y"\n')
    assert "tasks.mood" in caught.value.message
    assert "tasks.other" in caught.value.message

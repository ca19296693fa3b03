"""Attacked copies of training rows: the label stays, the share and the seed decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_training.injected import with_attacks
from instructrec_training.recipe import Recipe, with_values
from instructrec_training.run import RunReport
from tests.tiny_runs import weights_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]
LABELS = ("card lost", "refund", "余额")
ROWS = [
    Example(text, label, id=str(number))
    for number, (text, label) in enumerate(
        [("i lost {my} card", "card lost"), ("refund me", "refund"), ("查余额😀", "余额")] * 100
    )
]


def spec(**changes: object) -> TaskSpec:
    return TaskSpec.model_validate({"labels": LABELS, "instructions": {"en": ["What?"]}, **changes})


def test_a_copy_names_another_label_and_keeps_its_own() -> None:
    rows = with_attacks(ROWS, spec(), 1.0, seed=3)
    assert rows[: len(ROWS)] == ROWS
    copies = rows[len(ROWS) :]
    assert len(copies) == len(ROWS)
    for row, copy in zip(ROWS, copies, strict=True):
        assert copy.target == row.target
        assert row.text in copy.text
        added = copy.text.replace(row.text, "")
        assert any(label in added for label in LABELS if label != row.target)
        assert row.target not in added
        assert copy.id == f"{row.id}#attacked"


def test_share_and_seed_decide_and_nothing_else_does() -> None:
    drawn = with_attacks(ROWS, spec(), 0.3, seed=3)
    n_copies = len(drawn) - len(ROWS)
    assert 50 < n_copies < 130  # of 300, five standard deviations
    assert drawn == with_attacks(ROWS, spec(), 0.3, seed=3)
    assert drawn != with_attacks(ROWS, spec(), 0.3, seed=4)
    again = with_attacks(ROWS[::-1], spec(), 0.3, seed=3)
    assert {row.id for row in again} == {row.id for row in drawn}


def test_nothing_is_added_without_a_share_or_another_label() -> None:
    assert with_attacks(ROWS, spec(), 0.0, seed=3) == ROWS
    lone = [row for row in ROWS if row.target == "refund"]
    assert with_attacks(lone, spec(labels=()), 1.0, seed=3) == lone


def test_rows_that_fit_no_label_are_left_alone() -> None:
    rows = [*ROWS[:2], Example("hello", "none", id="n")]
    found = with_attacks(rows, spec(none_label="none"), 1.0, seed=3)
    assert [row.id for row in found[3:]] == ["0#attacked", "1#attacked"]


def attacked(recipe: Recipe, position: int, **changes: object) -> Recipe:
    content = recipe.model_dump()
    content["data"][position].update({"attacked": 1.0, **changes})
    return Recipe.model_validate(content)


def test_a_run_learns_from_the_copies_and_measures_none(
    make_recipe: MakeRecipe, run: Callable[..., RunReport]
) -> None:
    report = run(attacked(make_recipe(epochs=0), 0, shots=3))
    rows = json.loads((report.folder / "evaluation.json").read_text())["rows"]["intent"]
    assert rows == {"train": 18, "validation": 6, "test": 6}


def test_a_run_starts_from_a_regression_without_the_copies(
    make_recipe: MakeRecipe, run: Callable[..., RunReport]
) -> None:
    start = with_values(make_recipe(epochs=0, probe=True), {"model.use_fusion": False})
    ends = with_values(start, {"training.probe_again": True})
    plain = weights_of(run(start, "plain").folder)["label_vectors.intent"]
    started = weights_of(run(attacked(start, 0), "started").folder)["label_vectors.intent"]
    ended = weights_of(run(attacked(ends, 0), "ended").folder)["label_vectors.intent"]
    assert plain.any()
    assert started.equal(plain)
    assert not ended.allclose(plain)  # the last one is fitted to all that was learned from


def test_a_task_without_one_label_a_row_has_no_copies(
    make_recipe: MakeRecipe, data_root: Path
) -> None:
    recipe = with_all_shapes(make_recipe(), data_root)
    for position in (1, 2):  # any of some labels, spans
        with pytest.raises(ValidationError, match=f"data.{position}.attacked"):
            attacked(recipe, position)

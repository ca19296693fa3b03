"""A run may start from the weights that another run left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_training.recipe import Recipe, with_values
from instructrec_training.run import RunReport
from tests.tiny_runs import with_all_shapes

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]


def from_run(recipe: Recipe, report: RunReport, **values: object) -> Recipe:
    base = str(report.folder / "checkpoint")
    return with_values(recipe, {"model.base": base, "training.epochs": 0, **values})


def test_a_run_goes_on_where_another_ended(make_recipe: MakeRecipe, run: Run) -> None:
    first = run(make_recipe(epochs=3))
    second = run(from_run(make_recipe(), first), "second")
    assert second.before["intent"]["accuracy"] != first.before["intent"]["accuracy"]
    old, new = (load_checkpoint(r.folder / "checkpoint") for r in (first, second))
    weights = new.model.state_dict()
    assert all(torch.equal(value, weights[k]) for k, value in old.model.state_dict().items())
    assert new.section.base == old.section.base  # the pretrained model, not the run between


def test_a_span_reader_comes_and_goes_with_the_tasks(
    make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    labels = make_recipe(epochs=1)
    first = run(labels)
    spans = with_all_shapes(labels, data_root)
    second = run(from_run(spans, first), "second")
    reading = load_checkpoint(second.folder / "checkpoint")
    assert reading.section.reader_layers == spans.model.reader_layers
    third = run(from_run(labels, second), "third")
    assert load_checkpoint(third.folder / "checkpoint").section.reader_layers == 0


def test_the_new_recipe_decides_on_window_and_dropout(make_recipe: MakeRecipe, run: Run) -> None:
    first = run(make_recipe(epochs=0))
    changes = {"model.max_tokens": 16, "model.dropout": 0.0}
    second = run(from_run(make_recipe(), first, **changes), "second")
    found = load_checkpoint(second.folder / "checkpoint")
    assert found.section.max_tokens == 16


def test_another_kind_of_checkpoint_is_refused(make_recipe: MakeRecipe, run: Run) -> None:
    first = run(make_recipe("sequence-classification", epochs=0))
    with pytest.raises(ConfigError, match="holds a sequence-classification"):
        run(from_run(make_recipe(), first), "second")

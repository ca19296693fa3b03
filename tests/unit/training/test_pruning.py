"""A run is pruned by measured importance and goes on as a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.export.run import export_run
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.models.shrink import layers_of, linear, parts_of
from instructrec_training.data import load_task_data
from instructrec_training.importance import (
    choose_layers,
    draw_batches,
    mean_loss,
    measure_units,
)
from instructrec_training.learners import EncoderLearner
from instructrec_training.pruning import Pruning, prune_run
from instructrec_training.recipe import Recipe
from instructrec_training.run import RunReport
from tests.tiny_runs import with_all_shapes

Make = Callable[..., Recipe]
Run = Callable[..., RunReport]
SMALL = Pruning(ffn=0.5, heads=0.5, layers=1, rows=24, epochs=1)


def encoder_of(run: Path) -> Any:
    return load_checkpoint(run / "checkpoint").model.encoder


@pytest.mark.parametrize("kind", ["instruction-encoder", "sequence-classification"])
def test_a_pruned_run_is_smaller_and_is_exported_with_fewer_units(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path, kind: str
) -> None:
    run(make_recipe(kind, "mean"))
    said: list[str] = []
    pruned = prune_run(
        tmp_path / "run",
        SMALL,
        tmp_path / "small",
        data_root=data_root,
        is_quiet=True,
        say=said.append,
    )
    checkpoint = load_checkpoint(tmp_path / "small" / "checkpoint")
    encoder = encoder_of(tmp_path / "small")
    assert checkpoint.section.kept_heads == 1
    assert encoder.config.intermediate_size == 32
    assert len(layers_of(encoder)) == encoder.config.num_hidden_layers == 1
    facts = json.loads((tmp_path / "small" / "evaluation.json").read_text("utf-8"))["pruning"]
    assert facts == pruned.facts
    assert facts["n_parameters"] == checkpoint.n_parameters
    assert facts["n_parameters"] < facts["unpruned"]["n_parameters"]
    assert (facts["n_heads"], facts["n_neurons"], len(facts["layers"])) == (1, 32, 1)
    assert facts["unpruned"]["after"]["intent"]["n"] == 6
    assert any("goes: loss" in line for line in said)
    report = export_run(tmp_path / "small", tmp_path / "bundle", precision="fp32")
    assert report.parity.max_difference < 1e-4
    graph = onnx.load(report.out / "graphs" / "encoder.onnx").graph
    assert [n.op_type for n in graph.node].count("MultiHeadAttention") == 1
    shapes = {tuple(c.dims) for c in graph.initializer}
    assert {(32, 16), (16, 32)} <= shapes  # 32 wide, one head of 16


def test_the_recovery_learns_from_the_unpruned_model(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    run(make_recipe(average_with_base=0.5, probe=True))
    longer = replace(SMALL, epochs=3)
    prune_run(tmp_path / "run", longer, tmp_path / "small", data_root=data_root, is_quiet=True)
    recipe = json.loads((tmp_path / "small" / "recipe.json").read_text("utf-8"))["training"]
    assert recipe["teacher"] == str((tmp_path / "run" / "checkpoint").resolve())
    assert (recipe["average_with_base"], recipe["probe"], recipe["epochs"]) == (0.0, False, 3)
    assert recipe["patience"] == 3  # what small steps gain comes at the end


def test_a_model_of_all_shapes_keeps_the_layers_under_its_span_reader(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    run(with_all_shapes(make_recipe(), data_root, epochs=1))
    pruned = prune_run(
        tmp_path / "run", SMALL, tmp_path / "small", data_root=data_root, is_quiet=True
    )
    assert pruned.facts["layers"] == [1]
    report = export_run(tmp_path / "small", tmp_path / "bundle", precision="fp32")
    assert report.parity.max_difference < 1e-4


def test_a_resumed_run_keeps_what_was_chosen(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    run(make_recipe())
    out = tmp_path / "small"
    prune_run(tmp_path / "run", SMALL, out, data_root=data_root, is_quiet=True)
    chosen = (out / "pruning.json").read_text("utf-8")
    shutil.rmtree(out / "state")
    weights = load_checkpoint(out / "checkpoint").model.state_dict()
    prune_run(tmp_path / "run", SMALL, out, data_root=data_root, is_quiet=True, resume=True)
    assert (out / "pruning.json").read_text("utf-8") == chosen
    for name, weight in load_checkpoint(out / "checkpoint").model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=0.0, atol=0.0)
    other = Pruning(ffn=0.5, layers=1, rows=24, epochs=1)
    with pytest.raises(ConfigError, match="other settings"):
        prune_run(tmp_path / "run", other, out, data_root=data_root, is_quiet=True, resume=True)


def test_importance_is_what_the_loss_changes_by_to_first_order(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe()
    run(recipe)
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    tokenizer = checkpoint.open_tokenizer()
    tasks = load_task_data(recipe, data_root, tokenizer)
    learner = EncoderLearner(checkpoint, tasks, tokenizer, recipe.training).eval()
    torch.manual_seed(0)
    batches = [(0, tasks[0].train[:16])]
    base = checkpoint.model.encoder
    outer, output = (linear(place) for place in (parts_of(base)[1].outer, parts_of(base)[1].output))
    with torch.no_grad():
        outer.weight[:, 3] = 0.0
        outer.weight[:, 5] *= 30.0
    state = {name: weight.clone() for name, weight in learner.state_dict().items()}
    found = measure_units(learner, base, None, batches)
    assert found.neurons[1][3] == 0.0
    assert found.neurons[1].argmax() == 5
    whole, step = mean_loss(learner, batches), 1e-2
    for weight, unit, told in (
        (outer.weight, slice(5, 6), found.neurons[1][5]),
        (output.weight, slice(16, 32), found.heads[1][1]),
    ):
        with torch.no_grad():
            before = weight[:, unit].clone()
            weight[:, unit] *= 1.0 - step
            slope = abs(mean_loss(learner, batches) - whole) / step
            weight[:, unit] = before
        # a difference of float32 losses over a step of 1 %
        assert slope == pytest.approx(float(told), rel=0.1, abs=2e-4)
    for name, weight in learner.state_dict().items():
        torch.testing.assert_close(weight, state[name], rtol=0.0, atol=0.0)


def test_the_layer_that_does_nothing_goes_first(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe()
    run(recipe)
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    tokenizer = checkpoint.open_tokenizer()
    tasks = load_task_data(recipe, data_root, tokenizer)
    learner = EncoderLearner(checkpoint, tasks, tokenizer, recipe.training).eval()
    base = checkpoint.model.encoder
    batches = draw_batches(tasks, 24, seed=1)
    with torch.no_grad():
        for part in parts_of(base)[:1]:
            for place in (part.output, part.outer):
                linear(place).weight.zero_()
                linear(place).bias.zero_()
    assert choose_layers(learner, base, batches, 1) == [1]
    assert choose_layers(learner, base, batches, 1, n_protected=1) == [1]
    assert len(layers_of(base)) == 2


@pytest.mark.parametrize(
    ("pruning", "words"),
    [
        (Pruning(), "nothing to prune"),
        (Pruning(ffn=0.0), "ffn is 0"),
        (Pruning(heads=1.5), "heads is 1.5"),
        (Pruning(layers=3), "the model has 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path, pruning: Pruning, words: str
) -> None:
    run(make_recipe(epochs=1))
    with pytest.raises(ConfigError, match=words):
        prune_run(tmp_path / "run", pruning, tmp_path / "out", data_root=data_root, is_quiet=True)


def test_what_is_no_run_is_refused(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no finished run"):
        prune_run(tmp_path, SMALL, tmp_path / "out", data_root=data_root, is_quiet=True)

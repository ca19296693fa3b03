"""Whole runs on a tiny model: they learn, they resume exactly, their checkpoint reads back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.bert.modeling_bert import BertPreTrainedModel

from instructrec_deploy.cli.report import explain_os
from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.manifest import TaskBook, TaskSpec, parse_toml
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.tasks.classify import probabilities
from instructrec_training.objectives.labelled import measure_classes
from instructrec_training.recipe import Recipe
from instructrec_training.rows import Row
from instructrec_training.run import train
from tests.full_disk import full_disk
from tests.tiny_runs import allow_any_label

KINDS = ("instruction-encoder", "sequence-classification")
MakeRecipe = Callable[..., Recipe]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(run / "checkpoint")
    return checkpoint.model.state_dict() | {
        f"l.{k}": v for k, v in checkpoint.label_vectors.items()
    }


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_training_fits_the_data(
    kind: str, make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(kind, epochs=30, patience=30, probe=True)
    report = train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.after["intent"]["accuracy"] >= max(0.8, report.before["intent"]["accuracy"])
    losses = [event["loss"] for event in log_of(tmp_path / "run") if event["event"] == "epoch"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_folder_holds_what_export_needs(
    kind: str, make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(make_recipe(kind, epochs=1), run, data_root=data_root, is_quiet=True)
    checkpoint = load_checkpoint(run / "checkpoint")
    assert checkpoint.section.kind == kind
    assert "\n" not in checkpoint.tokenizer_path.read_text(encoding="utf-8")  # compact
    book = parse_toml(TaskBook, (run / "tasks.toml").read_text(encoding="utf-8"), where="tasks")
    assert book.tasks["intent"].labels == ("card lost", "refund", "余额")
    samples = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["task"] == "intent" for line in samples)
    after = json.loads((run / "evaluation.json").read_text())["after"]["intent"]
    assert after["n"] == 6
    assert 0 <= after["ece"] <= 1


def test_probabilities_are_measured_as_they_will_be_served() -> None:
    rows, logits = [Row([1], 0, "a")] * 2, torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    for temperature in (1.0, 4.0):
        spec = TaskSpec(labels=("退款", "card"), temperature=temperature)
        sure = probabilities(logits[:1].numpy(), temperature)[0, 0]
        found = measure_classes(spec, rows, list(logits), n_resamples=0)
        assert found["brier"] == pytest.approx(((1 - sure) ** 2 + sure**2) / 2, abs=1e-6)


def test_a_diverged_model_is_measured_without_probabilities() -> None:
    rows = [Row([1], 0, "a"), Row([1], 1, "b")]
    spec = TaskSpec(labels=("a", "b"))
    found = measure_classes(spec, rows, list(torch.full((2, 2), torch.nan)), n_resamples=0)
    assert found["n"] == 2
    assert "ece" not in found


@pytest.mark.parametrize("kind", KINDS)
def test_any_of_the_labels_is_learned_and_its_thresholds_are_kept(
    kind: str, make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    allow_any_label(data_root)
    recipe = make_recipe(kind, epochs=60, patience=60, learning_rate=3e-3)
    task = recipe.tasks["intent"].model_copy(update={"decision": "any"})
    recipe = recipe.model_copy(update={"tasks": {"intent": task}})
    report = train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.after["intent"]["micro_f1"] >= 0.8
    content = (tmp_path / "run/tasks.toml").read_text(encoding="utf-8")
    spec = parse_toml(TaskBook, content, where="tasks").tasks["intent"]
    assert spec.labels == ("card lost", "refund")
    assert spec.offset is not None


def test_rows_outside_the_labels_decide_what_fits_none(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(epochs=10, patience=10)
    task = recipe.tasks["intent"].model_copy(update={"none_label": "余额"})
    recipe = recipe.model_copy(update={"tasks": {"intent": task}})
    report = train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.after["intent"]["n_out_of_scope"] == 2
    content = (tmp_path / "run/tasks.toml").read_text(encoding="utf-8")
    spec = parse_toml(TaskBook, content, where="tasks").tasks["intent"]
    assert spec.labels == ("card lost", "refund")
    assert spec.none_logit is not None


@pytest.mark.parametrize(
    ("kind", "pooling"), [(KINDS[0], "native"), (KINDS[1], "native"), (KINDS[1], "mean")]
)
def test_the_weights_of_the_base_are_loaded_once(
    kind: str,
    pooling: str,
    make_recipe: MakeRecipe,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = []
    real = BertPreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: type, *args: object, **kwargs: object) -> object:
        loaded.append(cls.__name__)
        return real(cls, *args, **kwargs)

    monkeypatch.setattr(BertPreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    recipe = make_recipe(kind, pooling, epochs=0)
    train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert len(loaded) == 1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        recipe = make_recipe(epochs=1, seed=seed)
        train(recipe, tmp_path / name, data_root=data_root, is_quiet=True)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_early_stopping_keeps_the_best_epoch(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(epochs=30, patience=2, learning_rate=1e-9, head_learning_rate=1e-9)
    train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert len([e for e in log_of(tmp_path / "run") if e["event"] == "epoch"]) == 3


def test_a_start_from_a_regression_is_no_epoch_for_early_stopping(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    still = {"learning_rate": 1e-9, "head_learning_rate": 1e-9}
    recipe = make_recipe(epochs=30, patience=2, probe=True, **still)
    train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert len([e for e in log_of(tmp_path / "run") if e["event"] == "epoch"]) == 3


def test_a_run_whose_data_is_not_there_leaves_its_folder_free(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe, run = make_recipe(epochs=1), tmp_path / "run"
    with pytest.raises(FileMissing):
        train(recipe, run, data_root=tmp_path / "nowhere", is_quiet=True)
    assert not run.exists()
    assert train(recipe, run, data_root=data_root, is_quiet=True).folder == run


def test_a_folder_with_a_run_is_not_overwritten(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(make_recipe(epochs=1), run, data_root=data_root, is_quiet=True)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(make_recipe(epochs=1), run, data_root=data_root, is_quiet=True)
    with pytest.raises(ConfigError, match="another recipe"):
        train(make_recipe(epochs=2), run, data_root=data_root, resume=True, is_quiet=True)


@pytest.mark.parametrize("max_bytes", [20_000, 120_000])
def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(
    max_bytes: int, make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    run, recipe = tmp_path / "run", make_recipe(epochs=1)
    with full_disk(max_bytes), pytest.raises(Exception) as caught:  # noqa: PT011 a library's
        train(recipe, run, data_root=data_root, is_quiet=True)
    told = explain_os(caught.value)
    assert told is not None
    assert "file too large" in told.message
    assert list(run.rglob("*.part")) == []
    report = train(recipe, run, data_root=data_root, resume=True, is_quiet=True)
    assert report.after["intent"]["n"] == 6


def test_a_folder_with_other_things_is_refused(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        train(make_recipe(), tmp_path, data_root=data_root, is_quiet=True)


def test_no_text_of_the_data_stands_in_the_log(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    train(make_recipe(epochs=1), tmp_path / "run", data_root=data_root, is_quiet=True)
    assert "lost my card" not in (tmp_path / "run/log.jsonl").read_text(encoding="utf-8")


def test_an_untuned_fusion_leaves_the_cosine_alone(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(epochs=0)
    train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    model = load_checkpoint(tmp_path / "run/checkpoint").model
    assert isinstance(model, InstructionEncoder)
    states, pooled = torch.randn(2, 5, 32), torch.randn(2, 32)
    vectors = torch.randn(4, 32)
    scores = model.score(states, torch.ones(2, 5, dtype=torch.int64), pooled, vectors)
    assert torch.allclose(scores, model.log_scale.exp() * pooled @ vectors.T)


def test_kinds_that_want_no_fusion_are_scored_by_the_cosine_in_the_run_and_its_checkpoint(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(epochs=1)
    part = recipe.model.model_copy(update={"fused_kinds": (TaskKind.RELATION,)})
    recipe = recipe.model_copy(update={"model": part})
    train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    model = load_checkpoint(tmp_path / "run/checkpoint").model
    assert isinstance(model, InstructionEncoder)
    assert model.fused_kinds == {TaskKind.RELATION}
    assert model.fusion is not None
    assert not model.fusion.output.weight.any()  # no task of the recipe tuned it
    torch.nn.init.normal_(model.fusion.output.weight)
    mask = torch.ones(2, 5, dtype=torch.int64)
    states, pooled, vectors = torch.randn(2, 5, 32), torch.randn(2, 32), torch.randn(4, 32)
    cosines = model.log_scale.exp() * pooled @ vectors.T
    assert torch.equal(model.score(states, mask, pooled, vectors), cosines)
    fused = model.score(states, mask, pooled, vectors, kind=TaskKind.RELATION)
    assert not torch.allclose(fused, cosines)


def test_frozen_weights_do_not_move(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    start = make_recipe(epochs=0)
    frozen = make_recipe(epochs=1, freeze_layers=1)
    train(start, tmp_path / "start", data_root=data_root, is_quiet=True)
    train(frozen, tmp_path / "frozen", data_root=data_root, is_quiet=True)
    before, after = weights(tmp_path / "start"), weights(tmp_path / "frozen")
    for name, value in before.items():
        if "layer.0." in name or "embeddings.word" in name:
            assert torch.equal(value, after[name]), name
    name = "encoder.encoder.layer.1.attention.self.query.weight"
    assert not torch.equal(before[name], after[name])


def test_freezing_more_layers_than_there_are_is_refused(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(freeze_layers=7)
    with pytest.raises(ConfigError, match="2 layers"):
        train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)


def test_a_mean_pooled_head_trains_and_reads_back(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(KINDS[1], pooling="mean", epochs=10, patience=10, probe=True)
    report = train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.after["intent"]["accuracy"] >= 0.8
    checkpoint = load_checkpoint(tmp_path / "run/checkpoint")
    ids = torch.tensor([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0]])
    mask = (ids != 0).long()
    together = checkpoint.model(ids, mask).logits
    alone = checkpoint.model(ids[1:, :3], mask[1:, :3]).logits
    assert together.shape == (2, 3)
    assert torch.allclose(together[1], alone[0], atol=1e-5)  # padding is not in the mean

"""The first rung: a few rows of each label and a regression on frozen vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from instructrec_deploy.cli.main import app
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_training.data import few_shot
from instructrec_training.recipe import Recipe, with_values
from instructrec_training.run import RunReport
from tests.tiny_runs import KINDS, allow_any_label, events_of, weights_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]


def with_shots(recipe: Recipe, shots: int) -> Recipe:
    content = recipe.model_dump()
    content["data"][0]["shots"] = shots
    return Recipe.model_validate(content)


def test_shots_are_drawn_by_the_seed_and_not_by_the_order(data_root: Path) -> None:
    rows = read_examples(data_root / "intents.jsonl")
    chosen = few_shot(rows, TaskSpec(), 2, seed=1)
    assert [row.target for row in chosen] == ["card lost"] * 2 + ["refund"] * 2 + ["余额"] * 2
    assert chosen == few_shot(list(reversed(rows)), TaskSpec(), 2, seed=1)[::-1]
    assert chosen != few_shot(rows, TaskSpec(), 2, seed=2)


def test_more_shots_keep_the_rows_of_fewer(data_root: Path) -> None:
    rows = read_examples(data_root / "intents.jsonl")
    few = {row.id for row in few_shot(rows, TaskSpec(), 2, seed=1)}
    assert few < {row.id for row in few_shot(rows, TaskSpec(), 5, seed=1)}


def test_a_row_of_several_labels_is_a_shot_of_each() -> None:
    targets = [["卡", "退款"], ["卡"], ["退款"], [], [], []]
    rows = [Example(str(n), target, id=str(n)) for n, target in enumerate(targets)]
    chosen = few_shot(rows, TaskSpec(decision="any"), 2, seed=0)
    assert [row.id for row in chosen if row.target] == ["0", "1", "2"]
    assert sum(not row.target for row in chosen) == 2


def test_a_run_takes_its_shots_and_all_validation_rows(make_recipe: MakeRecipe, run: Run) -> None:
    report = run(with_shots(make_recipe(epochs=0), 3))
    rows = json.loads((report.folder / "evaluation.json").read_text())["rows"]["intent"]
    assert rows == {"train": 9, "validation": 6, "test": 6}


def without_fusion(recipe: Recipe) -> Recipe:
    is_instructed = recipe.model.kind == "instruction-encoder"
    return with_values(recipe, {"model.use_fusion": False} if is_instructed else {})


@pytest.mark.parametrize("kind", KINDS)
def test_the_probe_alone_takes_its_place_in_the_report(
    kind: str, make_recipe: MakeRecipe, run: Run
) -> None:
    report = run(make_recipe(kind, epochs=0, probe=True))
    assert report.after["intent"]["accuracy"] >= 0.8
    (event,) = events_of(report.folder, "probe")
    assert event["seconds"] == report.probe_s
    assert json.loads((report.folder / "evaluation.json").read_text())["probe_s"] == report.probe_s


@pytest.mark.parametrize("kind", KINDS)
def test_the_probe_learns_any_of_the_labels(
    kind: str, make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    allow_any_label(data_root)
    recipe = make_recipe(kind, "mean", epochs=0, probe=True, probe_inverse_l2=10.0)
    task = recipe.tasks["intent"].model_copy(update={"decision": "any"})
    report = run(recipe.model_copy(update={"tasks": {"intent": task}}))
    assert report.before["intent"]["micro_f1"] < 0.8
    assert report.after["intent"]["micro_f1"] >= 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_are_fitted_again_at_the_end(
    kind: str, make_recipe: MakeRecipe, run: Run
) -> None:
    """To the averaged weights: these alone, with the labels as tuned, say what it gained."""
    shared = {"epochs": 2, "learning_rate": 1e-6, "head_learning_rate": 1e-6}
    shared |= {"average_with_base": 0.5, "probe_inverse_l2": 10.0}
    tuned = without_fusion(make_recipe(kind, "mean", probe=True, **shared))
    again = with_values(tuned, {"training.probe": False, "training.probe_again": True})
    before, after = run(tuned, "before"), run(again, "after")
    (event,) = events_of(after.folder, "probe again")
    assert event["accuracy"] == after.validation
    assert events_of(after.folder, "probe") == []
    assert after.after["intent"]["accuracy"] >= 0.8
    assert abs(after.validation - before.validation) <= 1 / 6  # the encoder hardly moved


def test_labels_that_the_fusion_scores_are_not_fitted_again(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="of kind classification, and the fusion scores them"):
        with_values(make_recipe(), {"training.probe_again": True})


def test_the_probe_leaves_tasks_of_spans_as_they_are(
    make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    plain = with_all_shapes(make_recipe(), data_root, epochs=0)
    probed = with_all_shapes(make_recipe(), data_root, epochs=0, probe=True)
    before, after = (weights_of(run(r, n).folder) for r, n in ((plain, "a"), (probed, "b")))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"label_vectors.intent", "label_vectors.topics"}


def test_the_command_line_has_it_in_one_option(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "r.toml", tmp_path / "run"
    recipe = make_recipe()
    file.write_text(
        f'name = "tiny"\n[model]\nbase = "{recipe.model.base}"\n'
        '[[data]]\npath = "intents.jsonl"\ntask = "intent"\nvalidation_split = "val"\nshots = 4\n'
        '[tasks.intent.instructions]\nzh = ["这位顾客想做什么？"]\n[training]\nepochs = 5\n',
        encoding="utf-8",
    )
    options = ["--out", str(out), "--data-root", str(data_root), "--probe-only", "--json"]
    found = CliRunner().invoke(app, ["train", str(file), *options, "--quiet"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["probe_s"] > 0
    assert events_of(out, "epoch") == []
    assert len(events_of(out, "probe")) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"shots": 2}}, "data.0.shots counts rows of a label"),
        ({"data": {"window_tokens": 200}}, "data.0.window_tokens cuts passages around answers"),
        ({"data": {"window_tokens": 20}}, "data.0.window_tokens = 20 leaves no room"),
        ({"training": {"probe": True}}, "training.probe has no effect: no task has labels"),
        ({"training": {"label_smoothing": 0.1}}, "training.label_smoothing has no effect"),
    ],
)
def test_what_only_labels_have_is_refused_for_spans(
    changes: dict[str, dict[str, object]], words: str
) -> None:
    content = {
        "name": "spans",
        "data": [{"path": "a.jsonl", "task": "t"} | changes.get("data", {})],
        "tasks": {"t": {"kind": "ner", "instructions": {"zh": ["找出"]}}},
        "training": changes.get("training", {}),
    }
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(content)
    assert words in str(caught.value)

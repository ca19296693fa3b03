"""The training package's part in an export by a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import FileMissing
from instructrec_deploy.export.by_plan import PlanReport, export_plan
from instructrec_deploy.export.plan import Plan
from instructrec_deploy.export.plan_inputs import read_inputs
from instructrec_training import stages
from instructrec_training.recipe import Recipe
from instructrec_training.run import RunReport

Make = Callable[..., Recipe]
Run = Callable[..., RunReport]
PLAN = Plan.model_validate(
    {
        "name": "tiny",
        "prune": {"ffn": 0.5, "layers": 1, "rows": 24, "epochs": 2, "max_loss": 100.0},
        "vocabulary": {},
        "quantize": {"precision": "int8"},
    }
)


def export(run: Path, out: Path, data_root: Path, said: list[str]) -> PlanReport:
    inputs = read_inputs(run, PLAN, tools=stages, data_root=data_root)
    work = out.parent / "stages"
    return export_plan(
        inputs, out, PLAN, tools=stages, data_root=data_root, work=work, progress=said.append
    )


def test_a_run_is_pruned_distilled_trimmed_and_quantized_and_goes_on_after_a_stop(
    make_recipe: Make,
    run: Run,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(make_recipe(checkpoint_steps=1))
    said: list[str] = []
    whole = export(tmp_path / "run", tmp_path / "a" / "bundle", data_root, said)
    assert [stage["stage"] for stage in whole.stages] == ["run", "prune", "vocabulary", "quantize"]
    assert whole.stages[1]["n_parameters"] < whole.stages[0]["n_parameters"]
    assert whole.stages[0]["quality"]["tasks"]["intent"]["n"] == 6
    assert open_bundle(whole.out).manifest.name == "tiny"
    with monkeypatch.context() as patched:  # killed within the distillation
        patched.setattr("instructrec_training.run._after", _stop)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path / "run", tmp_path / "b" / "bundle", data_root, [])
    assert not (tmp_path / "b" / "bundle").exists()
    again = export(tmp_path / "run", tmp_path / "b" / "bundle", data_root, [])
    assert again.version == whole.version


def test_rows_are_those_of_the_run_s_splits(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    run(make_recipe(epochs=1))
    texts, rows = stages.read_rows(tmp_path / "run", data_root=data_root)
    assert {row.split for row in rows["intent"]} == {"val"}
    assert len(rows["intent"]) == 6
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text("utf-8"))
    assert {"i lost my card", "card lost", "refund"} <= set(texts)
    assert recipe["name"] == "tiny"
    with pytest.raises(FileMissing):
        stages.read_rows(tmp_path / "run", data_root=tmp_path / "nowhere")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt

"""Exports by a plan: stages, limits, what is kept, and going on after a stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from instructrec_deploy.cli.report import explain_os
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import (
    ConfigError,
    FileMissing,
    FileUnusable,
    ParityFailed,
    PlanMissed,
)
from instructrec_deploy.core.example import Example
from instructrec_deploy.export import by_plan
from instructrec_deploy.export.by_plan import PlanReport, export_plan
from instructrec_deploy.export.plan import Plan, read_plan
from instructrec_deploy.export.plan_inputs import Inputs, Say, read_inputs
from instructrec_deploy.export.quality import Quality
from instructrec_deploy.export.stage_store import StageStore
from instructrec_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from instructrec_deploy.models.shrink import keep_neurons, parts_of
from tests.full_disk import full_disk
from tests.unit.export.conftest import TEXTS

ROWS = {"intent": [Example(text, target="card lost", id=str(n)) for n, text in enumerate(TEXTS)]}
CORPUS = ["i lost my card", "get a refund", "请问余额"]


class Tools:
    """Prunes by hand what training would prune by measurement."""

    def __init__(self, rows: Mapping[str, Sequence[Example]] | None = None) -> None:
        self.pruned: list[float] = []
        self._rows = ROWS if rows is None else rows

    def prune(
        self, run: Path, out: Path, *, settings: Mapping[str, Any], data_root: Path, say: Say
    ) -> None:
        self.pruned.append(settings["ffn"])
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(run, out, ignore=shutil.ignore_patterns("checkpoint"))
        checkpoint = load_checkpoint(run / "checkpoint")
        encoder: Any = checkpoint.model.encoder
        kept = torch.arange(round(128 * settings["ffn"]))
        keep_neurons(encoder, [kept] * len(parts_of(encoder)))
        vectors = checkpoint.label_vectors
        save_checkpoint(checkpoint, out / "checkpoint", label_vectors=vectors)

    def read_rows(
        self, run: Path, *, data_root: Path
    ) -> tuple[list[str], dict[str, list[Example]]]:
        if not self._rows:
            raise FileMissing("no data file 'intents.jsonl'")
        return CORPUS, {name: list(rows) for name, rows in self._rows.items()}


def plan_of(**parts: Any) -> Plan:
    return Plan.model_validate({"name": "test", **parts})


def export(
    run: Path, out: Path, plan: Plan, tools: Tools | None = None, **options: Any
) -> PlanReport:
    tools = tools or Tools()
    inputs = read_inputs(run, plan, tools=tools, data_root=run)
    work = out.with_name("stages")
    return export_plan(inputs, out, plan, tools=tools, data_root=run, work=work, **options)


WHOLE = {
    "prune": {"ffn": 0.5},
    "vocabulary": {"size": 300},
    "quantize": {"precision": "int8"},
    "pack": {"max_size_mb": 10.0},
}


def test_every_stage_is_measured_and_the_bundle_tells_of_it(
    encoder_run: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    report = export(encoder_run, tmp_path / "bundle", plan_of(**WHOLE), progress=said.append)
    names = [stage["stage"] for stage in report.stages]
    assert names == ["run", "prune", "vocabulary", "quantize"]
    sizes = [stage["size_bytes"] for stage in report.stages]
    assert sizes == sorted(sizes, reverse=True)
    bundle = open_bundle(report.out)
    assert bundle.manifest.model.precision == report.precision == "int8"
    told = json.loads((report.out / "evaluation.json").read_text("utf-8"))["export"]
    assert told["stages"] == report.stages
    assert told["plan"] == "test"
    assert "vocabulary" in told
    for stage in report.stages[1:]:
        assert stage["speedup"] > 0
        assert stage["quality"]["tasks"]["intent"]["n"] == len(TEXTS)
        assert "loss_points" in stage
    card = (report.out / "CARD.md").read_text("utf-8")
    assert "## Stages" in card
    assert "prune: ffn 0.5" in card
    assert any(line.startswith("quantize: ") for line in said)


def test_a_second_export_makes_nothing_anew_and_gives_the_same_bundle(
    encoder_run: Path, tmp_path: Path
) -> None:
    tools, said = Tools(), []
    first = export(encoder_run, tmp_path / "one", plan_of(**WHOLE), tools)
    again = export(encoder_run, tmp_path / "two", plan_of(**WHOLE), tools, progress=said.append)
    assert tools.pruned == [0.5]
    assert sum(line.endswith("(kept)") for line in said) == 4
    for name in open_bundle(first.out).manifest.files:
        assert (first.out / name).read_bytes() == (again.out / name).read_bytes()


def test_a_changed_setting_makes_only_the_stages_behind_it_anew(
    encoder_run: Path, tmp_path: Path
) -> None:
    tools, said = Tools(), []
    export(encoder_run, tmp_path / "bundle", plan_of(**WHOLE), tools)
    plan = plan_of(**WHOLE | {"vocabulary": {"size": 320}})
    export(encoder_run, tmp_path / "bundle", plan, tools, progress=said.append)
    kept = [line.split(":")[0] for line in said if line.endswith("(kept)")]
    assert kept == ["run", "prune"]
    assert tools.pruned == [0.5]


@pytest.mark.parametrize("stage", ["run", "prune", "vocabulary", "quantize"])
def test_an_export_stopped_in_a_stage_goes_on_to_the_same_bundle(
    encoder_run: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(encoder_run, tmp_path / "a" / "bundle", plan_of(**WHOLE))

    def stop(words: str) -> None:
        if words == f"{stage}: comparing with the checkpoint":
            raise KeyboardInterrupt

    out = tmp_path / "b" / "bundle"
    with pytest.raises(KeyboardInterrupt):
        export(encoder_run, out, plan_of(**WHOLE), progress=stop)
    assert not out.exists()
    report = export(encoder_run, out, plan_of(**WHOLE))
    assert report.version == whole.version
    graph = Path("graphs/encoder.onnx")
    assert (out / graph).read_bytes() == (whole.out / graph).read_bytes()


def test_a_full_disk_leaves_no_half_bundle(encoder_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with full_disk(20_000), pytest.raises(Exception) as error:  # noqa: PT011 a library's
        export(encoder_run, out, plan_of(**WHOLE))
    assert isinstance(explain_os(error.value), FileUnusable)
    assert not out.exists()
    assert export(encoder_run, out, plan_of(**WHOLE)).out == out


def falling(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, float], whole: int = 0) -> None:
    """Let quality depend on a bundle's stage; of a pruned one, on its weights."""

    def measure(bundle: Path, rows: Any) -> Quality:
        stage = bundle.parent.name.rpartition("-")[0]
        value = values[stage]
        if stage == "prune":
            value -= 1e-6 * (whole - open_bundle(bundle).manifest.model.n_parameters)
        task = {"figure": "accuracy", "value": value, "interval": [0, 1], "n": 6}
        return Quality(value, {"intent": task})

    monkeypatch.setattr(by_plan, "measure_quality", measure)


def test_a_stage_that_loses_too_much_stops_with_its_figures_and_what_would_pass(
    encoder_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling(monkeypatch, {"run": 0.9, "quantize": 0.88})
    plan = plan_of(quantize={"max_loss": 1.0})
    with pytest.raises(PlanMissed, match=r"quantize loses 2\.00 points of accuracy on 6") as error:
        export(encoder_run, tmp_path / "bundle", plan)
    assert 'quantize.precision = "fp32" passes' in error.value.hint
    assert not (tmp_path / "bundle").exists()


def test_milder_prunings_are_tried_until_one_passes(
    encoder_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_checkpoint(encoder_run / "checkpoint").n_parameters
    falling(monkeypatch, {"run": 0.9, "prune": 0.9}, whole)  # 2.5 points at a quarter of the width
    tools = Tools()
    plan = plan_of(prune={"ffn": 0.25, "max_loss": 1.0, "tries": 3})
    with pytest.raises(PlanMissed, match="prune loses") as error:
        export(encoder_run, tmp_path / "bundle", plan, tools)
    assert tools.pruned == [0.25, 0.625, 0.812]
    assert "prune.ffn = 0.812 passes" in error.value.hint


def test_a_vocabulary_that_loses_too_much_names_a_larger_one(
    encoder_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(bundle: Path, rows: Any) -> Quality:
        pieces = json.loads((bundle / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
        value = 0.9 if len(pieces) >= 265 else 0.5
        task = {"figure": "accuracy", "value": value, "interval": [0, 1], "n": 6}
        return Quality(value, {"intent": task})

    monkeypatch.setattr(by_plan, "measure_quality", measure)
    plan = plan_of(vocabulary={"size": 135, "max_loss": 1.0})
    with pytest.raises(PlanMissed, match="vocabulary loses 40") as error:
        export(encoder_run, tmp_path / "bundle", plan)
    assert "vocabulary.size = 270 passes" in error.value.hint


def test_a_bundle_that_is_too_large_says_which_vocabulary_would_fit(
    encoder_run: Path, tmp_path: Path
) -> None:
    plan = plan_of(pack={"max_size_mb": 0.1})
    with pytest.raises(PlanMissed, match=r"at most 0\.1") as error:
        export(encoder_run, tmp_path / "bundle", plan)
    assert "prune more" in error.value.hint
    assert not (tmp_path / "bundle").exists()


def test_limits_without_rows_are_refused_and_plans_without_limits_go_on(
    encoder_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="validation rows are not there"):
        export(encoder_run, tmp_path / "bundle", plan_of(quantize={"max_loss": 1.0}), Tools({}))
    report = export(encoder_run, tmp_path / "bundle", plan_of(), Tools({}))
    assert [stage["stage"] for stage in report.stages] == ["run", "quantize"]
    assert "quality" not in report.stages[0]
    with pytest.raises(FileMissing):
        export(encoder_run, tmp_path / "bundle", plan_of(prune={"ffn": 0.5}), Tools({}))


def test_a_plan_quantizes_weights_alone_where_it_says_so(encoder_run: Path, tmp_path: Path) -> None:
    plan = plan_of(quantize={"precision": "int8-weights"})
    report = export(encoder_run, tmp_path / "bundle", plan, Tools({}))
    assert report.precision == open_bundle(report.out).manifest.model.precision == "int8-weights"


def test_a_bundle_that_does_not_answer_as_its_checkpoint_stops_the_plan(
    run_maker: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ParityFailed("it does not answer as its checkpoint")

    monkeypatch.setattr("instructrec_deploy.export.run.check_parity", fail)
    with pytest.raises(ParityFailed):
        export(run_maker(), tmp_path / "bundle", plan_of())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["cpu", "edge", "gpu"])
def test_shipped_plans_are_found_by_their_names(name: str) -> None:
    assert read_plan(name).name == name


def test_faults_of_a_plan_are_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('name = "x"\n[prune]\nffn = 2.0\nheds = 0.5\n', "utf-8")
    with pytest.raises(ConfigError, match=r"prune\.ffn.*prune\.heds: no such key.*'heads'"):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(FileMissing, match="no plan 'phone'"):
        read_plan("phone")


def test_a_product_without_figures_is_made_anew(tmp_path: Path) -> None:
    store, made = StageStore(tmp_path), []

    def build(product: Path) -> dict[str, Any]:
        assert not product.exists()
        product.write_text("whole", "utf-8")
        made.append(product)
        return {"size": 5}

    first = store.make("stage", {"a": 1}, build)
    assert store.make("stage", {"a": 1}, build).is_reused
    (first.product.parent / "stage.json").write_text("{half", "utf-8")
    assert not store.make("stage", {"a": 1}, build).is_reused
    assert store.make("stage", {"a": 2}, build).key != first.key
    assert len(made) == 3


def test_inputs_take_the_training_texts_where_no_corpus_is_given(encoder_run: Path) -> None:
    plan = plan_of(vocabulary={})
    inputs = read_inputs(encoder_run, plan, tools=Tools(), data_root=encoder_run)
    assert isinstance(inputs, Inputs)
    assert list(inputs.corpus) == CORPUS
    other = read_inputs(encoder_run, plan, tools=Tools(), data_root=encoder_run, corpus=["one"])
    assert list(other.corpus) == ["one"]

"""A run becomes a bundle that answers as its checkpoint does."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import onnx
import pytest
import torch

from instructrec_deploy.cli.report import explain_os
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError, FileMissing, ParityFailed
from instructrec_deploy.core.manifest import Precision, TaskBook, TaskSpec
from instructrec_deploy.core.request import Request
from instructrec_deploy.export.graphs import float_graphs
from instructrec_deploy.export.parity import ParityLimits, ask_bundle, check_parity
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.run import ExportReport, export_run
from instructrec_deploy.export.samples import Sample
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.runtime.golden import check_golden
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.tasks.base import Floats
from tests.full_disk import full_disk
from tests.tiny import LABELS, TASKS_TOML

GRAPH_FILES = {"graphs/encoder.onnx", "graphs/fusion.onnx", "graphs/prepare.onnx"}


@pytest.fixture(scope="module")
def exported(
    encoder_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportReport, list[str]]:
    said: list[str] = []
    out = tmp_path_factory.mktemp("out") / "bundle"
    return export_run(encoder_run, out, progress=said.append), said


def test_an_int8_bundle_agrees_with_its_checkpoint_alone_and_in_company(
    exported: tuple[ExportReport, list[str]],
) -> None:
    parity = exported[0].parity
    assert parity.agreement == 1.0
    assert parity.max_difference < 0.05
    assert parity.batch_difference < 1e-5  # one scale per row: nothing of a neighbour gets in


def test_answers_do_not_depend_on_the_neighbours(
    exported: tuple[ExportReport, list[str]],
) -> None:
    texts = ["bad", "I lost my card " * 9, "请问余额是什么 😊", "get a refund", "转账失败了 " * 6]
    with Predictor(exported[0].out, guard=False) as predictor:
        alone = [predictor.predict(text, top_k=0).to_dict()["scores"] for text in texts]
        for order in (texts, texts[::-1], texts[1:3] * 4):
            for text, one in zip(order, predictor.predict(order, top_k=0), strict=True):
                own, found = alone[texts.index(text)], one.to_dict()["scores"]
                assert max(own, key=own.get) == one.label
                assert max(abs(own[label] - found[label]) for label in own) < 1e-3


def test_the_report_and_the_manifest_tell_the_same(
    exported: tuple[ExportReport, list[str]],
) -> None:
    report, said = exported
    manifest = open_bundle(report.out).manifest
    assert (manifest.name, manifest.version) == ("tiny-recipe", report.version)
    assert manifest.model.precision == report.precision == "int8"
    assert len(manifest.parent_sha256) == 64
    assert set(manifest.files) > GRAPH_FILES
    assert report.size_bytes == sum(e.size_bytes for e in manifest.files.values())
    assert said == list(report.seconds)


def test_the_bundle_loads_and_passes_its_own_golden_pairs(
    exported: tuple[ExportReport, list[str]],
) -> None:
    bundle = open_bundle(exported[0].out)
    pipeline = Pipeline.open(bundle)
    report = check_golden(bundle, pipeline)
    pipeline.close()
    assert report.n_pairs == exported[0].n_golden >= 12
    assert report.max_difference <= 1e-5


def test_learned_label_vectors_serve_the_task_and_no_other_instruction(
    exported: tuple[ExportReport, list[str]],
) -> None:
    with Predictor(exported[0].out, guard=False) as predictor:
        task = predictor.predict("I lost my card", top_k=0).to_dict()["scores"]
        words = predictor.bundle.instruction("intent").text
        plain = predictor.predict("I lost my card", instruction=words, candidates=LABELS, top_k=0)
    assert max(abs(task[s.label] - s.score) for s in plain.answers[0].scores) > 1e-3


def test_the_card_and_the_evaluation_tell_what_was_measured(
    exported: tuple[ExportReport, list[str]],
) -> None:
    out = exported[0].out
    card = (out / "CARD.md").read_text("utf-8")
    assert "## Safety\n\nPolicy `default-1`" in card
    evaluation = json.loads((out / "evaluation.json").read_text("utf-8"))
    assert "1.000 [0.500, 1.000]" in card
    assert "texts of the training data" in card
    assert evaluation["export"]["parity"]["n_texts"] == exported[0].parity.n_texts
    assert evaluation["after"]["intent"]["accuracy"] == 1.0


def test_the_same_run_exports_to_the_same_version(
    exported: tuple[ExportReport, list[str]], encoder_run: Path, tmp_path: Path
) -> None:
    assert export_run(encoder_run, tmp_path / "again").version == exported[0].version


def test_a_sequence_classifier_is_exported_with_its_logits(head_run: Path, tmp_path: Path) -> None:
    report = export_run(head_run, tmp_path / "bundle")
    bundle = open_bundle(report.out)
    assert report.parity.agreement == 1.0
    assert "graphs/fusion.onnx" not in bundle.manifest.files
    graph = onnx.load(bundle.path("graphs/encoder.onnx")).graph
    assert [o.name for o in graph.output] == ["logits"]


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_other_families_are_fused_and_quantized_by_structure(
    run_maker: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    report = export_run(run_maker(family), tmp_path / "bundle")
    graph = onnx.load(report.out / "graphs" / "encoder.onnx").graph
    kinds = [n.op_type for n in graph.node]
    assert kinds.count("MultiHeadAttention") == 2
    assert kinds.count("MatMulIntegerToFloat") == 12
    assert "SkipLayerNormalization" not in kinds
    assert "GatherND" in kinds
    assert open_bundle(report.out).manifest.model.unpadded


def test_fp32_matches_to_rounding(encoder_run: Path, tmp_path: Path) -> None:
    report = export_run(encoder_run, tmp_path / "bundle", precision="fp32", name="whole")
    assert report.name == "whole"
    assert report.parity.max_difference < 1e-5
    assert not open_bundle(report.out).manifest.model.unpadded


def test_a_fusion_that_still_stands_at_zero_is_left_out(encoder_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(encoder_run / "checkpoint")
    assert set(float_graphs(checkpoint, work=tmp_path)) == GRAPH_FILES
    model = checkpoint.model
    assert isinstance(model, InstructionEncoder)
    assert model.fusion is not None
    torch.nn.init.zeros_(model.fusion.output.weight)
    assert set(float_graphs(checkpoint, work=tmp_path)) == {"graphs/encoder.onnx"}
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_answers_otherwise_is_never_written(
    encoder_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ParityFailed, match=r"FAILED") as caught:
        export_run(encoder_run, tmp_path / "bundle", limits=ParityLimits(0.0, 0.0, 1.0, 0.0))
    assert "fp32" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("max_bytes", [100, 20_000, 60_000])
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    max_bytes: int, encoder_run: Path, exported: tuple[ExportReport, list[str]], tmp_path: Path
) -> None:
    old = tmp_path / "bundle"
    shutil.copytree(exported[0].out, old)
    with full_disk(max_bytes), pytest.raises(Exception) as caught:  # noqa: PT011 a library's
        export_run(encoder_run, old)
    assert explain_os(caught.value) is not None
    assert open_bundle(old).manifest.version == exported[0].version
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_with_other_things_is_refused_before_any_work(
    encoder_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    said: list[str] = []
    with pytest.raises(ConfigError):
        export_run(encoder_run, tmp_path, progress=said.append)
    assert said == []
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_bundle_reads_pairs_marks_and_priors_as_its_checkpoint_does(
    run_maker: Callable[..., Path], tmp_path: Path
) -> None:
    tasks = TASKS_TOML.replace(
        "[tasks.intent]\n", "[tasks.intent]\nprior_weight = 0.5\npriors = {refund = 3, 余额 = -2}\n"
    )
    run = run_maker(tasks=tasks.replace("余额 = ", '"余额" = '))
    samples = [
        {"text": "I lost my card", "text2": "请问余额是什么 😊", "task": "intent"},
        {"text": "my card " * 40 + "refund", "text2": "pin " * 60, "task": "intent"},
        {"text": "good " * 60 + "card 余额", "head": [300, 304], "tail": [305, 307]},
        {"text": "ＩＤ card", "head": [0, 2], "tail": [3, 7], "task": "sentiment"},
        {"text": "get a refund", "task": "intent"},
    ]
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    (run / "samples.jsonl").write_text("".join(lines), "utf-8")
    report = export_run(run, tmp_path / "bundle", precision="fp32")
    assert report.parity.agreement == 1.0
    assert report.parity.max_difference < 1e-5
    golden = [
        json.loads(line) for line in (report.out / "golden.jsonl").read_text("utf-8").splitlines()
    ]
    brought = [{k: v for k, v in row.items() if k in ("text2", "head")} for row in golden]
    assert sum(bool(b) for b in brought) == 3
    with Predictor(report.out, guard=False) as predictor:
        assert predictor.bundle.instruction("intent").prior_logits[2] == 1.5
        plain = predictor.predict("I lost my card", top_k=0).to_dict()["scores"]
    pair = next(row for row in golden if row.get("text2", "").startswith("请问"))
    assert max(abs(plain[label] - score) for label, score in pair["scores"].items()) > 1e-3


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no run"):
        export_run(tmp_path / "nothing", tmp_path / "out")


def test_tasks_that_a_bundle_cannot_answer_are_named(
    run_maker: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_maker(labels=LABELS)
    with (run / "tasks.toml").open("a", encoding="utf-8") as stream:
        stream.write('\n[tasks.names]\nkind = "ner"\nlabels = ["person"]\n')
    with pytest.raises(ConfigError, match="names"):
        export_run(run, tmp_path / "bundle")


def test_labels_in_another_order_than_the_classifier_s_are_refused(
    run_maker: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_maker(labels=LABELS)
    text = (run / "tasks.toml").read_text("utf-8")
    (run / "tasks.toml").write_text(text.replace('"card lost"', '"lost card"'), "utf-8")
    with pytest.raises(ConfigError, match="order"):
        export_run(run, tmp_path / "bundle")


DECIDING_TASKS = f"""default_task = "topics"

[tasks.topics]
labels = {json.dumps(LABELS, ensure_ascii=False)}
decision = "any"
threshold = 0.6
offset = 2.0
temperature = 3.0
exclusive = [["余额", "refund"]]
[tasks.topics.thresholds]
"card lost" = 0.8
[tasks.topics.parents]
"card arrival" = "card lost"
[tasks.topics.instructions]
zh = ["客户提到了什么？"]

[tasks.intent]
labels = {json.dumps(LABELS, ensure_ascii=False)}
none_label = "其他"
none_logit = 3.0
temperature = 2.0
[tasks.intent.parents]
"card arrival" = "card lost"
[tasks.intent.instructions]
en = ["What does the customer want?"]
"""


MOVED = {"fp32": 1e-5, "int8": 0.05, "int8-weights": 0.01, "int4-weights": 0.15}  # at most


@pytest.mark.parametrize("precision", MOVED)
def test_tasks_that_decide_more_than_the_best_label_pass_the_gate_and_their_golden_pairs(
    run_maker: Callable[..., Path], tmp_path: Path, precision: Precision
) -> None:
    report = export_run(run_maker(tasks=DECIDING_TASKS), tmp_path / "bundle", precision=precision)
    assert report.parity.agreement >= 0.9
    assert report.parity.max_difference < MOVED[precision]
    rows = [
        json.loads(line) for line in (report.out / "golden.jsonl").read_text("utf-8").splitlines()
    ]
    assert {row["task"] for row in rows} == {"topics", "intent"}
    assert all("labels" in row for row in rows)
    assert {row["label"] for row in rows} - {"其他"}
    bundle = open_bundle(report.out)
    pipeline = Pipeline.open(bundle)
    assert check_golden(bundle, pipeline).n_pairs == len(rows)
    pipeline.close()


@pytest.mark.parametrize(("bits", "share"), [(8, 0.4), (4, 0.3)])
def test_weights_alone_are_quantized_and_company_changes_nothing(
    run_maker: Callable[..., Path], tmp_path: Path, bits: int, share: float
) -> None:
    run, precision = run_maker(tasks=DECIDING_TASKS), cast("Precision", f"int{bits}-weights")
    report = export_run(run, tmp_path / "bundle", precision=precision)
    assert report.parity.batch_difference < 1e-5
    graph = onnx.load(report.out / "graphs" / "encoder.onnx").graph
    assert {"MatMulNBits"} <= {node.op_type for node in graph.node}
    whole = export_run(run, tmp_path / "whole", precision="fp32").out / "graphs" / "encoder.onnx"
    size = (report.out / "graphs" / "encoder.onnx").stat().st_size
    assert size < share * whole.stat().st_size + 30_000  # the graph's own words


def test_the_gate_sees_a_label_that_crossed_its_threshold(
    run_maker: Callable[..., Path], tmp_path: Path
) -> None:
    class Shifted(Reference):
        """A checkpoint whose logits are a little higher than the bundle's."""

        def logits(self, name: str, spec: TaskSpec, requests: Sequence[Request]) -> Floats:
            return super().logits(name, spec, requests) + 0.4

    run = run_maker(tasks=DECIDING_TASKS)
    bundle = open_bundle(export_run(run, tmp_path / "bundle", precision="fp32").out)
    samples = {"topics": [Sample(Request("I lost my card"))]}
    (answered,) = ask_bundle(bundle, samples).values()
    highest = float(answered.scores.max())
    spec = bundle.tasks.tasks["topics"]
    logit = 2.0 + 3.0 * math.log(highest / (1.0 - highest))
    changes = {"offset": logit, "threshold": 0.51, "thresholds": {}, "parents": {}}
    moved = replace(bundle, tasks=TaskBook(tasks={"topics": spec.model_copy(update=changes)}))
    checkpoint = load_checkpoint(run / "checkpoint")
    limits = ParityLimits(0.2, 0.001, 1.0, 1e-3)
    with pytest.raises(ParityFailed, match=r"label agreement 0 \(at least 1, FAILED\)"):
        check_parity(moved, Shifted(checkpoint), samples, limits=limits)
    _, same = check_parity(moved, Reference(checkpoint), samples, limits=limits)
    assert same["topics"].predictions[0].abstained


@pytest.mark.parametrize(("aside", "passes"), [(0.0, False), (0.3, False), (0.5, True)])
def test_of_many_texts_the_limits_may_leave_those_aside_that_differ_most(
    run_maker: Callable[..., Path], tmp_path: Path, aside: float, passes: bool
) -> None:
    class Odd(Reference):
        """A checkpoint that is far from the bundle in one text."""

        def logits(self, name: str, spec: TaskSpec, requests: Sequence[Request]) -> Floats:
            found = super().logits(name, spec, requests)
            for row, request in zip(found, requests, strict=True):
                if request.text == "card lost":
                    row[row.argmin()] += 60.0
            return found

    run = run_maker(tasks=DECIDING_TASKS)
    bundle = open_bundle(export_run(run, tmp_path / "bundle", precision="fp32").out)
    texts = ("card lost", "refund please", "余额")
    samples = {"intent": [Sample(Request(text)) for text in texts]}
    limits = ParityLimits(1e-3, 1.0, 0.0, 1e-3, aside=aside)
    odd = Odd(load_checkpoint(run / "checkpoint"))
    if passes:
        report, _ = check_parity(bundle, odd, samples, limits=limits)
        assert report.max_difference > 0.5 > 1e-3 >= report.upper_difference
    else:
        with pytest.raises(ParityFailed, match=r"largest score difference.* FAILED"):
            check_parity(bundle, odd, samples, limits=limits)

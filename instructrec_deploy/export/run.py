"""`export_run`: a tuned run becomes a bundle.

checkpoint -> (trim the vocabulary) -> float graphs -> (equalize -> unpad -> int8) -> parity gate
-> golden pairs, card -> folder
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from instructrec_deploy.core.bundle import (
    CARD_FILE,
    ENCODER_FILE,
    EVALUATION_FILE,
    FUSION_FILE,
    GOLDEN_FILE,
    READER_FILE,
    SAFETY_FILE,
    TASKS_FILE,
    TOKENIZER_FILE,
    open_bundle,
    read_text,
)
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.manifest import (
    FORMAT_VERSION,
    WEIGHT_BITS,
    Manifest,
    ModelSection,
    Precision,
    TaskBook,
)
from instructrec_deploy.core.request import Request
from instructrec_deploy.evaluation.card import write_card
from instructrec_deploy.export.equalize import equalize_graph
from instructrec_deploy.export.graphs import float_graphs, score_scale
from instructrec_deploy.export.half import half_graph
from instructrec_deploy.export.onnx_model import OnnxModel
from instructrec_deploy.export.pack import (
    check_target,
    content_version,
    file_entries,
    staged_folder,
    write_golden,
    write_json,
    write_label_vectors,
    write_manifest,
)
from instructrec_deploy.export.parity import LIMITS, ParityLimits, ParityReport, check_parity
from instructrec_deploy.export.promotion import check_promoted
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.export.quantize_weights import quantize_weights
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.report import Report
from instructrec_deploy.export.samples import Sample, task_samples
from instructrec_deploy.export.sensitivity import Mixture, choose_mixture, scorer_of
from instructrec_deploy.export.source import (
    CHECKPOINT_FOLDER,
    Source,
    base_name,
    read_run,
    weights_hash,
)
from instructrec_deploy.export.trim import Trimming, TrimReport, task_texts, trim_checkpoint
from instructrec_deploy.export.unpad import unpad_graph
from instructrec_deploy.models.checkpoint import Checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.presets import PRESETS
from instructrec_deploy.runtime.golden import check_golden
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.safety.card import policy_section
from instructrec_deploy.safety.policy import default_policy_text, parse_policy

MAX_CALIBRATION = 128  # texts; each channel's largest value hardly moves beyond
# How far a probability may stray on another processor. fp32: other kernels add in another order.
# int8: such a difference can tip a value over to the next of 256 steps.
SCORE_TOLERANCE: Mapping[Precision, float] = {
    "fp32": 1e-3,
    "fp16": 2e-2,
    "int8": 2e-2,
    "int8-weights": 1e-3,
    "int4-weights": 1e-3,
}


ExportReport = Report[ParityReport]


def export_run(
    run: Path,
    out: Path,
    *,
    precision: Precision = "int8",
    name: str = "",
    calibration: Sequence[Request] = (),
    trimming: Trimming | None = None,
    max_divergence: float | None = None,
    limits: ParityLimits | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> ExportReport:
    """Export a run folder to a bundle folder.

    Args:
        run: a folder written by training: `checkpoint/`, `tasks.toml`, and where they exist
            `evaluation.json`, `samples.jsonl`, `safety.toml`.
        out: the bundle; a bundle that is there already is replaced, anything else is refused.
        precision: of weights and activations.
        name: of the bundle; "" takes the recipe's, or the run folder's.
        calibration: texts like those it will read (int8); () takes the run's samples.
        trimming: what the vocabulary is cut to; None keeps all of it.
        max_divergence: nats that int8 may cost on the calibration texts; the encoder's parts that
            cost most stay in floats until it holds. None: all of it is int8.
        limits: what the parity gate lets pass; None takes those of the precision.
        force: also a run that was refused promotion.
        progress: told what is being done, a line for each stage.
        clock: seconds, monotonic.

    Raises:
        FileMissing: no run or no checkpoint there.
        ConfigError: `out` holds something that is no bundle, or the tasks do not fit the model.
        PromotionRefused: the run was retuned, and refused.
        ParityFailed: the bundle would not answer as the checkpoint; nothing was written.
    """
    check_target(out)
    if not force:
        check_promoted(run)
    stages = Stages(progress, clock)
    stages.begin("loading the checkpoint")
    source = read_run(run)
    reference = Reference(source.checkpoint)
    samples = task_samples(source.book, source.own_samples)
    with staged_folder(out) as stage:
        source, trimmed = _trim(source, trimming, samples, stage, stages)
        checkpoint = source.checkpoint
        texts = calibration or _mixed(samples)
        graphs, unpadded, mixture = _graphs(
            source, stage, precision, texts, stages, max_divergence=max_divergence
        )
        (stage / ENCODER_FILE).parent.mkdir()
        for file, graph in graphs.items():
            onnx.save(graph, stage / file)
        _copy_parts(run, checkpoint, stage)
        manifest = _manifest(source, stage, name=name, precision=precision, unpadded=unpadded)
        write_manifest(stage, manifest)
        stages.begin("comparing with the checkpoint")
        parity, answered = check_parity(
            open_bundle(stage), reference, samples, limits=limits or LIMITS[precision]
        )
        stages.begin("writing golden pairs and card")
        n_golden = write_golden(stage, answered)
        evaluation = source.evaluation | _export_figures(source, stage, precision, parity, trimmed)
        if mixture is not None:
            evaluation["export"]["mixture"] = mixture.to_dict()
        manifest = finish_bundle(stage, manifest, source.book, evaluation)
    return ExportReport(
        out=out,
        name=manifest.name,
        version=manifest.version,
        precision=precision,
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
        n_parameters=checkpoint.n_parameters,
        n_golden=n_golden,
        parity=parity,
        seconds=stages.end(),
        mixture=None if mixture is None else mixture.to_dict(),
    )


def _trim(
    source: Source,
    trimming: Trimming | None,
    samples: Mapping[str, Sequence[Sample]],
    stage: Path,
    stages: Stages,
) -> tuple[Source, TrimReport | None]:
    """The run with a smaller vocabulary, where one is wanted."""
    if trimming is None:
        return source, None
    if isinstance(source.checkpoint.model, OnnxModel):
        raise ConfigError(
            "the vocabulary of an imported graph cannot be trimmed",
            hint="import the weights that it was exported from",
        )
    stages.begin("trimming the vocabulary")
    own = task_texts(source.book, samples)
    with tempfile.TemporaryDirectory(prefix=".trimming.", dir=stage.parent) as work:
        checkpoint, report = trim_checkpoint(source.checkpoint, trimming, own, work=Path(work))
        shutil.copyfile(checkpoint.tokenizer_path, stage / TOKENIZER_FILE)
    checkpoint = replace(checkpoint, tokenizer_path=stage / TOKENIZER_FILE)
    return replace(source, checkpoint=checkpoint), report


def _export_figures(
    source: Source,
    stage: Path,
    precision: Precision,
    parity: ParityReport,
    trimmed: TrimReport | None,
) -> dict[str, Any]:
    """What the export adds to evaluation.json."""
    figures: dict[str, Any] = {
        "export": {
            "precision": precision,
            "parity": parity.to_dict(),
            "has_own_samples": bool(source.own_samples),
            "size_bytes": sum(entry.size_bytes for entry in file_entries(stage).values()),
        }
    }
    if trimmed is not None:
        figures["export"]["vocabulary"] = trimmed.to_dict()
    if preset := PRESETS.get(source.checkpoint.section.base):
        figures["base_origin"] = f"{preset.source}, {preset.licence}"
    return figures


def finish_bundle(
    stage: Path, manifest: Manifest, book: TaskBook, evaluation: Mapping[str, Any]
) -> Manifest:
    """Write evaluation, card and the last manifest; load the bundle as a server will."""
    write_json(stage / EVALUATION_FILE, evaluation)
    manifest = manifest.model_copy(update={"files": file_entries(stage)})
    policy = parse_policy(read_text(stage / SAFETY_FILE), where=SAFETY_FILE)
    card = write_card(manifest, book, evaluation, safety=policy_section(policy))
    (stage / CARD_FILE).write_text(card, encoding="utf-8")
    manifest = manifest.model_copy(update={"files": file_entries(stage)})
    write_manifest(stage, manifest)
    bundle = open_bundle(stage)
    pipeline = Pipeline.open(bundle)
    try:
        check_golden(bundle, pipeline)
    finally:
        pipeline.close()
    return manifest


class Stages:
    """Says what is being done and keeps how long it took."""

    def __init__(self, progress: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._current = ""
        self._begun = clock()

    def begin(self, stage: str) -> None:
        self.end()
        self._current, self._begun = stage, self._clock()
        self._progress(stage)

    def tell(self, words: str) -> None:
        """How far the stage is."""
        self._progress(f"{self._current}: {words}")

    def end(self) -> dict[str, float]:
        if self._current:
            self._seconds[self._current] = self._clock() - self._begun
            self._current = ""
        return self._seconds


def _mixed(samples: Mapping[str, Sequence[Sample]]) -> list[Request]:
    """Calibration texts: of every task in turn, up to the limit."""
    share = max(1, MAX_CALIBRATION // max(1, len(samples)))
    return [sample.request for chosen in samples.values() for sample in chosen[:share]]


def _graphs(
    source: Source,
    stage: Path,
    precision: Precision,
    calibration: Sequence[Request],
    stages: Stages,
    *,
    max_divergence: float | None,
) -> tuple[dict[str, onnx.ModelProto], bool, Mixture | None]:
    """Trace and quantize; whether the encoder came out unpadded, what was found of its parts."""
    stages.begin("tracing and fusing the graphs")
    checkpoint = source.checkpoint
    graphs = float_graphs(checkpoint, work=stage)
    unpadded, mixture = False, None
    if precision == "int8":  # floats are for GPUs, too, which would wait for each batch's indices
        stages.begin("quantizing to int8")
        reference = Reference(checkpoint)
        batches = reference.batches(calibration[:MAX_CALIBRATION])
        equal = equalize_graph(graphs[ENCODER_FILE], batches, work=stage)
        whole = unpad_graph(equal)
        unpadded = whole is not equal
        graphs[ENCODER_FILE] = whole
        graphs = {file: quantize_graph(graph)[0] for file, graph in graphs.items()}
        if max_divergence is not None:
            stages.begin("measuring what int8 costs by parts")
            graphs[ENCODER_FILE], mixture = choose_mixture(
                whole,
                lambda kept: quantize_graph(whole, kept=kept)[0],
                batches,
                scorer_of(reference, source.book.tasks),
                limit=max_divergence,
                work=stage,
                say=stages.tell,
            )
    elif precision == "fp16":
        stages.begin("halving the floats")
        graphs = {file: half_graph(graph) for file, graph in graphs.items()}
    elif bits := WEIGHT_BITS.get(precision):
        stages.begin(f"quantizing weights to {bits} bit")
        graphs = {file: quantize_weights(graph, bits=bits)[0] for file, graph in graphs.items()}
    return graphs, unpadded, mixture


def _copy_parts(run: Path, checkpoint: Checkpoint, stage: Path) -> None:
    """Everything that comes as it is; golden pairs come later, when the bundle can answer."""
    if checkpoint.tokenizer_path != stage / TOKENIZER_FILE:
        shutil.copyfile(checkpoint.tokenizer_path, stage / TOKENIZER_FILE)
    shutil.copyfile(run / TASKS_FILE, stage / TASKS_FILE)
    safety = run / SAFETY_FILE
    text = read_text(safety) if safety.is_file() else default_policy_text()
    (stage / SAFETY_FILE).write_text(text, encoding="utf-8")
    (stage / GOLDEN_FILE).write_text("", encoding="utf-8")
    learned = {task: vectors.numpy() for task, vectors in checkpoint.label_vectors.items()}
    if any(np.any(vectors) for vectors in learned.values()):
        write_label_vectors(stage, learned)


def _manifest(
    source: Source, stage: Path, *, name: str, precision: Precision, unpadded: bool
) -> Manifest:
    section, model = source.checkpoint.section, source.checkpoint.model
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name or str(source.evaluation.get("recipe", "")) or source.run.resolve().name,
        version=content_version(stage),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        model=ModelSection(
            kind=section.kind,
            precision=precision,
            hidden_size=section.hidden_size,
            max_tokens=section.max_tokens,
            pad_id=section.pad_id,
            text_prefix=section.text_prefix,
            instruction_weight=section.instruction_weight,
            has_fusion=(stage / FUSION_FILE).is_file(),
            fused_kinds=section.fused_kinds,
            has_reader=(stage / READER_FILE).is_file(),
            unpadded=unpadded,
            joint_questions=section.joint_questions,
            tags=section.labels if section.kind == "token-classification" else (),
            score_scale=score_scale(model) if isinstance(model, InstructionEncoder) else 1.0,
            base=base_name(section.base),
            n_parameters=source.checkpoint.n_parameters,
        ),
        score_tolerance=SCORE_TOLERANCE[precision],
        parent_sha256=weights_hash(source.run / CHECKPOINT_FOLDER),
        files=file_entries(stage),
    )

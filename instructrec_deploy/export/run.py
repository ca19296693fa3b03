"""`export_run`: a tuned run becomes a bundle.

checkpoint -> float graphs -> (equalize -> int8) -> parity gate -> golden pairs, card -> folder
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    hash_file,
    open_bundle,
    read_text,
)
from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.manifest import (
    FORMAT_VERSION,
    SPAN_HEADS,
    Manifest,
    ModelSection,
    Precision,
    TaskBook,
    parse_toml,
)
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.tags import TagScheme
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.card import write_card
from instructrec_deploy.export.equalize import equalize_graph
from instructrec_deploy.export.graphs import float_graphs, score_scale
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
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.samples import Sample, read_samples, task_samples
from instructrec_deploy.models.checkpoint import Checkpoint, CheckpointSection, load_checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.presets import PRESETS
from instructrec_deploy.runtime.golden import check_golden
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.safety.policy import default_policy_text

CHECKPOINT_FOLDER = "checkpoint"
MAX_CALIBRATION = 128  # texts; each channel's largest value hardly moves beyond
# How far a probability may stray on another processor. fp32: other kernels add in another order.
# int8: such a difference can tip a value over to the next of 256 steps.
SCORE_TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "int8": 2e-2}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made."""

    out: Path
    name: str
    version: str
    precision: Precision
    size_bytes: int
    n_parameters: int
    n_golden: int
    parity: ParityReport
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {
            "out": str(self.out),
            "name": self.name,
            "version": self.version,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "n_parameters": self.n_parameters,
            "n_golden": self.n_golden,
            "parity": self.parity.to_dict(),
            "seconds": {stage: round(s, 2) for stage, s in self.seconds.items()},
        }


def export_run(
    run: Path,
    out: Path,
    *,
    precision: Precision = "int8",
    name: str = "",
    calibration: Sequence[Request] = (),
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
    stages = _Stages(progress, clock)
    stages.begin("loading the checkpoint")
    source = _read_run(run)
    checkpoint, reference = source.checkpoint, Reference(source.checkpoint)
    samples = task_samples(source.book, source.own_samples)
    with staged_folder(out) as stage:
        texts = calibration or _mixed(samples)
        _write_graphs(checkpoint, stage, precision, reference, texts, stages)
        _copy_parts(run, checkpoint, stage)
        manifest = _manifest(source, stage, name=name, precision=precision)
        write_manifest(stage, manifest)
        stages.begin("comparing with the checkpoint")
        parity, answered = check_parity(
            open_bundle(stage), reference, samples, limits=limits or LIMITS[precision]
        )
        stages.begin("writing golden pairs and card")
        n_golden = write_golden(stage, answered)
        evaluation = source.evaluation | _export_figures(source, stage, precision, parity)
        manifest = _finish(stage, manifest, source.book, evaluation)
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
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """What a run folder holds."""

    run: Path
    checkpoint: Checkpoint
    book: TaskBook
    own_samples: Mapping[str, Sequence[Sample]]  # by task; empty where the run kept none
    evaluation: dict[str, Any]


def _read_run(run: Path) -> _Source:
    tasks = run / TASKS_FILE
    if not tasks.is_file():
        raise FileMissing(
            f"{run} is no run (no {TASKS_FILE})", hint="name a run folder of `instructrec train`"
        )
    checkpoint = load_checkpoint(run / CHECKPOINT_FOLDER)
    book = parse_toml(TaskBook, read_text(tasks), where=str(tasks))
    _check_tasks(checkpoint, book)
    return _Source(run, checkpoint, book, read_samples(run), _read_evaluation(run))


def _export_figures(
    source: _Source, stage: Path, precision: Precision, parity: ParityReport
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
    if preset := PRESETS.get(source.checkpoint.section.base):
        figures["base_origin"] = f"{preset.source}, {preset.licence}"
    return figures


def _finish(
    stage: Path, manifest: Manifest, book: TaskBook, evaluation: Mapping[str, Any]
) -> Manifest:
    """Write evaluation, card and the last manifest; load the bundle as a server will."""
    write_json(stage / EVALUATION_FILE, evaluation)
    manifest = manifest.model_copy(update={"files": file_entries(stage)})
    (stage / CARD_FILE).write_text(write_card(manifest, book, evaluation), encoding="utf-8")
    manifest = manifest.model_copy(update={"files": file_entries(stage)})
    write_manifest(stage, manifest)
    bundle = open_bundle(stage)
    pipeline = Pipeline.open(bundle)
    try:
        check_golden(bundle, pipeline)
    finally:
        pipeline.close()
    return manifest


class _Stages:
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

    def end(self) -> dict[str, float]:
        if self._current:
            self._seconds[self._current] = self._clock() - self._begun
            self._current = ""
        return self._seconds


def _check_tasks(checkpoint: Checkpoint, book: TaskBook) -> None:
    spans = [name for name, spec in book.tasks.items() if SHAPES[spec.kind] is Shape.EXTRACT]
    section = checkpoint.section
    only = SPAN_HEADS.get(section.kind)
    if spans and not (section.reader_layers or only):
        raise ConfigError(
            f"tasks of {TASKS_FILE} are answered with spans: {', '.join(spans)}; the checkpoint "
            "has no span reader",
            hint="train with model.reader_layers, or take the tasks out",
        )
    if not any(spec.labels or spec.kind is TaskKind.QA for spec in book.tasks.values()):
        raise ConfigError(
            f"{TASKS_FILE} has no task with labels: nothing proves that the export is right",
            hint="give at least one task labels",
        )
    if only:
        _check_head_task(section, only, book)
    if section.kind != "sequence-classification":
        return
    labels = [spec.labels for spec in book.tasks.values()]
    if labels != [section.labels]:
        raise ConfigError(
            f"a sequence classifier has one task, with the checkpoint's "
            f"{len(section.labels)} labels in their order; {TASKS_FILE} differs",
            hint="use the tasks.toml that training wrote",
        )


def _check_head_task(section: CheckpointSection, only: TaskKind, book: TaskBook) -> None:
    """Of a head that finds spans."""
    specs = list(book.tasks.values())
    if [spec.kind for spec in specs] != [only]:
        raise ConfigError(
            f"a model of kind {section.kind} has one task, of kind {only}; {TASKS_FILE} differs",
            hint="use the tasks.toml that training wrote",
        )
    if only is TaskKind.NER:
        types = TagScheme.of(section.labels).types
        strange = [label for label in specs[0].labels if label not in types]
        if strange:
            raise ConfigError(
                f"{TASKS_FILE}: {len(strange)} labels, {strange[0]!r} first, are not among the "
                f"{len(types)} types of the checkpoint's tags",
                hint=f"choose among {', '.join(types)}",
            )


def _mixed(samples: Mapping[str, Sequence[Sample]]) -> list[Request]:
    """Calibration texts: of every task in turn, up to the limit."""
    share = max(1, MAX_CALIBRATION // max(1, len(samples)))
    return [sample.request for chosen in samples.values() for sample in chosen[:share]]


def _write_graphs(
    checkpoint: Checkpoint,
    stage: Path,
    precision: Precision,
    reference: Reference,
    calibration: Sequence[Request],
    stages: _Stages,
) -> None:
    stages.begin("tracing and fusing the graphs")
    graphs = float_graphs(checkpoint, work=stage)
    if precision == "int8":
        stages.begin("quantizing to int8")
        graphs[ENCODER_FILE] = equalize_graph(
            graphs[ENCODER_FILE], reference.batches(calibration[:MAX_CALIBRATION]), work=stage
        )
        graphs = {file: quantize_graph(graph)[0] for file, graph in graphs.items()}
    (stage / ENCODER_FILE).parent.mkdir()
    for file, graph in graphs.items():
        onnx.save(graph, stage / file)


def _copy_parts(run: Path, checkpoint: Checkpoint, stage: Path) -> None:
    """Everything that comes as it is; golden pairs come later, when the bundle can answer."""
    shutil.copyfile(checkpoint.tokenizer_path, stage / TOKENIZER_FILE)
    shutil.copyfile(run / TASKS_FILE, stage / TASKS_FILE)
    safety = run / SAFETY_FILE
    text = read_text(safety) if safety.is_file() else default_policy_text()
    (stage / SAFETY_FILE).write_text(text, encoding="utf-8")
    (stage / GOLDEN_FILE).write_text("", encoding="utf-8")
    learned = {task: vectors.numpy() for task, vectors in checkpoint.label_vectors.items()}
    if any(np.any(vectors) for vectors in learned.values()):
        write_label_vectors(stage, learned)


def _manifest(source: _Source, stage: Path, *, name: str, precision: Precision) -> Manifest:
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
            has_reader=(stage / READER_FILE).is_file(),
            joint_questions=section.joint_questions,
            tags=section.labels if section.kind == "token-classification" else (),
            score_scale=score_scale(model) if isinstance(model, InstructionEncoder) else 1.0,
            base=_base_name(section.base),
            n_parameters=source.checkpoint.n_parameters,
        ),
        score_tolerance=SCORE_TOLERANCE[precision],
        parent_sha256=_weights_hash(source.run / CHECKPOINT_FOLDER),
        files=file_entries(stage),
    )


def _base_name(base: str) -> str:
    """A preset or hub id as it is; of a folder its name alone: its path is nobody's business."""
    path = Path(base)
    return path.name if path.is_absolute() or path.exists() else base


def _read_evaluation(run: Path) -> dict[str, Any]:
    path = run / EVALUATION_FILE
    if not path.is_file():
        return {}
    try:
        raw = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON", hint="delete it or train again") from error
    return raw if isinstance(raw, dict) else {}


def _weights_hash(checkpoint: Path) -> str:
    """SHA-256 over the hashes of all weight files, by path."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(checkpoint).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()

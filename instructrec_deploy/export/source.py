"""What a run folder holds, read and checked for an export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec_deploy.core.bundle import EVALUATION_FILE, TASKS_FILE, hash_file, read_text
from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.manifest import SPAN_HEADS, TaskBook, parse_toml
from instructrec_deploy.core.tags import TagScheme
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.export.onnx_import import is_onnx_folder, read_onnx_checkpoint
from instructrec_deploy.export.samples import Sample, read_samples
from instructrec_deploy.models.checkpoint import Checkpoint, CheckpointSection, load_checkpoint

CHECKPOINT_FOLDER = "checkpoint"


@dataclass(frozen=True, slots=True)
class Source:
    """What a run folder holds."""

    run: Path
    checkpoint: Checkpoint
    book: TaskBook
    own_samples: Mapping[str, Sequence[Sample]]  # by task; empty where the run kept none
    evaluation: dict[str, Any]


def read_run(run: Path) -> Source:
    """Read a run folder.

    Raises:
        FileMissing: no run or no checkpoint there.
        ConfigError: its tasks do not fit its model.
    """
    tasks = run / TASKS_FILE
    if not tasks.is_file():
        raise FileMissing(
            f"{run} is no run (no {TASKS_FILE})", hint="name a run folder of `instructrec train`"
        )
    folder = run / CHECKPOINT_FOLDER
    read = read_onnx_checkpoint if is_onnx_folder(folder) else load_checkpoint
    checkpoint = read(folder)
    book = parse_toml(TaskBook, read_text(tasks), where=str(tasks))
    _check_tasks(checkpoint, book)
    return Source(run, checkpoint, book, read_samples(run), _read_evaluation(run))


def base_name(base: str) -> str:
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


def weights_hash(checkpoint: Path) -> str:
    """SHA-256 over the hashes of all weight files, by path."""
    digest = hashlib.sha256()
    for path in sorted([*checkpoint.rglob("*.safetensors"), *checkpoint.glob("*.onnx")]):
        digest.update(f"{path.relative_to(checkpoint).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()


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

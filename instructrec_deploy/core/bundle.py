"""Open a bundle folder: every file named, present, of the stated size and hash, none outside."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from instructrec_deploy.core.errors import BundleError, FileMissing, TaskUnknown
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.manifest import (
    FORMAT_VERSION,
    Manifest,
    TaskBook,
    describe_faults,
    parse_toml,
)
from instructrec_deploy.core.near import did_you_mean

MANIFEST_FILE = "bundle.json"
ENCODER_FILE = "graphs/encoder.onnx"
PREPARE_FILE = "graphs/prepare.onnx"
FUSION_FILE = "graphs/fusion.onnx"
READER_FILE = "graphs/reader.onnx"  # of a model that finds spans
DECODER_FILE = "graphs/decoder.onnx"  # of a model that writes: one step, with its cache
LABELS_FILE = "labels.npz"  # task -> [L, H] float32, added to the vectors of its own labels
TOKENIZER_FILE = "tokenizer.json"
TASKS_FILE = "tasks.toml"
SAFETY_FILE = "safety.toml"
GOLDEN_FILE = "golden.jsonl"
EVALUATION_FILE = "evaluation.json"
CARD_FILE = "CARD.md"
REQUIRED_FILES = (TOKENIZER_FILE, TASKS_FILE, SAFETY_FILE, GOLDEN_FILE)
# Graphs that a kind of model cannot do without; every other kind: the encoder.
REQUIRED_GRAPHS = {"seq2seq": (ENCODER_FILE, DECODER_FILE), "causal": (DECODER_FILE,)}


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, verified bundle. Nothing in it is executed."""

    root: Path
    manifest: Manifest
    tasks: TaskBook

    def path(self, name: str) -> Path:
        """The path of a file the manifest names.

        Raises:
            BundleError: the manifest does not name it.
        """
        if name not in self.manifest.files:
            raise BundleError(
                f"bundle {self.manifest.name!r} has no file {name!r}",
                hint="export the bundle again with this version",
            )
        return self.root / name

    def has(self, name: str) -> bool:
        """Whether the manifest names this file."""
        return name in self.manifest.files

    def instruction(self, task: str = "", text: str = "") -> Instruction:
        """A task of the bundle as an instruction ("" = the default task).

        Raises:
            TaskUnknown: no such task; the hint names those there are.
        """
        name = task or self.tasks.default_task
        spec = self.tasks.tasks.get(name)
        if spec is None:
            meant = did_you_mean(name, self.tasks.tasks)
            known = ", ".join(sorted(self.tasks.tasks)) or "none"
            what = f"no task {name!r}" if name else "no default task"
            raise TaskUnknown(
                f"bundle {self.manifest.name!r} has {what}",
                hint=f"{meant}{meant and ' '}its tasks: {known}; or send an instruction with "
                "candidates",
            )
        return spec.instruction(name, text)


def open_bundle(root: str | Path) -> Bundle:
    """Open and verify a bundle folder.

    Raises:
        FileMissing: no such folder.
        BundleError: no manifest, another format, a file missing, damaged or outside the folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileMissing(
            f"no bundle folder {folder}", hint="`instructrec export RUN --out BUNDLE` makes one"
        )
    manifest = _read_manifest(folder)
    graphs = REQUIRED_GRAPHS.get(manifest.model.kind, (ENCODER_FILE,))
    for name in (*graphs, *REQUIRED_FILES):
        if name not in manifest.files:
            raise BundleError(f"{folder}: the manifest names no {name}", hint="export it again")
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry.size_bytes, entry.sha256)
    book = parse_toml(TaskBook, read_text(folder / TASKS_FILE), where=str(folder / TASKS_FILE))
    if book.default_task and book.default_task not in book.tasks:
        raise BundleError(f"{folder}: default_task is not among the tasks", hint="export it again")
    return Bundle(folder, manifest, book)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_text(path: Path) -> str:
    """A UTF-8 file of a bundle as text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _unreadable(str(path), error) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: cannot be read as UTF-8", hint="export it again") from error


def _unreadable(what: str, error: OSError) -> BundleError:
    return BundleError(f"{what} cannot be read ({error.strerror})", hint="check who may read it")


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(
            f"{folder} has no {MANIFEST_FILE}",
            hint="name a bundle folder made by `instructrec export`, not a run or a checkpoint",
        )
    try:
        raw = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not valid JSON", hint="export it again") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version!r}, this program reads {FORMAT_VERSION}",
            hint="export the bundle again with this version",
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        raise BundleError(f"{path}: {describe_faults(error)}", hint="export it again") from error


def _check_file(folder: Path, name: str, size_bytes: int, sha256: str) -> None:
    pure = PurePosixPath(name)
    path = folder / name
    if pure.is_absolute() or ".." in pure.parts or path.is_symlink():
        raise BundleError(
            f"{folder}: the manifest names a file outside the folder", hint="do not trust it"
        )
    if not path.is_file():
        raise BundleError(f"{folder}: {name} is missing", hint="copy or export the bundle again")
    try:
        is_intact = path.stat().st_size == size_bytes and hash_file(path) == sha256
    except OSError as error:
        raise _unreadable(f"{folder}: {name}", error) from error
    if not is_intact:
        raise BundleError(
            f"{folder}: {name} is damaged (size or SHA-256 differs from the manifest)",
            hint="copy or export the bundle again",
        )

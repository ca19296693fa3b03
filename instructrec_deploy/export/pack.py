"""Write a bundle folder whole or not at all, and never over something that is not a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.core.bundle import (
    DECODER_FILE,
    ENCODER_FILE,
    FUSION_FILE,
    GOLDEN_FILE,
    LABELS_FILE,
    MANIFEST_FILE,
    PREPARE_FILE,
    READER_FILE,
    TASKS_FILE,
    TOKENIZER_FILE,
    hash_file,
)
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.manifest import FileEntry, Manifest
from instructrec_deploy.core.request import plain_request
from instructrec_deploy.export.compared import Answered
from instructrec_deploy.export.products import Floats

# What decides the answers, and so the version.
VERSIONED_FILES = (
    ENCODER_FILE,
    PREPARE_FILE,
    FUSION_FILE,
    READER_FILE,
    DECODER_FILE,
    LABELS_FILE,
    TOKENIZER_FILE,
    TASKS_FILE,
)
VERSION_DIGITS = 12
GOLDEN_TEXTS = 16  # of each task: loading runs them all, so a few
GOLDEN_SPAN_TEXTS = 4  # of a task of spans
GOLDEN_SCORES = 5  # best candidates of each text
MIN_MARGIN = 0.05  # a golden label must not hang on the last bit


def check_target(out: Path) -> None:
    """Refuse a folder that an export must not replace.

    Raises:
        ConfigError: it is a file, or a folder with something in it that no bundle names.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is not a folder", hint="name a new folder")
    if not out.exists() or not any(out.iterdir()):
        return
    named = _named_files(out)
    if named is None:
        raise ConfigError(
            f"{out} is not empty and is no bundle: it will not be replaced",
            hint="name a new or an empty folder",
        )
    present = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    foreign = sorted(present - named)
    if foreign:
        raise ConfigError(
            f"{out} holds {len(foreign)} files that are no part of its bundle, "
            f"{foreign[0]!r} first: it will not be replaced",
            hint="move them away, or name a new folder",
        )


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and else vanishes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        stage.chmod(0o755)  # mkdtemp gives 0o700, and a server runs as another user
        yield stage
        _swap(stage, out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def content_version(folder: Path) -> str:
    """The first digits of a hash over everything that decides the answers."""
    digest = hashlib.sha256()
    for name in VERSIONED_FILES:
        if (folder / name).is_file():
            digest.update(f"{name} {hash_file(folder / name)}\n".encode())
    return digest.hexdigest()[:VERSION_DIGITS]


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file but the manifest."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST_FILE)
    return {
        p.relative_to(folder).as_posix(): FileEntry(
            size_bytes=p.stat().st_size, sha256=hash_file(p)
        )
        for p in paths
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write bundle.json."""
    write_json(folder / MANIFEST_FILE, manifest.model_dump(mode="json", exclude_none=True))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Readable UTF-8 JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_label_vectors(folder: Path, vectors: Mapping[str, Floats]) -> None:
    """Write labels.npz (task -> [L, H]); the same bytes for the same vectors.

    Not by `numpy.savez`: it takes names as keywords, and a task may be called "file".
    """
    with zipfile.ZipFile(folder / LABELS_FILE, "w") as archive:
        for task, rows in sorted(vectors.items()):
            with archive.open(zipfile.ZipInfo(f"{task}.npy"), "w") as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(rows), allow_pickle=False)


def write_golden(folder: Path, answered: Mapping[str, Answered]) -> int:
    """Write golden.jsonl from the bundle's own answers, the clear ones first.

    Returns:
        How many pairs were written.
    """
    lines = []
    for task, answer in answered.items():
        rows = _clear_rows(answer)
        if answer.scores is None:  # texts may be long, and loading waits for them
            rows = sorted(rows, key=lambda row: len(answer.samples[row].request.text))[
                :GOLDEN_SPAN_TEXTS
            ]
        for row in rows[:GOLDEN_TEXTS]:
            lines.append(json.dumps(_pair(task, answer, row), ensure_ascii=False) + "\n")
    (folder / GOLDEN_FILE).write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _pair(task: str, answer: Answered, row: int) -> dict[str, Any]:
    best = answer.predictions[row].answers[0]
    request, question = answer.samples[row]
    n_told = 1 if question else GOLDEN_SCORES  # of a question the best answer alone
    pair = {**plain_request(request), "task": task, "label": best.label}
    if question:
        pair["question"] = question
    if not answer.is_plain:
        pair["labels"] = best.labels
    if answer.scores is None:
        told = best.spans[:1] if question else best.spans
        pair["spans"] = [(span.start, span.end, span.label) for span in told]
    return pair | {"scores": {s.label: round(s.score, 6) for s in best.scores[:n_told]}}


def _clear_rows(answer: Answered) -> Sequence[int]:
    """Rows in their order, those that are nearly tied put last; near a threshold, left out."""
    margins = answer.margins.tolist()
    clear = [row for row, margin in enumerate(margins) if margin >= MIN_MARGIN]
    close = [row for row, margin in enumerate(margins) if margin < MIN_MARGIN]
    if clear and not answer.is_plain:
        return clear
    return clear + sorted(close, key=lambda row: -margins[row])


def _named_files(folder: Path) -> set[str] | None:
    """Files a bundle's manifest names, itself included; None where there is no manifest."""
    try:
        raw = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        return {MANIFEST_FILE, *map(str, raw["files"])} if "format_version" in raw else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _swap(stage: Path, out: Path) -> None:
    """Put the new folder in the old one's place; the old one comes back if that fails."""
    check_target(out)  # again: an export takes minutes
    if not out.exists():
        stage.replace(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    out.replace(old)  # onto an empty folder, which POSIX allows
    try:
        stage.replace(out)
    except OSError:
        old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)

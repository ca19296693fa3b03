"""A stage's figures in numbers and words, and the arithmetic of what would pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instructrec_deploy.core.bundle import TOKENIZER_FILE, read_text
from instructrec_deploy.core.errors import PlanMissed
from instructrec_deploy.core.manifest import Manifest
from instructrec_deploy.export.plan import PrunePart
from instructrec_deploy.export.source import CHECKPOINT_FOLDER
from instructrec_deploy.export.stage_store import Made

MEGABYTE = 1_000_000
SIZE_STEP = 100  # a proposed vocabulary is a multiple of it
NEARLY_WHOLE = 0.95  # a share above it is not worth a distillation


def stage_figures(
    stage: str, made: Made, before: Made | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A stage as the bundle keeps it."""
    told: dict[str, Any] = {"stage": stage, "settings": dict(settings), **made.figures}
    loss = None if before is None else loss_points(before, made)
    return told if loss is None else told | {"loss_points": round(loss, 4)}


def loss_points(before: Made, after: Made) -> float | None:
    """Points of quality; None where it was not measured."""
    values = [made.figures.get("quality", {}).get("value") for made in (before, after)]
    return None if None in values else 100.0 * (values[0] - values[1])


def figure_words(made: Made) -> str:
    tasks = made.figures["quality"]["tasks"]
    names = sorted({task["figure"] for task in tasks.values()})
    n = sum(task["n"] for task in tasks.values())
    return f"{' and '.join(names)} on {n} validation rows"


def stage_line(made: Made) -> str:
    """Size, speed and quality in words."""
    parts = [megabytes(made)]
    if made.figures.get("speedup"):
        parts.append(f"{made.figures['speedup']:.2f} x the run's speed")
    if "quality" in made.figures:
        parts.append(f"quality {made.figures['quality']['value']:.4f}")
    return ", ".join(parts)


def megabytes(made: Made) -> str:
    return f"{made.figures['size_bytes'] / MEGABYTE:.1f} MB"


def dearest_step(stages: Sequence[Mapping[str, Any]]) -> str:
    """Which stage costs how much, the dearest first."""
    costs = sorted(
        ((stage["loss_points"], stage["stage"]) for stage in stages if "loss_points" in stage),
        reverse=True,
    )
    named = ", ".join(f"{name} {loss:.2f}" for loss, name in costs)
    return f"points by stage: {named}; make {costs[0][1]} milder"


def milder_pruning(part: PrunePart, n_layers: int) -> PrunePart | None:
    """Half as far from the whole model; None where nothing would be pruned any more."""
    changes: dict[str, Any] = {
        "ffn": round((1.0 + part.ffn) / 2, 3),
        "heads": round((1.0 + part.heads) / 2, 3),
    }
    if part.layers:
        changes["layers"] = part.layers + 1 if part.layers + 1 < n_layers else 0
    found = part.model_copy(update=changes)
    is_whole = found.ffn > NEARLY_WHOLE and found.heads > NEARLY_WHOLE and not found.layers
    return None if is_whole else found


def pruning_words(part: PrunePart) -> str:
    named = {"ffn": part.ffn, "heads": part.heads, "layers": part.layers}
    return ", ".join(f"prune.{k} = {v:g}" for k, v in named.items() if v not in (1.0, 0))


def count_layers(run: Path) -> int:
    config = json.loads(read_text(run / CHECKPOINT_FOLDER / "encoder" / "config.json"))
    return int(config.get("num_hidden_layers") or config["n_layers"])


def check_size(manifest: Manifest, size_bytes: int, product: Path, max_size_mb: float) -> None:
    """Refuse a bundle that is larger than its plan allows.

    Args:
        manifest: the bundle's.
        size_bytes: of all its files.
        product: where it lies.
        max_size_mb: 0 allows any size.

    Raises:
        PlanMissed: it is; the hint says how many pieces of the vocabulary would fit.
    """
    if not max_size_mb or size_bytes <= max_size_mb * MEGABYTE:
        return
    files = sorted(manifest.files.items(), key=lambda one: -one[1].size_bytes)
    named = ", ".join(f"{name} {entry.size_bytes / MEGABYTE:.1f}" for name, entry in files[:3])
    raise PlanMissed(
        f"the bundle has {size_bytes / MEGABYTE:.2f} MB (at most {max_size_mb:g}): {named}",
        hint=_smaller_vocabulary(manifest, product, size_bytes - max_size_mb * MEGABYTE),
    )


def _smaller_vocabulary(manifest: Manifest, product: Path, excess: float) -> str:
    """How many pieces would fit, by arithmetic: a row of the table and a line of the tokenizer."""
    model, file = manifest.model, product / TOKENIZER_FILE
    n_pieces = len(json.loads(read_text(file))["model"]["vocab"])
    row = model.hidden_size + 4 if model.precision != "fp32" else 4 * model.hidden_size
    per_piece = row + file.stat().st_size / n_pieces
    size = int((n_pieces - excess / per_piece) / SIZE_STEP - 1) * SIZE_STEP
    if size < 10 * SIZE_STEP:
        return "no vocabulary is small enough: prune more (prune.ffn, prune.layers)"
    return f"vocabulary.size = {size} should fit ({per_piece:.0f} bytes a piece); or prune more"

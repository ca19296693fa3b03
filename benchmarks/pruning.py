"""What pruning costs before any distillation: validation accuracy as cut, and refitted.

    python benchmarks/pruning.py RUN --data-root DATA --out results.json

RUN is a finished run of `instructrec train` whose first task has single labels. Every variant is
chosen, cut and refitted as `instructrec prune` does it; nothing is tuned, so that the figures are
of the choice and of the fit alone. Test rows are not read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from instructrec_deploy.models.checkpoint import Checkpoint, load_checkpoint
from instructrec_training.data import TaskData, load_task_data, outputs_by_row
from instructrec_training.pruning import Pruning, choose, cut, make_learner, recovery_recipe
from instructrec_training.recipe import Recipe
from instructrec_training.refit import refit, rows_to_read, token_batches

VARIANTS = (
    Pruning(ffn=0.5),
    Pruning(ffn=0.25),
    Pruning(heads=0.5),
    Pruning(layers=4),
    Pruning(ffn=0.5, heads=0.5),
)
BATCH = 64


def accuracy(
    checkpoint: Checkpoint, tasks: Sequence[TaskData], recipe: Recipe, n_rows: int
) -> float:
    """Share of the first task's validation rows that are answered right."""
    learner = make_learner(checkpoint, tasks, recipe).eval()
    rows = tasks[0].validation[:n_rows]
    with torch.no_grad():
        outputs = outputs_by_row(rows, BATCH, learner.objectives[0].outputs)
    hits = [int(output.argmax()) == row.label for output, row in zip(outputs, rows, strict=True)]
    return sum(hits) / len(hits)


def measure(run: Path, root: Path, n_rows: int, n_measured: int) -> dict[str, Any]:
    """All variants, one after another."""
    recipe = recovery_recipe(run, Pruning(epochs=0))
    folder = run / "checkpoint"
    whole = load_checkpoint(folder)
    tokenizer = whole.open_tokenizer()
    tasks = load_task_data(recipe, root, tokenizer)
    section = whole.section
    weight = section.instruction_weight if section.kind == "instruction-encoder" else None
    batches = token_batches(rows_to_read(tasks, n_measured, tokenizer, weight), section.pad_id)
    found: dict[str, Any] = {
        "run": run.name,
        "validation_rows": min(n_rows, len(tasks[0].validation)),
        "measured_rows": n_measured,
        "whole": round(accuracy(whole, tasks, recipe, n_rows), 4),
        "variants": [],
    }
    for variant in VARIANTS:
        chosen = Pruning(variant.ffn, variant.heads, variant.layers, n_measured)
        kept = choose(load_checkpoint(folder), tasks, recipe, chosen)
        pruned = cut(load_checkpoint(folder), kept)
        before = accuracy(pruned, tasks, recipe, n_rows)
        refit(whole.model.eval(), pruned.model.eval(), kept["layers"], batches)
        line = {
            "ffn": variant.ffn,
            "heads": variant.heads,
            "layers": variant.layers or "all",
            "n_parameters": pruned.n_parameters,
            "cut": round(before, 4),
            "refitted": round(accuracy(pruned, tasks, recipe, n_rows), 4),
        }
        print(json.dumps(line), flush=True)
        found["variants"].append(line)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000, help="validation rows at most")
    parser.add_argument("--measured", type=int, default=512, help="training rows")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = measure(given.run, given.data_root, given.rows, given.measured)
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What an export by a plan asks of the training package; found by an entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from instructrec_deploy.core.example import Example
from instructrec_deploy.export.trim import corpus_texts
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_training.data import data_root, load_task_data
from instructrec_training.pruning import Pruning, prune_run, recovery_recipe
from instructrec_training.run import CHECKPOINT_FOLDER, RECIPE_FILE


def prune(
    run: Path,
    out: Path,
    *,
    settings: Mapping[str, Any],
    data_root: Path,
    say: Callable[[str], None],
) -> None:
    """Prune and distil a run into another run; one that was interrupted goes on."""
    is_begun = (out / RECIPE_FILE).is_file()
    prune_run(run, Pruning(**settings), out, data_root=data_root, resume=is_begun, say=say)


def read_rows(run: Path, *, data_root: Path) -> tuple[list[str], dict[str, list[Example]]]:
    """A run's training texts, and its validation rows by task.

    Raises:
        FileMissing: its data is not under `data_root`.
    """
    recipe = recovery_recipe(run, Pruning())
    tokenizer = load_checkpoint(run / CHECKPOINT_FOLDER).open_tokenizer()
    tasks = load_task_data(recipe, data_root, tokenizer)
    train = chain.from_iterable(task.train for task in tasks)
    texts = corpus_texts(row.example for row in train if row.example is not None)
    rows = {
        task.name: list({id(row.example): row.example for row in task.validation}.values())
        for task in tasks
    }
    return texts, {name: [row for row in chosen if row] for name, chosen in rows.items()}


def find_data_root(given: Path | None) -> Path:
    """Where a run's data paths start: as for `train`."""
    return data_root(given)

"""What tuning learned about a task's own labels: a vector for each, beside what its words say."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping

import numpy as np

from instructrec_deploy.core.bundle import LABELS_FILE, Bundle
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.tasks.base import Floats


class LearnedLabels:
    """Learned vectors by task and label. Empty for a bundle that has none.

    Args:
        tasks: task -> label -> [H] float32.
    """

    def __init__(self, tasks: Mapping[str, Mapping[str, Floats]] | None = None) -> None:
        self._tasks = tasks or {}

    def add(self, instruction: Instruction, vectors: Floats) -> Floats:
        """Add what was learned to the vectors read from the candidates' words.

        Args:
            instruction: only candidates of a tuned task that are its own labels gain anything.
            vectors: [C, H] float32, L2-normalized.

        Returns:
            [C, H] float32, normalized no more where something was added; as training scores them.
        """
        known = self._tasks.get(instruction.task)
        if not known:
            return vectors
        nothing = np.zeros(vectors.shape[1], np.float32)
        learned = np.stack([known.get(label, nothing) for label in instruction.labels])
        return np.asarray(vectors + learned, np.float32)


def open_learned_labels(bundle: Bundle) -> LearnedLabels:
    """Read a bundle's `labels.npz` (task -> [L, H], rows in the order of the task's labels).

    Raises:
        BundleError: it is unreadable or does not fit the tasks.
    """
    if not bundle.has(LABELS_FILE):
        return LearnedLabels()
    tasks: dict[str, dict[str, Floats]] = {}
    try:
        with np.load(bundle.path(LABELS_FILE), allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name], np.float32) for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{LABELS_FILE} cannot be read", hint="export it again") from error
    for task, rows in arrays.items():
        spec = bundle.tasks.tasks.get(task)
        wanted = (len(spec.labels), bundle.manifest.model.hidden_size) if spec else None
        if spec is None or rows.shape != wanted:
            raise BundleError(
                f"{LABELS_FILE} does not fit the labels of tasks.toml", hint="export it again"
            )
        tasks[task] = dict(zip(spec.labels, rows, strict=True))
    return LearnedLabels(tasks)

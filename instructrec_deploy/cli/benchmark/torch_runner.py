"""A checkpoint in PyTorch eager mode, as a variant of its exported graphs.

Shapes: B texts, T tokens, L labels.
"""

from __future__ import annotations

from pathlib import Path

import torch

from instructrec_deploy.cli.benchmark.runners import check_task
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.source import read_run
from instructrec_deploy.tasks.base import Floats, Ints

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchRunner:
    """The run's model in one of `TYPES`, weights and all; nothing is compiled.

    Args:
        run: a run folder.
        task: its name; "" for the default task.
        precision: fp32 or bf16.
        n_threads: of the whole process.

    Raises:
        FileMissing, ConfigError, BundleError: no usable run.
        ConfigError: the task does not choose among labels of its own.
    """

    def __init__(self, run: Path, task: str, *, precision: str, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        source = read_run(run)
        name = task or source.book.default_task
        spec = source.book.tasks[name]
        check_task(spec.instruction(name))
        source.checkpoint.model.to(TYPES[precision])
        reference = Reference(source.checkpoint)
        self._score = reference.scorer(name, spec)
        self.tokenizer = reference.tokenizer
        self.pad_id = source.checkpoint.section.pad_id
        self.labels = spec.labels

    def logits(self, ids: Ints, mask: Ints) -> Floats:
        """As `Runner`."""
        with torch.inference_mode():
            found: Floats = self._score(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return found

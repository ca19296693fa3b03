"""A variant, open in this process: token ids in, logits of a task's labels out.

Shapes: B texts, T tokens, L labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.task import Shape, TaskKind
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.tasks.base import Floats, Ints
from instructrec_deploy.text.tokenizer import TextTokenizer


class Runner(Protocol):
    """What every variant can do."""

    tokenizer: TextTokenizer
    pad_id: int
    labels: tuple[str, ...]

    def logits(self, ids: Ints, mask: Ints) -> Floats:
        """[B, T], [B, T] int64 -> [B, L] float32, before the task's temperature."""


class EngineRunner:
    """A bundle with its runtime, on one lane.

    Raises:
        BundleError, MissingExtra: as `Engine`.
        TaskUnknown: the bundle has no such task.
        ConfigError: the task does not choose among labels of its own.
    """

    def __init__(self, folder: Path, task: str, settings: EngineSettings) -> None:
        bundle = open_bundle(folder)
        instruction = bundle.instruction(task)
        check_task(instruction)
        self._pipeline = Pipeline.open(bundle, engine=settings, guard=False)
        self._prepared = self._pipeline.prepare(instruction)
        self.tokenizer = self._pipeline.tokenizer
        self.pad_id = self._pipeline.engine.model.pad_id
        self.labels = self._prepared.labels

    def logits(self, ids: Ints, mask: Ints) -> Floats:
        """As `Runner`."""
        encoding = self._pipeline.engine.encode(ids, mask)
        return self._pipeline.logits(encoding, list(range(len(ids))), self._prepared)


def check_task(instruction: Instruction) -> None:
    """Refuse a task whose answer is not one of its labels.

    Raises:
        ConfigError: it is.
    """
    is_scored = instruction.shape is Shape.CLASSIFY and instruction.kind is not TaskKind.RANKING
    if not is_scored or instruction.decision.is_any:
        raise ConfigError(
            f"task {instruction.task!r} does not choose one of its labels: variants are compared "
            "by such tasks alone",
            hint="name another one with --task",
        )

"""A variant in a process of its own, seen from the one that compares."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.cli.benchmark import variant_worker
from instructrec_deploy.cli.benchmark.cells import Cell
from instructrec_deploy.cli.benchmark.variants import Variant
from instructrec_deploy.cli.process_memory import peak_mb, resident_mb
from instructrec_deploy.core.closing import Closing
from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.core.failure import rebuild_error
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.text.render import Passage

STOP_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class PassTime:
    """Seconds of one pass over a cell."""

    pass_s: float
    cpu_s: float  # processor time, of all threads


class VariantProcess(Closing):
    """A running `variant_worker`; to be closed.

    Args:
        variant: what it opens.
        n_threads: inside an operator.
        task: whose labels are scored.
        settings: of the engine, for variants that have one.
        log: what the process says beside its answers.

    Raises:
        InstructRecError: what kept the variant from being opened.
    """

    def __init__(
        self,
        variant: Variant,
        n_threads: int,
        *,
        task: str = "",
        settings: Mapping[str, Any],
        log: Path,
    ) -> None:
        self.variant = variant
        self._log = log
        opening = {
            "engine": variant.engine,
            "folder": variant.folder,
            "precision": variant.precision,
            "n_threads": n_threads,
            "task": task,
            "settings": dict(settings),
        }
        begun = time.monotonic()
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", variant_worker.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                encoding="utf-8",
            )
        try:
            opened = self._ask(opening)
        except BaseException:
            self.close()
            raise
        self.labels: tuple[str, ...] = tuple(opened["labels"])
        self.max_tokens: int = opened["max_tokens"]  # of a text; longer ones are cut
        self.start_s = time.monotonic() - begun  # from the process's start to its first answer

    def load(self, passages: Sequence[Passage], cells: Sequence[Cell]) -> None:
        """Give it the texts and the cells that `measure` will name by their number."""
        texts = [[p.text, p.second, p.keep] for p in passages]
        self._ask({"passages": texts, "cells": [variant_worker.asdict_cell(c) for c in cells]})

    def measure(self, cell: int, seconds: float) -> PassTime:
        """Measure one cell for so long."""
        return PassTime(**self._ask({"cell": cell, "seconds": seconds}))

    def logits(self, batch: int, path: Path) -> Floats:
        """[N, L] of all texts, asked in batches of so many, through a file at `path`."""
        self._ask({"batch": batch, "path": str(path)})
        found: Floats = np.load(path)
        return found

    def memory_mb(self) -> float:
        """Resident memory now."""
        return resident_mb(self._process.pid)

    def peak_mb(self) -> float:
        """The most it ever was."""
        return peak_mb(self._process.pid)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        if self._process.poll() is None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # it ended; why, its last answer or its log says
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
            raise InternalError(
                f"the process of {self.variant.name} ended: {(tail or ['no reason given'])[0]}",
                hint="free memory, or leave the variant out",
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise rebuild_error(**answer["error"])
        return answer

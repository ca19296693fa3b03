"""The process of one variant: it opens it, then measures what it is told.

`python -m instructrec_deploy.cli.benchmark.variant_worker` reads a JSON object a line from standard
input and answers each with one on standard output. The first says what to open (`opening`), the
answer is given when a text has been read; the second brings texts and cells (`loading`); the others
ask for measurements. A process of its own, so that the threads of one library do not stand in the
way of another's, and so that memory is told apart.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.cli.benchmark.cells import Batch, Cell, cut, make_batches
from instructrec_deploy.cli.benchmark.runners import EngineRunner, Runner
from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.text.render import Passage

ORDER_SEED = 0  # the same random order of real texts for every variant


class Worker:
    """An open variant.

    Args:
        runner: the variant.
        clock: seconds, to measure with.
        cpu_clock: seconds of processor time of this process, all threads.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._runner = runner
        self._clock, self._cpu_clock = clock, cpu_clock
        self._rows: list[list[int]] = []
        self._batches: list[list[Batch]] = []
        self._pass_s: dict[int, float] = {}

    def load(self, passages: Sequence[Sequence[Any]], cells: Sequence[Mapping[str, Any]]) -> None:
        """Take in the texts, in their order, and the cells that will be measured."""
        read = [Passage(p[0], p[1], tuple((a, b) for a, b in p[2])) for p in passages]
        tokenizer, pad_id = self._runner.tokenizer, self._runner.pad_id
        self._rows = [e.ids for e in tokenizer.encode_passages(read, use_offsets=False)]
        order = np.random.default_rng(ORDER_SEED).permutation(len(self._rows))
        mixed = [self._rows[at] for at in order]
        self._batches = [
            make_batches(Cell(**cell), mixed, frame=tokenizer.frame, pad_id=pad_id)
            for cell in cells
        ]
        self._pass_s.clear()

    def measure(self, number: int, seconds: float) -> dict[str, float]:
        """Seconds of a pass over a cell, by the clock and of processor time.

        Passes are made until the time is up, one at least, after one that is not counted; a cell
        that takes longer than the time is warmed up once, when it is first asked for.
        """
        if self._pass_s.get(number, 0.0) < seconds:
            begun = self._clock()
            self._pass(number)
            self._pass_s[number] = self._clock() - begun
        n_passes, begun, cpu_begun = 0, self._clock(), self._cpu_clock()
        while True:
            self._pass(number)
            n_passes += 1
            spent = self._clock() - begun
            if spent >= seconds:
                cpu_s = self._cpu_clock() - cpu_begun
                return {"pass_s": spent / n_passes, "cpu_s": cpu_s / n_passes}

    def write_logits(self, batch: int, path: str) -> dict[str, Any]:
        """Write the logits [N, L] of all texts to a .npy file, asked in batches as they come."""
        batches = cut(self._rows, batch, self._runner.pad_id)
        np.save(path, np.concatenate([self._runner.logits(*one) for one in batches]))
        return {"mean_tokens": sum(map(len, self._rows)) / len(self._rows)}

    def _pass(self, number: int) -> None:
        for ids, mask in self._batches[number]:
            self._runner.logits(ids, mask)


def open_runner(opening: Mapping[str, Any]) -> Runner:
    """The variant that an `opening` names.

    Raises:
        InstructRecError: it cannot be opened.
    """
    folder, task, n_threads = Path(opening["folder"]), opening["task"], opening["n_threads"]
    if opening["engine"] == "pytorch":
        from instructrec_deploy.cli.benchmark.torch_runner import TorchRunner

        return TorchRunner(folder, task, precision=opening["precision"], n_threads=n_threads)
    chosen = {"runtime": opening["engine"], "n_lanes": 1, "threads_per_lane": n_threads}
    settings = EngineSettings.model_validate({**opening["settings"], **chosen})
    return EngineRunner(folder, task, settings)


def serve(lines: Callable[[], str], say: Callable[[Mapping[str, Any]], None]) -> None:
    """Answer line by line until there is no more, or an error was told."""
    try:
        runner = open_runner(json.loads(lines()))
        worker = Worker(runner)
        worker.load([["ok 好", "", []]], [asdict_cell(Cell(1, "mixed"))])
        worker.measure(0, 0.0)
        say({"labels": runner.labels, "max_tokens": runner.tokenizer.max_tokens})
        while line := lines():
            asked = json.loads(line)
            if "passages" in asked:
                worker.load(asked["passages"], asked["cells"])
                say({})
            elif "cell" in asked:
                say(worker.measure(asked["cell"], asked["seconds"]))
            else:
                say(worker.write_logits(asked["batch"], asked["path"]))
    except InstructRecError as error:
        say({"error": {"message": error.message, "code": error.code, "hint": error.hint}})


def asdict_cell(cell: Cell) -> dict[str, Any]:
    """A cell as it goes through a pipe."""
    return {"batch": cell.batch, "order": cell.order, "length": cell.length}


def main() -> None:
    """Serve the process that started this one."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print: not between answers

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    serve(sys.stdin.readline, say)


if __name__ == "__main__":
    main()

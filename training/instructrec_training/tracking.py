"""What a run tells: a JSONL log for programs, a progress bar for people."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from instructrec_deploy.core.errors import MissingExtra


class Tracker:
    """Appends to `log.jsonl` and shows progress on standard error.

    The log holds figures only, never a text.
    """

    def __init__(
        self,
        log: Path,
        *,
        is_main: bool = True,
        is_quiet: bool = False,
        tensorboard: Path | None = None,
    ) -> None:
        self._log = log if is_main else None
        self._board = _open_board(tensorboard) if tensorboard and is_main else None
        self.console = Console(stderr=True, quiet=is_quiet or not is_main)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=is_quiet or not is_main or not self.console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=None, visible=False, rate="")
        self._told = time.monotonic()

    def __enter__(self) -> Tracker:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._board is not None:
            self._board.close()

    def say(self, words: str) -> None:
        """A line for people."""
        self.console.print(words, highlight=False, markup=False, soft_wrap=True)

    def record(self, event: str, **figures: Any) -> None:
        """A line for programs; TensorBoard has its numbers by `step`, else by `epoch`."""
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"event": event, **figures}) + "\n")
        if self._board is not None:
            numbers = {k: v for k, v in figures.items() if isinstance(v, int | float)}
            place = int(numbers.get("step", numbers.get("epoch", 0)))
            for name in numbers.keys() - {"step", "epoch"}:
                self._board.add_scalar(f"{event}/{name}", numbers[name], place)

    def step(self, done: int, total: int, *, words: str, rows_per_s: float) -> None:
        """Move the bar; without a terminal, say where it is every 15 seconds."""
        rate = f"{rows_per_s:.0f} rows/s"
        self._progress.update(
            self._bar, completed=done, total=total, description=words, visible=True, rate=rate
        )
        if not self.console.is_terminal and time.monotonic() - self._told > 15:
            self._told = time.monotonic()
            self.say(f"  {words}: step {done}/{total}, {rate}")


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra(
            "training.tensorboard needs tensorboard",
            hint="pip install 'instructrec-deploy[tensorboard]'",
        ) from error
    return SummaryWriter(str(folder))

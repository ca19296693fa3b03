"""What an export by a plan works on: a run, its rows, and the tools of the training package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from instructrec_deploy.core.bundle import read_text
from instructrec_deploy.core.errors import FileMissing
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.request import Request
from instructrec_deploy.export.plan import Plan
from instructrec_deploy.export.quality import Rows

RUN_FILES = ("tasks.toml", "samples.jsonl", "safety.toml", "evaluation.json", "recipe.json")
Say = Callable[[str], None]


class RunTools(Protocol):
    """What only the training package can do with a run."""

    def prune(
        self, run: Path, out: Path, *, settings: Mapping[str, Any], data_root: Path, say: Say
    ) -> None:
        """Prune and distil a run; goes on with an interrupted one."""

    def read_rows(
        self, run: Path, *, data_root: Path
    ) -> tuple[list[str], dict[str, list[Example]]]:
        """The run's training texts, and its validation rows by task."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a plan works on.

    rows: validation rows, by task; empty where they cannot be read. calibration: texts for int8;
    empty takes the run's samples. texts: of the training rows. corpus: what the vocabulary is cut
    to.
    """

    run: Path
    rows: Rows
    texts: Sequence[str] = ()
    corpus: Sequence[str] = ()
    calibration: Sequence[Request] = ()


def read_inputs(
    run: Path,
    plan: Plan,
    *,
    tools: RunTools,
    data_root: Path,
    corpus: Sequence[str] = (),
    calibration: Sequence[Request] = (),
) -> Inputs:
    """The run's rows where its data is there.

    Args:
        run: the run.
        plan: what needs rows.
        tools: of the training package.
        data_root: where the run's data paths start.
        corpus: what the vocabulary is cut to; () takes the training texts.
        calibration: texts for int8; () takes the run's samples.

    Raises:
        FileMissing: a stage needs the data, and it is not there.
    """
    needs_texts = plan.vocabulary is not None and not corpus
    try:
        texts, rows = tools.read_rows(run, data_root=data_root)
    except FileMissing:
        if plan.prune is not None or needs_texts:
            raise
        return Inputs(run, {}, (), corpus, calibration)
    return Inputs(run, rows, texts, corpus or texts, calibration)


def hash_files(run: Path) -> str:
    found = [f"{n}\n{read_text(run / n)}" for n in RUN_FILES if (run / n).is_file()]
    return hash_lines(found)


def hash_rows(rows: Rows) -> str:
    return hash_lines(
        [f"{task}\t{row.text}\t{row.text2}\t{row.target}" for task in rows for row in rows[task]]
    )


def hash_lines(lines: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()

"""How good and how fast a stage's bundle is, against the run's own in 32-bit floats."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.evaluate import evaluate_rows
from instructrec_deploy.evaluation.figures import HEADLINES
from instructrec_deploy.evaluation.judging import Outcome
from instructrec_deploy.evaluation.requests import request_of
from instructrec_deploy.evaluation.targets import question_of
from instructrec_deploy.runtime.predictor import Predictor

SPEED_TEXTS = 64
SPEED_ROUNDS = 7  # of both in turn; the median of an odd number
ERROR_FIGURES = ("ece",)  # less is better: no headline

Rows = Mapping[str, Sequence[Example]]  # by task


@dataclass(frozen=True, slots=True)
class Quality:
    """The mean over tasks of each one's headline, and the figures it is made of."""

    value: float
    tasks: dict[str, dict[str, Any]]  # task -> figure, value, interval, n

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {"value": round(self.value, 6), "tasks": self.tasks}


def measurable(rows: Rows, tasks: Mapping[str, TaskSpec], n_rows: int) -> dict[str, list[Example]]:
    """Rows that can be asked by their task's name: the first `n_rows` of each task.

    Rankings are left out: their candidates are resolved by the training.
    """
    return {
        name: list(chosen[:n_rows])
        for name, chosen in rows.items()
        if chosen and name in tasks and tasks[name].kind is not TaskKind.RANKING
    }


def measure_quality(bundle: Path, rows: Rows) -> Quality:
    """Ask a bundle all rows, as a caller would, without its guard."""
    found: dict[str, dict[str, Any]] = {}
    opened = open_bundle(bundle)
    with Predictor(opened, guard=False) as predictor:
        for name, examples in rows.items():
            spec = opened.tasks.tasks[name]

            def predict(
                chosen: Sequence[Example], task: str = name, spec: TaskSpec = spec
            ) -> list[Outcome]:
                return predictor.predict_requests([_ask(task, spec, row) for row in chosen])

            candidates = spec.labels if spec.kind is not TaskKind.QA else ()
            result = evaluate_rows(
                examples, predict, candidates=candidates, none_label=spec.none_label
            )
            values = result.figures.values
            name_of = next(n for n in HEADLINES if n in values and n not in ERROR_FIGURES)
            figure = values[name_of]
            found[name] = {
                "figure": name_of,
                "value": round(figure.value, 6),
                "interval": [round(figure.low, 6), round(figure.high, 6)],
                "n": result.figures.n,
            }
    return Quality(statistics.mean(task["value"] for task in found.values()), found)


def measure_speedup(
    bundle: Path,
    base: Path,
    texts: Sequence[str],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """How much faster a bundle answers than another, both in turn: the median over rounds.

    The first task with labels is asked; None where there is none. Only the ratio is worth anything,
    and it holds for this machine.
    """
    with Predictor(bundle, guard=False) as one, Predictor(base, guard=False) as other:
        tasks = [n for n, s in one.bundle.tasks.tasks.items() if s.labels]
        if not tasks:
            return None
        asked = [Request.of(text, (Question(task=tasks[0]),)) for text in texts]
        for predictor in (one, other):  # candidates are prepared, memory is there
            predictor.predict_requests(asked)
        ratios = []
        for _ in range(SPEED_ROUNDS):
            seconds = []
            for predictor in (other, one):
                begun = clock()
                predictor.predict_requests(asked)
                seconds.append(clock() - begun)
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def _ask(task: str, spec: TaskSpec, row: Example) -> Request:
    if spec.kind is TaskKind.QA:
        question = Question(instruction=spec.instruction(task, question_of(row)))
        return request_of(row, question, top_k=0)
    return request_of(row, Question(task=task), top_k=0)

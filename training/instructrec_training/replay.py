"""Corrections and old rows as one training set, and the rows that both models are tested on."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.feedback import Feedback, normal_text
from instructrec_deploy.core.request import Request
from instructrec_deploy.evaluation.requests import content_of, passage_of
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.data import TaskData, load_task_data
from instructrec_training.promotion import HeldRows
from instructrec_training.recipe import DataPart, Recipe
from instructrec_training.rows import Row
from instructrec_training.tokenize_rows import words_of

REPLAY_ROWS = 2_000  # of a task, an epoch: every label of some tens comes up, in a minute or two
MAX_WEIGHT = 20  # how often an epoch shows a correction; more only learns its words by heart


@dataclass(slots=True)
class Mixed:
    """What the new run is tuned and tested on."""

    tasks: list[TaskData]
    tests: list[HeldRows]
    feedback_tests: list[HeldRows]
    facts: dict[str, Any] = field(default_factory=dict)


def mix_feedback(
    recipe: Recipe,
    old: Sequence[TaskData],
    tokenizer: TextTokenizer,
    *,
    store: Path,
    folder: Path,
    replay_share: float,
) -> Mixed:
    """Old rows and corrections together, and what both models will be tested on.

    An old row is left out where a correction of the same text says otherwise, or is kept for tests.

    Args:
        recipe: what is tuned.
        old: its tasks with all their rows.
        tokenizer: of the model.
        store: the corrections.
        folder: where those that are used are kept; if it is there, they are taken from it.
        replay_share: in [0, 1): at least this share of an epoch's rows are replayed old ones.

    Raises:
        ConfigError: no correction can be used.
    """
    if not folder.is_dir():
        _write_usable(folder, store, old, replay_share)
    usable = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    if usable["replay_share"] != replay_share:
        raise ConfigError(
            f"this run was begun with --replay-share {usable['replay_share']:g}",
            hint="resume it with the same, or name another --out",
        )
    parts = tuple(
        DataPart(path=str(file.resolve()), task=name, validation_split="val")
        for name, file in ((t.name, folder / f"{n}.jsonl") for n, t in enumerate(old))
        if file.is_file()
    )
    loaded = load_task_data(recipe.model_copy(update={"data": parts}), folder, tokenizer)
    given = {task.name: task for task in loaded}
    rng = random.Random(f"{recipe.training.seed}-replay")
    mixed = Mixed([], [], [], {"rows_in_store": usable["n"], "left_out": usable["left_out"]})
    mixed.facts["tasks"] = {}
    for task in old:
        chosen, facts = _mix(task, given.get(task.name), replay_share, rng)
        mixed.tasks.append(chosen)
        mixed.facts["tasks"][task.name] = facts
        mixed.tests.append(_held(task, "test" if task.test else "validation"))
        if task.name in given and given[task.name].test:
            mixed.feedback_tests.append(_held(given[task.name], "test"))
    return mixed


def proportions(n_feedback: int, n_old: int, replay_share: float) -> tuple[int, int]:
    """How many old rows an epoch replays, and how often it shows each correction.

    Many old rows are replayed even for few corrections, and these are shown more often instead,
    so that the share of the old ones is `replay_share`, or more where `MAX_WEIGHT` is reached.
    """
    if not (replay_share and n_old):
        return 0, 1
    wanted = math.ceil(n_feedback * replay_share / (1.0 - replay_share))
    n_replayed = max(min(n_old, REPLAY_ROWS), wanted)
    weight = math.floor(n_replayed * (1.0 - replay_share) / (replay_share * n_feedback))
    return n_replayed, min(max(weight, 1), MAX_WEIGHT)


def _draw(rows: Sequence[Row], n: int, rng: random.Random) -> list[Row]:
    """So many rows, each as often as the others as far as that goes."""
    n_whole, rest = divmod(n, len(rows)) if rows else (0, 0)
    return [*rows] * n_whole + rng.sample(rows, rest)


def _mix(
    task: TaskData, given: TaskData | None, replay_share: float, rng: random.Random
) -> tuple[TaskData, dict[str, Any]]:
    if given is None:
        n_replayed = min(len(task.train), REPLAY_ROWS)
        replayed = _draw(task.train, n_replayed, rng)
        return replace(task, train=tuple(replayed)), {"n": 0, "n_replayed": n_replayed}
    held = {normal_text(row.text) for row in (*given.validation, *given.test)}
    corrected = {normal_text(row.text): row.label for row in given.train}
    kept = [
        row
        for row in task.train
        if (text := normal_text(row.text)) not in held
        and corrected.get(text, row.label) == row.label
    ]
    n_replayed, weight = proportions(len(given.train), len(kept), replay_share)
    mixed = replace(
        task,
        train=(*_draw(kept, n_replayed, rng), *given.train * weight),
        validation=(*task.validation, *given.validation * weight),
    )
    facts = {
        "n": len(given.train) + len(given.validation) + len(given.test),
        "n_train": len(given.train),
        "n_validation": len(given.validation),
        "n_test": len(given.test),
        "weight": weight,
        "n_replayed": n_replayed,
        "replay_share": round(n_replayed / len(mixed.train), 4),
        "n_old_rows_left_out": len(task.train) - len(kept),
    }
    return mixed, facts


def _held(task: TaskData, split: str) -> HeldRows:
    rows = task.held_out
    labels = tuple(task.spec.labels[row.label] for row in rows)
    requests = tuple(content_of(r.example) if r.example else Request(r.text) for r in rows)
    return HeldRows(task.name, split, requests, labels)


def _write_usable(folder: Path, store: Path, old: Sequence[TaskData], replay_share: float) -> None:
    """The corrections that can be used as data files, one a task, and a count of the others."""
    tasks = {task.name: task for task in old}
    held = {t.name: {normal_text(r.text) for r in (*t.validation, *t.test)} for t in old}
    rows: dict[str, list[Feedback]] = {task.name: [] for task in old}
    left_out: Counter[str] = Counter()
    n = 0
    with FeedbackStore.open(store) as opened:
        for kept in opened.rows():
            n += 1
            why = _why_not(kept.feedback, tasks, held)
            if why:
                left_out[why] += 1
            else:
                rows[kept.feedback.task].append(kept.feedback)
    for found in rows.values():
        if found and not any(feedback.split == "train" for feedback in found):
            left_out["too few of their task"] += len(found)
            found.clear()
    if not any(rows.values()):
        why = ", ".join(f"{n} {why}" for why, n in left_out.items())
        raise ConfigError(
            f"no correction can be used ({why or 'the store is empty'})",
            hint="`instructrec feedback stats STORE` counts what is there",
        )
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(exist_ok=True)
    for number, found in enumerate(rows.values()):
        if found:
            lines = [
                json.dumps({**f.to_row(), "split": f.split}, ensure_ascii=False) for f in found
            ]
            (part / f"{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts = {"n": n, "left_out": dict(left_out), "replay_share": replay_share}
    write_json(part / "counts.json", counts)
    part.replace(folder)


def _why_not(
    feedback: Feedback, tasks: Mapping[str, TaskData], held: Mapping[str, set[str]]
) -> str:
    """Why a correction cannot be used; "" if it can."""
    task = tasks.get(feedback.task)
    if task is None:
        return "of another task"
    if len(feedback.right.labels) != 1:
        return "without exactly one label"
    if feedback.right.labels[0] not in task.spec.labels:
        return "with a label the run does not know"
    text = words_of(passage_of(Example.from_row(feedback.to_row(), where="the store")))
    # Tuned on, a test row would no longer test anything.
    return "of a text of the old tests" if normal_text(text) in held[feedback.task] else ""


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)

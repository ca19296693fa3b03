"""Runs of tiny models for the tests of training: what they left, and recipes of several tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_training.recipe import Recipe

KINDS = ("instruction-encoder", "sequence-classification")
# Enough for the tiny model: its loss falls to under 0.8 of the first epoch's.
LEARNS: dict[str, Any] = {
    "epochs": 10,
    "patience": 10,
    "learning_rate": 3e-3,
    "head_learning_rate": 3e-2,
    "schedule": "constant",
}
TEXTS = ("i lost my card", "refund my card", "查询余额", "我的余额", "card refund", "get a refund")
WORDS = {"card": "thing", "余额": "thing", "lost": "event", "refund": "event"}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a run's checkpoint holds."""
    checkpoint = load_checkpoint(run / "checkpoint")
    vectors = {f"label_vectors.{name}": found for name, found in checkpoint.label_vectors.items()}
    return checkpoint.model.state_dict() | vectors


def events_of(run: Path, event: str) -> list[dict[str, Any]]:
    """Lines of one kind in a run's log."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [found for line in lines if (found := json.loads(line))["event"] == event]


def losses_of(run: Path) -> list[float]:
    """Mean training loss of each epoch."""
    return [event["loss"] for event in events_of(run, "epoch")]


def allow_any_label(root: Path) -> None:
    """Rewrite the intents so that one row has one label, one two, and one none."""
    both = {"card lost": ["card lost"], "refund": ["card lost", "refund"], "余额": []}
    file = root / "intents.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(row | {"target": both[row["target"]]}) for row in rows]
    file.write_text("\n".join(lines), encoding="utf-8")


def with_training(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other keys of `[training]`, checked as a whole."""
    content = recipe.model_dump()
    content["training"] |= changes
    return Recipe.model_validate(content)


def with_all_shapes(recipe: Recipe, root: Path, **changes: Any) -> Recipe:
    """An instruction encoder's recipe with two more tasks: any of three labels, and entities."""
    spans, topics = [], []
    for number in range(24):
        text, split = TEXTS[number % 6], ("train", "train", "val", "test")[number // 6]
        row = {"text": text, "id": str(number), "split": split}
        marks = [
            {"type": kind, "start": text.index(w), "end": text.index(w) + len(w), "text": w}
            for w, kind in WORDS.items()
            if w in text
        ]
        spans.append(row | {"task": "ner", "target": marks})
        topics.append(
            row | {"target": sorted({w for w in ("card", "refund", "余额") if w in text})}
        )
    for name, rows in (("spans", spans), ("topics", topics)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (root / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    content = recipe.model_dump()
    content["model"]["reader_layers"] = 1
    content["data"] = [
        *content["data"],
        {"path": "topics.jsonl", "task": "topics", "validation_split": "val"},
        {"path": "spans.jsonl", "task": "spans", "validation_split": "val"},
    ]
    content["tasks"] |= {
        "topics": {"decision": "any", "instructions": {"en": ["Which topics?"], "zh": ["哪些？"]}},
        "spans": {"kind": "ner", "instructions": {"en": ["Find it", "Mark it"], "zh": ["找出"]}},
    }
    content["training"] |= changes
    return Recipe.model_validate(content)


def learning(make: Callable[..., Recipe], root: Path, kind: str, extra: dict[str, Any]) -> Recipe:
    """A recipe that runs long enough to learn: of a kind of model; else of tasks of all shapes."""
    if kind in KINDS:
        return make(kind, "mean", **LEARNS | extra)
    return with_all_shapes(make(), root, **LEARNS | extra)

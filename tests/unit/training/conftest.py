"""A tiny transformers folder and a tiny data set, so that a run takes a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instructrec_training.recipe import Recipe
from instructrec_training.run import RunReport, train
from tests.tiny_base import write_tiny_base, write_tiny_data


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, 32 wide, with the tiny tokenizer."""
    return write_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-bert")


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """`intents.jsonl`: 3 labels, 24 training rows, 6 validation and 6 test rows."""
    return write_tiny_data(tmp_path / "data")


@pytest.fixture(scope="session")
def make_recipe(tiny_base: Path) -> Callable[..., Recipe]:
    """A recipe over the tiny base and data; keyword arguments change `[training]`."""

    def make(kind: str = "instruction-encoder", pooling: str = "native", **training: Any) -> Recipe:
        defaults = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "seed": 3}
        settings = defaults | {"precision": "fp32"} | training  # alike on every machine
        return Recipe.model_validate(
            {
                "name": "tiny",
                "model": {"kind": kind, "base": str(tiny_base), "dropout": 0.1, "pooling": pooling},
                "data": [{"path": "intents.jsonl", "task": "intent", "validation_split": "val"}],
                "tasks": {"intent": {"instructions": {"en": ["Which intent?", "What is it?"]}}},
                "training": settings,
            }
        )

    return make


@pytest.fixture
def run(data_root: Path, tmp_path: Path) -> Callable[..., RunReport]:
    """Train a recipe into a folder of that name."""

    def start(recipe: Recipe, name: str = "run") -> RunReport:
        return train(recipe, tmp_path / name, data_root=data_root, is_quiet=True)

    return start

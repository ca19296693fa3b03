"""A tiny transformers folder and a tiny data set, so that a run takes a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from instructrec_training.recipe import Recipe
from tests.tiny import tiny_tokenizer

MESSAGES = {
    "card lost": ["i lost my card", "my card is stolen", "card lost please help", "lost card"],
    "refund": ["i want my money back", "refund please", "get a refund", "money back"],
    "余额": ["查询余额", "我的余额", "请问余额是什么", "余额查询"],
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, 32 wide, with the tiny tokenizer."""
    folder = tmp_path_factory.mktemp("bases") / "tiny-bert"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """`intents.jsonl`: 3 labels, 24 training rows, 6 validation and 6 test rows."""
    lines: list[str] = []
    for label, texts in MESSAGES.items():
        for n in range(12):
            split = "val" if n in (3, 7) else "test" if n in (5, 11) else "train"
            text = f"{texts[n % 4]} {'please ' * (n // 4)}".strip()
            row = {"text": text, "target": label, "split": split, "id": f"{label}-{n}"}
            lines.append(json.dumps(row, ensure_ascii=False))
    root = tmp_path / "data"
    root.mkdir()
    (root / "intents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def make_recipe(tiny_base: Path) -> Callable[..., Recipe]:
    """A recipe over the tiny base and data; keyword arguments change `[training]`."""

    def make(kind: str = "instruction-encoder", pooling: str = "native", **training: Any) -> Recipe:
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "seed": 3} | training
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

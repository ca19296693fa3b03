"""Rows, recipes and transformers folders for tests of heads that find spans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertForTokenClassification,
)

from instructrec_training.recipe import Recipe
from tests.unit.export.conftest import tiny_config

TEXTS = (
    "i lost my card",
    "my card is stolen",
    "refund my card",
    "查询余额",
    "我的余额",
    "get a refund",
)
WORDS = {"card": "thing", "余额": "thing", "lost": "event", "stolen": "event", "refund": "event"}
BIOES = ("O", "B-thing", "I-thing", "E-thing", "S-thing", "S-event", "S-place")
LEARNS: dict[str, Any] = {
    "epochs": 25,
    "patience": 25,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "head_learning_rate": 5e-3,
}


def entities(text: str) -> list[dict[str, Any]]:
    """The entities of one of the texts, as a data row has them."""
    return [
        {"type": kind, "start": text.index(word), "end": text.index(word) + len(word), "text": word}
        for word, kind in WORDS.items()
        if word in text
    ]


def write_rows(folder: Path, kind: str) -> Path:
    """`rows.jsonl`: 24 training, 6 validation and 6 test rows of entities or of questions."""
    rows = []
    for number in range(36):
        text = TEXTS[number % 6]
        row = {"task": kind, "text": text, "id": str(number), "split": "val"}
        row["split"] = ("train", "train", "val", "train", "test", "train")[number // 6]
        if kind == "ner":
            row["target"] = entities(text)
        else:
            answer = entities(text)[0]
            row |= {
                "question": "what thing",
                "target": [{"text": answer["text"], "start": answer["start"]}],
            }
        rows.append(json.dumps(row, ensure_ascii=False))
    folder.mkdir()
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def recipe_of(base: Path, model_kind: str, task_kind: str, **training: Any) -> Recipe:
    """A recipe over `write_rows`; keyword arguments change `[training]`."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"kind": model_kind, "base": str(base), "dropout": 0.0},
            "data": [{"path": "rows.jsonl", "task": "t", "validation_split": "val"}],
            "tasks": {
                "t": {"kind": task_kind, "instructions": {"en": ["Find it"], "zh": ["找出"]}}
            },
            "training": LEARNS | training,
        }
    )


def write_tagger(folder: Path, base: Path, tags: Sequence[str] = BIOES) -> Path:
    """A transformers folder with a token-classification head, as a hub has them; random weights."""
    torch.manual_seed(4)
    config = BertConfig.from_pretrained(base)
    config.id2label, config.label2id = dict(enumerate(tags)), {t: i for i, t in enumerate(tags)}
    model = BertForTokenClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def write_family(folder: Path, base: Path, family: str, head: str) -> Path:
    """A transformers folder of another architecture, with a head of random weights."""
    torch.manual_seed(6)
    config = tiny_config(family, len(AutoTokenizer.from_pretrained(base)))
    if head == "AutoModelForTokenClassification":
        config.id2label, config.label2id = (
            dict(enumerate(BIOES)),
            {t: i for i, t in enumerate(BIOES)},
        )
    model = getattr(transformers, head).from_config(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5 if "embedding" in name.lower() else 0.15)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def write_answerer(folder: Path, base: Path) -> Path:
    """A transformers folder with a question-answering head and token types that matter."""
    torch.manual_seed(5)
    model = BertForQuestionAnswering(BertConfig.from_pretrained(base))
    torch.nn.init.normal_(model.qa_outputs.weight, std=1.0)
    torch.nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight, std=1.0)
    model.save_pretrained(folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    AutoTokenizer.from_pretrained(base, model_input_names=names).save_pretrained(folder)
    return folder

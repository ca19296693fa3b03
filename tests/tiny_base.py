"""A tiny transformers folder and a tiny data set, so that a training run takes a second."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tests.tiny import tiny_tokenizer

MESSAGES = {
    "card lost": ["i lost my card", "my card is stolen", "card lost please help", "lost card"],
    "refund": ["i want my money back", "refund please", "get a refund", "money back"],
    "余额": ["查询余额", "我的余额", "请问余额是什么", "余额查询"],
}


def write_tiny_base(folder: Path) -> Path:
    """A BERT of two layers, 32 wide, random weights, with the tiny tokenizer."""
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


def write_tiny_data(folder: Path) -> Path:
    """`intents.jsonl`: 3 labels, 24 training rows, 6 validation and 6 test rows."""
    lines: list[str] = []
    for label, texts in MESSAGES.items():
        for n in range(12):
            split = "val" if n in (3, 7) else "test" if n in (5, 11) else "train"
            text = f"{texts[n % 4]} {'please ' * (n // 4)}".strip()
            row = {"text": text, "target": label, "split": split, "id": f"{label}-{n}"}
            lines.append(json.dumps(row, ensure_ascii=False))
    folder.mkdir()
    (folder / "intents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder

"""Run folders with tiny random checkpoints, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from instructrec_deploy.models.checkpoint import Checkpoint, CheckpointSection, save_checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.span_reader import build_span_reader
from tests.tiny import LABELS, TASKS_TOML, tiny_tokenizer

HIDDEN = 64  # 64 x 64 weights are the fewest that are quantized
WINDOW = 48
HEAD_TASKS = f"""default_task = "intent"

[tasks.intent]
labels = {json.dumps(LABELS, ensure_ascii=False)}
[tasks.intent.instructions]
en = ["What does the customer want?"]
zh = ["客户想要什么？"]
"""
TEXTS = (
    "I lost my card",
    "ＩＤ card stolen 😊",
    "请问余额是什么",
    "my transfer failed, 转账失败了 please help",
    "get a refund",
    "bad",
)


def tiny_config(family: str, n_vocab: int, **extra: Any) -> PretrainedConfig:
    """Two layers, 64 wide."""
    common: dict[str, Any] = {"vocab_size": n_vocab, "pad_token_id": 0, **extra}
    if family == "distilbert":
        return DistilBertConfig(
            dim=HIDDEN, n_layers=2, n_heads=2, hidden_dim=128, max_position_embeddings=64, **common
        )
    kind = {"bert": BertConfig, "roberta": RobertaConfig}[family]
    return kind(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        **common,
    )


def tiny_checkpoint(
    folder: Path,
    family: str = "bert",
    *,
    labels: Sequence[str] = (),
    reader_layers: int = 0,
    joint_questions: bool = False,
) -> Checkpoint:
    """A random model; with labels a sequence classifier, else an instruction encoder."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = tiny_config(family, tokenizer.get_vocab_size())
    section = CheckpointSection(
        kind="sequence-classification" if labels else "instruction-encoder",
        base="tiny",
        hidden_size=HIDDEN,
        n_heads=2,
        max_tokens=WINDOW,
        pad_id=0,
        instruction_weight=0.1,
        use_fusion=not labels,
        reader_layers=reader_layers,
        joint_questions=joint_questions,
        labels=tuple(labels),
    )
    if labels:
        config.num_labels = len(labels)
        model: torch.nn.Module = AutoModelForSequenceClassification.from_config(config)
        _loosen(model)
        return Checkpoint(model.eval(), section, folder / "tokenizer.json")
    encoder = AutoModel.from_config(config)
    _loosen(encoder)
    reader = build_span_reader(encoder, n_layers=reader_layers) if reader_layers else None
    if reader is not None:  # a fresh reader finds nothing: let it find something in each text
        torch.nn.init.normal_(reader.tokens.weight, std=0.5)
        torch.nn.init.zeros_(reader.bias)
    model = InstructionEncoder(encoder, hidden_size=HIDDEN, n_heads=2, reader=reader)
    assert model.fusion is not None
    torch.nn.init.normal_(model.fusion.output.weight, std=0.1)
    return Checkpoint(model.eval(), section, folder / "tokenizer.json")


def write_tiny_run(
    run: Path,
    family: str = "bert",
    *,
    labels: Sequence[str] = (),
    tasks: str = "",
    label_vectors: Mapping[str, torch.Tensor] | None = None,
    texts: Sequence[str] = TEXTS,
    reader_layers: int = 0,
    joint_questions: bool = False,
) -> Path:
    """A run folder as training leaves it."""
    checkpoint = tiny_checkpoint(
        run / "made",
        family,
        labels=labels,
        reader_layers=reader_layers,
        joint_questions=joint_questions,
    )
    save_checkpoint(checkpoint, run / "checkpoint", label_vectors=label_vectors)
    (run / "tasks.toml").write_text(tasks or (HEAD_TASKS if labels else TASKS_TOML), "utf-8")
    evaluation = {
        "recipe": "tiny-recipe",
        "seed": 1,
        "rows": {"intent": {"train": 4, "test": 2}},
        "split": {"intent": "test"},
        "before": {"intent": {"n": 2, "accuracy": 0.5, "accuracy_interval": [0.0, 1.0]}},
        "after": {
            "intent": {
                "n": 2,
                "accuracy": 1.0,
                "accuracy_interval": [0.5, 1.0],
                "macro_f1": 1.0,
                "macro_f1_interval": [0.5, 1.0],
            }
        },
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation), "utf-8")
    rows = [json.dumps({"text": t, "task": "intent"}, ensure_ascii=False) for t in texts]
    (run / "samples.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    return run


@pytest.fixture(scope="session")
def encoder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an instruction encoder, fusion and learned label vectors."""
    torch.manual_seed(2)
    learned = {"intent": torch.randn(len(LABELS), HIDDEN) * 0.1}
    return write_tiny_run(tmp_path_factory.mktemp("runs") / "encoder", label_vectors=learned)


@pytest.fixture(scope="session")
def head_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a sequence classifier."""
    return write_tiny_run(tmp_path_factory.mktemp("runs") / "head", labels=LABELS)


@pytest.fixture
def run_maker(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder of the test's own."""

    def make(family: str = "bert", **options: Any) -> Path:
        return write_tiny_run(tmp_path / "run", family, **options)

    return make


def _loosen(model: torch.nn.Module) -> None:
    """Larger weights than a fresh model's: its answers must differ from text to text."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "embedding" not in name.lower():
            torch.nn.init.normal_(weight, std=0.15)
        elif weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5)

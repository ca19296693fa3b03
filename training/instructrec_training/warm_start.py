"""Starting from an instruction encoder that another run tuned, new heads and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.models.checkpoint import SECTION_FILE, Checkpoint, load_checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.span_reader import build_span_reader
from instructrec_training.recipe import ModelPart


def is_checkpoint(base: str) -> bool:
    """Whether a recipe's `base` is the `checkpoint` folder of a run."""
    return (Path(base).expanduser() / SECTION_FILE).is_file()


def start_from(part: ModelPart, *, finds_spans: bool) -> Checkpoint:
    """The tuned model with what the new recipe needs of it.

    Encoder, fusion, scale and span reader go on from where they were; vectors of the old tasks'
    labels stay behind. A model that is to find no spans loses its reader; one that is to find them
    and has none gets a fresh one.

    Raises:
        ConfigError: the folder holds another kind of model.
        BundleError: it is damaged.
    """
    found = load_checkpoint(Path(part.base).expanduser())
    model, section = found.model, found.section
    if not isinstance(model, InstructionEncoder) or part.kind != section.kind:
        raise ConfigError(
            f"model.base holds a {section.kind}, and model.kind is {part.kind!r}",
            hint="name the checkpoint of an instruction encoder, or a folder of transformers",
        )
    if not finds_spans:
        model.reader = None
    elif model.reader is None:
        model.reader = build_span_reader(model.encoder, n_layers=part.reader_layers)
    if not part.use_fusion:
        model.fusion = None
    model.fused_kinds = frozenset(part.fused_kinds)
    _set_dropout(model, part.dropout)
    changes = {
        "max_tokens": min(part.max_tokens or section.max_tokens, _places(model)),
        "use_fusion": model.fusion is not None,
        "fused_kinds": part.fused_kinds,
        "reader_layers": model.reader.n_layers if model.reader is not None else 0,
        "joint_questions": finds_spans and part.joint_questions,
    }
    return Checkpoint(model, section.model_copy(update=changes), found.tokenizer_path)


def _places(model: InstructionEncoder) -> int:
    encoder: Any = model.encoder
    return int(encoder.config.max_position_embeddings)


def _set_dropout(model: nn.Module, share: float | None) -> None:
    for module in model.modules():
        if share is not None and isinstance(module, nn.Dropout):
            module.p = share

"""Load, build and save checkpoints: the torch side of every model kind.

A checkpoint folder holds `instructrec.json` (facts below), `tokenizer.json`, `encoder/` (a
transformers folder: the whole model where it has a head of transformers, else the bare encoder of
a model that we put together), `own.safetensors` (the weights beside that encoder: fusion and scale,
or a classifier) and, for an instruction encoder, `labels.safetensors` (a learned vector for each
label of each tuned task).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from instructrec_deploy.core.errors import BundleError, ConfigError, FileMissing
from instructrec_deploy.core.manifest import ModelKind, Strict, describe_faults
from instructrec_deploy.core.tags import TagScheme, fresh_tags
from instructrec_deploy.core.task import SCORED_KINDS, TaskKind
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.loading import (
    LOADERS,
    TOKENIZER_FILE,
    load_tokenizer,
    load_transformers,
    loading,
    quiet_transformers,
)
from instructrec_deploy.models.pair_classifier import PairClassifier
from instructrec_deploy.models.pooled_classifier import PooledClassifier
from instructrec_deploy.models.presets import preset_of, resolve_model
from instructrec_deploy.models.question_reader import QuestionReader
from instructrec_deploy.models.span_reader import build_span_reader
from instructrec_deploy.text.tokenizer import TextTokenizer

SECTION_FILE = "instructrec.json"
ENCODER_FOLDER = "encoder"
OWN_FILE = "own.safetensors"
LABELS_FILE = "labels.safetensors"
DEFAULT_MAX_TOKENS = 256
OURS = (InstructionEncoder, PooledClassifier)  # models put together here around an encoder


# native: the classification head that transformers gives the architecture; mean: mean pooling and
# a linear layer, as sentence encoders were trained to be read
Pooling = Literal["native", "mean"]


class CheckpointSection(Strict):
    """`instructrec.json`: what export and serving must know about the weights."""

    kind: ModelKind
    base: str
    hidden_size: int
    n_heads: int
    kept_heads: int = 0  # of each layer's attention, where some were pruned; 0: all
    max_tokens: int
    pad_id: int
    text_prefix: str = ""
    instruction_weight: float = 1.0
    use_fusion: bool = False
    fused_kinds: tuple[TaskKind, ...] = SCORED_KINDS  # of tasks whose score the fusion is part of
    reader_layers: int = 0  # joint layers of the span reader; 0: the model finds no spans
    joint_questions: bool = False  # a question is read with the text, from the first layer on
    labels: tuple[str, ...] = ()  # of a head, in logit order: labels, or the tags of tokens
    separator_id: int = -1  # parts the token types of two texts; -1: it has, or is told, none
    pooling: Pooling = "native"  # of a sequence-classification checkpoint


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in memory with the facts and the tokenizer that belong to it."""

    model: nn.Module
    section: CheckpointSection
    tokenizer_path: Path
    label_vectors: Mapping[str, Tensor] = field(default_factory=dict)  # task -> [L, H]

    @property
    def n_parameters(self) -> int:
        """How many weights the model has; of a graph that was imported, by its own count."""
        if counted := getattr(self.model, "n_weights", 0):
            return int(counted)
        return sum(p.numel() for p in self.model.parameters())

    def open_tokenizer(self) -> TextTokenizer:
        """Its tokenizer, reading as the model wants it.

        Raises:
            BundleError: the file is missing or unreadable.
        """
        section = self.section
        return TextTokenizer(
            self.tokenizer_path,
            max_tokens=section.max_tokens,
            prefix=section.text_prefix,
            question_first=section.kind == "question-answering",
        )


def build_checkpoint(
    base: str,
    *,
    kind: ModelKind,
    work: Path,
    labels: Sequence[str] = (),
    max_tokens: int = 0,
    pooling: Pooling = "native",
    use_fusion: bool = True,
    fused_kinds: Sequence[TaskKind] = SCORED_KINDS,
    reader_layers: int = 0,
    joint_questions: bool = False,
    dropout: float | None = None,
    text_prefix: str | None = None,
    instruction_weight: float | None = None,
    has_own_pairs: bool = False,
) -> Checkpoint:
    """Make an untuned checkpoint from a preset name, a transformers folder or a hub id.

    Args:
        base: preset, folder or hub id.
        kind: which of the model kinds.
        work: a folder to write `tokenizer.json` into.
        labels: of a sequence-classification head, in logit order; or the types of a
            token-classification head. Where the base has a head for all of them, it is kept.
        max_tokens: window; 0 takes the preset's.
        pooling: sequence-classification only.
        use_fusion, fused_kinds, reader_layers, joint_questions: instruction encoder only; a
            question-answering model reads every question with the text.
        dropout: replaces the base's own; None keeps it.
        text_prefix, instruction_weight: replace the preset's; None keeps them.
        has_own_pairs: a sequence classifier was tuned elsewhere: tell it by token types, as there,
            which of two texts is which.

    Raises:
        ConfigError: the base cannot be loaded or is no encoder.
    """
    preset = preset_of(base)
    source = str(resolve_model(base, say=_say))
    if kind == "token-classification":
        labels = _tags_for(source, labels)
    head = _native_head(kind, pooling)
    encoder = load_transformers(source, labels, head=head, dropout=dropout)
    config = encoder.config
    if head == "AutoModel" and getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{base} is no encoder: its decoder writes text",
            hint="tune an encoder (`instructrec models list`); a model that writes is exported as "
            "it is: `instructrec export hf:FOLDER`",
        )
    tokenizer, tokenizer_path = load_tokenizer(source, work)
    section = CheckpointSection(
        kind=kind,
        base=base,
        hidden_size=config.hidden_size,
        n_heads=config.num_attention_heads,
        max_tokens=_window(base, config, max_tokens),
        pad_id=int(tokenizer.pad_token_id or 0),
        text_prefix=_first(text_prefix, preset.text_prefix if preset else None, ""),
        instruction_weight=_first(
            instruction_weight, preset.instruction_weight if preset else None, 1.0
        ),
        use_fusion=use_fusion and kind == "instruction-encoder",
        fused_kinds=tuple(fused_kinds),
        reader_layers=reader_layers if kind == "instruction-encoder" else 0,
        joint_questions=kind == "question-answering"
        or (joint_questions and kind == "instruction-encoder"),
        labels=tuple(labels),
        separator_id=_separator_id(config, tokenizer)
        if kind == "question-answering" or has_own_pairs
        else -1,
        pooling=pooling,
    )
    return Checkpoint(_wrap(encoder, section), section, tokenizer_path)


def read_base_tokenizer(
    base: str,
    *,
    work: Path,
    kind: ModelKind,
    max_tokens: int = 0,
    text_prefix: str | None = None,
) -> TextTokenizer:
    """The tokenizer of `build_checkpoint(base, ...)`, for what must be read before its weights.

    Raises:
        ConfigError: the base cannot be loaded.
    """
    from transformers import AutoConfig

    preset = preset_of(base)
    source = str(resolve_model(base, say=_say))
    with loading(source):
        config = AutoConfig.from_pretrained(source)
    _, path = load_tokenizer(source, work)
    prefix = _first(text_prefix, preset.text_prefix if preset else None, "")
    return TextTokenizer(
        path,
        max_tokens=_window(base, config, max_tokens),
        prefix=prefix,
        question_first=kind == "question-answering",
    )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint folder written by `save_checkpoint`, in evaluation mode.

    Raises:
        FileMissing: no such checkpoint.
        BundleError: it is damaged.
    """
    path = folder / SECTION_FILE
    if not path.is_file():
        raise FileMissing(
            f"{folder} is no checkpoint (no {SECTION_FILE})",
            hint="name the `checkpoint` folder of a run of `instructrec train`",
        )
    try:
        section = CheckpointSection.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise BundleError(f"{path}: {describe_faults(error)}", hint="train it again") from error
    except ValueError as error:
        raise BundleError(f"{path}: not valid JSON", hint="train it again") from error
    head = _native_head(section.kind, section.pooling)
    encoder = load_transformers(
        str(folder / ENCODER_FOLDER), section.labels, head=head, kept_heads=section.kept_heads
    )
    model = _wrap(encoder, section)
    vectors: Mapping[str, Tensor] = {}
    if isinstance(model, OURS):
        _load_own(model, folder / OWN_FILE)
    if (folder / LABELS_FILE).is_file():
        vectors = load_file(folder / LABELS_FILE)
    return Checkpoint(model.eval(), section, folder / TOKENIZER_FILE, vectors)


def save_checkpoint(
    checkpoint: Checkpoint, folder: Path, *, label_vectors: Mapping[str, Tensor] | None = None
) -> None:
    """Write a checkpoint folder; `load_checkpoint` reads it back.

    Args:
        checkpoint: what to write.
        folder: where to.
        label_vectors: per task [L, H], added to the vectors of the task's own labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = checkpoint.model
    inner = transformers_part(model)
    with quiet_transformers():
        inner.save_pretrained(folder / ENCODER_FOLDER)
    if isinstance(model, OURS):
        own = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.")}
        save_file({k: v.detach().cpu().contiguous() for k, v in own.items()}, folder / OWN_FILE)
    if label_vectors:
        vectors = {k: v.contiguous() for k, v in label_vectors.items()}
        save_file(vectors, folder / LABELS_FILE)
    target = folder / TOKENIZER_FILE
    if checkpoint.tokenizer_path.resolve() != target.resolve():
        target.write_bytes(checkpoint.tokenizer_path.read_bytes())
    (folder / SECTION_FILE).write_text(
        checkpoint.section.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )


def transformers_part(model: Any) -> Any:
    """The part of a model that transformers made: with its own head where it has one."""
    wraps = (*OURS, QuestionReader, PairClassifier)
    return model.encoder if isinstance(model, wraps) else model


def _native_head(kind: ModelKind, pooling: Pooling) -> str:
    """The loader of transformers for the encoder with its head; without one, of the encoder."""
    if kind == "sequence-classification" and pooling == "mean":
        return "AutoModel"
    return LOADERS[kind]


def _tags_for(source: str, types: Sequence[str]) -> tuple[str, ...]:
    """The tags of the base's own head where it finds all types, else of a fresh one."""
    from transformers import AutoConfig

    with loading(source):
        config = AutoConfig.from_pretrained(source)
    own = tuple(config.id2label[i] for i in sorted(config.id2label))
    has_head = any("TokenClassification" in name for name in config.architectures or ())
    if has_head and set(types) <= set(TagScheme.of(own).types):
        return own
    return fresh_tags(types)


def _separator_id(config: Any, tokenizer: Any) -> int:
    """What parts the token types of a pair; -1 where the model has one type, or is told none."""
    is_told = "token_type_ids" in tokenizer.model_input_names
    if not is_told or getattr(config, "type_vocab_size", 0) < 2:
        return -1
    return int(tokenizer.sep_token_id)


def _wrap(encoder: Any, section: CheckpointSection) -> nn.Module:
    if section.kind == "sequence-classification":
        model: nn.Module = encoder
        if section.separator_id >= 0:
            model = PairClassifier(encoder, separator_id=section.separator_id)
        if section.pooling == "mean":
            model = PooledClassifier(
                encoder, hidden_size=section.hidden_size, n_labels=len(section.labels)
            )
        return model
    if section.kind == "token-classification":
        return encoder  # type: ignore[no-any-return]
    if section.kind == "question-answering":
        return QuestionReader(encoder, separator_id=section.separator_id)
    n_layers = section.reader_layers
    return InstructionEncoder(
        encoder,
        hidden_size=section.hidden_size,
        n_heads=section.n_heads,
        use_fusion=section.use_fusion,
        fused_kinds=section.fused_kinds,
        reader=build_span_reader(encoder, n_layers=n_layers) if n_layers else None,
    )


def _load_own(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing", hint="train it again")
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    left = [name for name in missing if not name.startswith("encoder.")]
    if left or unexpected:
        raise BundleError(f"{path}: its weights do not fit the model", hint="train it again")


def _window(base: str, config: Any, max_tokens: int) -> int:
    """Tokens that are read of a text: as many as asked for, the preset's, or all there are."""
    window = int(getattr(config, "max_position_embeddings", DEFAULT_MAX_TOKENS))
    if config.model_type in {"roberta", "xlm-roberta", "camembert"}:
        window -= 2  # their positions start behind the padding index
    preset = preset_of(base)
    return min(max_tokens or (preset.max_tokens if preset else DEFAULT_MAX_TOKENS), window)


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)

"""Low-rank adapters by peft, merged into the weights before a checkpoint is saved."""

from __future__ import annotations

from typing import Any

from torch import nn

from instructrec_deploy.core.errors import ConfigError, MissingExtra
from instructrec_training.recipe import TrainingPart

# what the families call the projections of attention; those that a model has are taken
ATTENTION = (
    *("query", "key", "value"),  # BERT, RoBERTa, XLM-R, ELECTRA
    *("q_lin", "k_lin", "v_lin"),  # DistilBERT
    *("query_proj", "key_proj", "value_proj", "in_proj"),  # DeBERTa
    *("q_proj", "k_proj", "v_proj"),  # decoder-like encoders
    "Wqkv",  # ModernBERT
)
ADAPTER_MARK = ".lora_"  # stands in the name of each adapter weight


class Adapters:
    """Adapters in an encoder; its own weights stay frozen while they are there.

    Source: arXiv:2106.09685 (LoRA).
    """

    def __init__(self, peft_model: Any) -> None:
        self._model = peft_model

    def merge(self) -> None:
        """Add the adapters to the weights and take them out: the encoder is a plain one again."""
        self._model.merge_and_unload()


def add_adapters(encoder: nn.Module, settings: TrainingPart) -> Adapters:
    """Put adapters into an encoder, in place.

    Raises:
        MissingExtra: peft is not installed.
        ConfigError: the model has no module of the names in `lora_targets`.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra(
            "training.lora_rank needs peft", hint="pip install 'instructrec-deploy[lora]'"
        ) from error
    names = {name.rpartition(".")[2] for name, m in encoder.named_modules() if _is_linear(m)}
    targets = sorted(names & set(settings.lora_targets or ATTENTION))
    unknown = sorted(set(settings.lora_targets) - names)
    if unknown or not targets:
        raise ConfigError(
            f"training.lora_targets: the model has no linear layer {', '.join(unknown) or '(any)'}",
            hint=f"its linear layers: {', '.join(sorted(names))}",
        )
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
    )
    return Adapters(get_peft_model(encoder, config))


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)

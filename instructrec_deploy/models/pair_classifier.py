"""Token types by the ids alone, and a sequence classifier that reads pairs by them.

BERT and its kin were told by token types which of two texts is which. They follow from the ids:
all behind the first separator is the second text. So a graph needs no third input.

Shapes: B rows, T tokens, L labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput


def token_types(input_ids: Tensor, attention_mask: Tensor, separator_id: int) -> Tensor:
    """[B, T] int64 ids and mask -> [B, T] int64: 1 behind the first separator, 0 else."""
    is_separator = (input_ids == separator_id).long()
    n_before = torch.cumsum(is_separator, dim=1) - is_separator
    return n_before.clamp(max=1) * attention_mask


class PairReader(nn.Module):
    """A Hugging Face model with its head that is told which text is which.

    Args:
        encoder: of one of the `AutoModelFor...`.
        separator_id: what stands between two texts; -1: the model has no token types.
    """

    def __init__(self, encoder: Any, *, separator_id: int = -1) -> None:
        super().__init__()
        self.encoder = encoder
        self.separator_id = separator_id

    @property
    def base_model(self) -> Any:
        """The pretrained part."""
        return self.encoder.base_model

    def set_attn_implementation(self, name: str) -> None:
        """Pass on to the encoder which attention it computes with."""
        self.encoder.set_attn_implementation(name)

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """[B, T] int64 ids and mask -> what the model puts out."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.separator_id >= 0:
            given["token_type_ids"] = token_types(input_ids, attention_mask, self.separator_id)
        return self.encoder(**given)


class PairClassifier(PairReader):
    """A sequence classifier; `encoder` is of `AutoModelForSequenceClassification`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """[B, T] int64 ids and mask -> logits [B, L]."""
        return SequenceClassifierOutput(logits=self.read(input_ids, attention_mask).logits)

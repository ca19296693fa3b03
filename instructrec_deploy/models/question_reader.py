"""A Hugging Face question-answering model that reads question and passage by their ids alone.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import TokenClassifierOutput

from instructrec_deploy.models.pair_classifier import token_types


class QuestionReader(nn.Module):
    """Encoder and head -> logits of each token to be the answer's first and its last.

    Which text is which follows from the ids: see `token_types`.

    Args:
        encoder: of `AutoModelForQuestionAnswering`.
        separator_id: what stands between question and passage; -1: the model has no token types.
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

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        """[B, T] int64 ids and mask -> logits [B, T, 2]."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.separator_id >= 0:
            given["token_type_ids"] = token_types(input_ids, attention_mask, self.separator_id)
        found = self.encoder(**given)
        return TokenClassifierOutput(
            logits=torch.stack([found.start_logits, found.end_logits], dim=-1)
        )

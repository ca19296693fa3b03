"""Mean pooling and a linear head on any encoder: the textbook classifier for sentence encoders.

transformers' own BERT head reads the [CLS] state through a pooler; sentence encoders such as
MiniLM and e5 were trained to carry a text's meaning in the mean of their token states.

Shapes: B texts, T tokens, H hidden size, L labels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

DROPOUT = 0.1


class PooledClassifier(nn.Module):
    """Encoder -> mean of the token states -> dropout -> linear.

    It answers as a transformers sequence-classification model does: an output whose first and
    only field is `logits` [B, L].
    """

    def __init__(self, encoder: Any, *, hidden_size: int, n_labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(hidden_size, n_labels)

    @property
    def base_model(self) -> Any:
        """The pretrained part."""
        return self.encoder

    def set_attn_implementation(self, name: str) -> None:
        """Pass on to the encoder which attention it computes with."""
        self.encoder.set_attn_implementation(name)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """[B, T] int64 ids and mask -> logits [B, L]."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * weights).sum(1) / weights.sum(1)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))

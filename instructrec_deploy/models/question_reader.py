"""A Hugging Face question-answering model that reads question and passage by their ids alone.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.modeling_outputs import TokenClassifierOutput

from instructrec_deploy.models.pair_classifier import PairReader


class QuestionReader(PairReader):
    """Encoder and head -> logits of each token to be the answer's first and its last.

    `encoder` is of `AutoModelForQuestionAnswering`; question and passage are the two texts.
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TokenClassifierOutput:
        """[B, T] int64 ids and mask -> logits [B, T, 2]."""
        found = self.read(input_ids, attention_mask)
        return TokenClassifierOutput(
            logits=torch.stack([found.start_logits, found.end_logits], dim=-1)
        )

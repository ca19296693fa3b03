"""The instruction encoder: one text tower, cached candidates, a light fusion that starts at zero.

Shapes: B texts, T tokens, C candidates, H hidden size, N heads, D = H / N.

The same transformer reads texts and candidates. A text is read without any instruction; a
candidate is read as `instruction: candidate` and pooled to one vector, which is cached. The score
is `scale * cosine + fusion`, or the cosine alone for kinds of tasks that want no fusion: labels
that were never seen are better off without it (docs/training.md). The fusion is one
cross-attention from each candidate to the text's token states whose output weights start at zero,
so an untuned model is the pretrained bi-encoder.

Everything that depends on the candidate alone (its attention query and the vector its attended
values are compared with) is computed once per candidate by `prepare`; per text there remain one
key and one value projection of its tokens and two products of size [C, T].
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from instructrec_deploy.core.task import SCORED_KINDS, TaskKind
from instructrec_deploy.models.span_reader import Attention, SpanReader

INITIAL_SCALE = 20.0  # 1 / 0.05: the usual temperature of cosine softmax losses


class LateFusion(nn.Module):
    """Cross-attention from candidates to token states, reduced to one number per candidate.

    score[b, c] = sum over heads n and tokens t of
        softmax_t(q[c, n] . k[b, t, n] / sqrt(D)) * (u[c, n] . v[b, t, n])
    which equals attending, projecting the result by a candidate-dependent vector and summing; but
    needs no [B, C, H] tensor. `u` comes from a projection that starts at zero.
    """

    def __init__(self, hidden_size: int, n_heads: int) -> None:
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden size {hidden_size} is no multiple of {n_heads} heads")
        self.n_heads = n_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def prepare(self, candidate_vectors: Tensor) -> tuple[Tensor, Tensor]:
        """[C, H] -> queries [C, H], values [C, H]: all that depends on the candidates alone."""
        return self.query(candidate_vectors), self.output(candidate_vectors)

    def forward(
        self, token_states: Tensor, mask: Tensor, queries: Tensor, values: Tensor
    ) -> Tensor:
        """[B, T, H], [B, T], [C, H], [C, H] -> [B, C]."""
        batch, n_tokens, hidden = token_states.shape
        heads, depth = self.n_heads, hidden // self.n_heads
        key = self.key(token_states).view(batch, n_tokens, heads, depth).permute(0, 2, 3, 1)
        value = self.value(token_states).view(batch, n_tokens, heads, depth).permute(0, 2, 3, 1)
        query = queries.view(-1, heads, depth).transpose(0, 1)  # [N, C, D]
        wanted = values.view(-1, heads, depth).transpose(0, 1)
        attention = torch.matmul(query, key) / math.sqrt(depth)  # [B, N, C, T]
        bias = (1.0 - mask[:, None, None, :].to(attention.dtype)) * -1e4
        weights = torch.softmax(attention + bias, dim=-1)
        return (weights * torch.matmul(wanted, value)).sum(dim=(1, 3))


class InstructionEncoder(nn.Module):
    """A pretrained encoder with mean pooling, cosine scores and a late fusion.

    Args:
        encoder: a transformers encoder (BERT-like) whose first output is the token states.
        hidden_size: H.
        n_heads: heads of the fusion.
        use_fusion: leave it out for a plain bi-encoder.
        fused_kinds: kinds of tasks whose score the fusion takes part in; the score of others is
            the cosine alone.
        reader: finds spans; None for a model that does not extract.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden_size: int,
        n_heads: int,
        use_fusion: bool = True,
        fused_kinds: Collection[TaskKind] = SCORED_KINDS,
        reader: SpanReader | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden_size = hidden_size
        self.fusion = LateFusion(hidden_size, n_heads) if use_fusion else None
        self.fused_kinds = frozenset(fused_kinds)
        self.reader = reader
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    def set_attn_implementation(self, name: Attention) -> None:
        """Pass on to the encoder, and the reader, which attention they compute with."""
        encoder: Any = self.encoder
        encoder.set_attn_implementation(name)
        if self.reader is not None:
            self.reader.set_attn_implementation(name)

    def encode(
        self, input_ids: Tensor, mask: Tensor, pool_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read token ids.

        Args:
            input_ids: [B, T] int64.
            mask: [B, T] int64, 1 where a token stands.
            pool_weights: [B, T] float, weight of each token in the mean; `mask` where None.

        Returns:
            token states [B, T, H] and pooled, L2-normalized vectors [B, H].
        """
        states = self.encoder(input_ids=input_ids, attention_mask=mask)[0]
        return states, pool(states, mask if pool_weights is None else pool_weights)

    def encode_levels(
        self, input_ids: Tensor, mask: Tensor, pool_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `encode`, and the states [B, T, H] that the span reader starts from."""
        if self.reader is None:
            raise ValueError("the model has no span reader")
        read = self.encoder(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
        states, levels = read.last_hidden_state, read.hidden_states
        pooled = pool(states, mask if pool_weights is None else pool_weights)
        return states, pooled, levels[-1 - self.reader.n_layers]

    def lower_states(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """The states of `encode_levels` alone: without the layers above, which they do not need."""
        if self.reader is None:
            raise ValueError("the model has no span reader")
        stack = getattr(self.encoder, "encoder", None)
        layers = getattr(stack, "layer", None)
        if stack is None or not isinstance(layers, nn.ModuleList):  # another build than BERT's
            return self.encode_levels(input_ids, mask)[2]
        stack.layer = layers[: len(layers) - self.reader.n_layers]
        try:
            states: Tensor = self.encoder(input_ids=input_ids, attention_mask=mask)[0]
        finally:
            stack.layer = layers
        return states

    def score(
        self,
        token_states: Tensor,
        mask: Tensor,
        pooled: Tensor,
        candidate_vectors: Tensor,
        *,
        kind: TaskKind = TaskKind.CLASSIFICATION,
    ) -> Tensor:
        """Logits [B, C] of every candidate for every text, of a task of that kind."""
        scores = self.log_scale.exp() * pooled @ candidate_vectors.T
        if self.fusion is not None and kind in self.fused_kinds:
            queries, values = self.fusion.prepare(candidate_vectors)
            scores = scores + self.fusion(token_states, mask, queries, values)
        return scores


def pool(states: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of token states [B, T, H] by weights [B, T], L2-normalized: [B, H]."""
    spread = weights.unsqueeze(-1).to(states.dtype)
    return functional.normalize((states * spread).sum(1) / spread.sum(1), dim=-1)

"""The span reader: the upper layers once more, this time over a text together with what is sought.

Shapes: B texts, T tokens, M memories (1 for all texts or B), K tokens of a memory, C candidates,
H hidden size, D size of a score's space.

A text is read by the encoder without any instruction. For spans, its states below the top layers
pass through the reader's own copies of those layers, whose attention sees the text's tokens and
the *memory*: the states, at the same height, of the candidates' own words (entity types, or a
question). A memory does not change, so it is cached. Each token is then scored against each
candidate's vector three times: as the first token of a span, as its last, and as one inside.

Source: lower layers apart, upper layers together is DeFormer (arXiv:2005.00697); first, last and
inside scores against type vectors are GLiNER's token classification (arXiv:2311.08526).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

N_MARKS = 3  # first token, last token, inside: the last axis of the scores, see tasks/extract.py

FIRST_BIAS = -3.0  # few tokens begin a span: start from about 5 %

Pair = tuple[Tensor, Tensor]  # of the text, of the memory
Attention = Literal["eager", "sdpa"]  # in plain steps, or fused; transformers' words


class JointLayer(nn.Module):
    """A transformer layer whose attention sees the text's tokens and a memory."""

    def __init__(self, hidden_size: int, n_heads: int, inner_size: int, norm_eps: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention: Attention = "sdpa"
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.inner = nn.Linear(hidden_size, inner_size)
        self.outer = nn.Linear(inner_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, norm_eps)
        self.dropout = nn.Dropout(0.1)

    def forward(self, states: Tensor, bias: Tensor, memory: Tensor, memory_bias: Tensor) -> Tensor:
        """[B, T, H], [B, 1, 1, T], [M, K, H], [M, 1, 1, K] -> [B, T, H]."""
        query = self._heads(self.query(states))  # [B, N, T, H/N]
        text_key, text_value = self._heads(self.key(states)), self._heads(self.value(states))
        far_key, far_value = self._heads(self.key(memory)), self._heads(self.value(memory))
        attend = _attend if self.attention == "eager" else _attend_fused
        mixed = attend(query, (text_key, far_key), (text_value, far_value), (bias, memory_bias))
        flat = mixed.permute(0, 2, 1, 3).flatten(2)
        states = self.attention_norm(states + self.dropout(self.output(flat)))
        grown = self.outer(functional.gelu(self.inner(states)))
        normed: Tensor = self.norm(states + self.dropout(grown))
        return normed

    def _heads(self, flat: Tensor) -> Tensor:
        """[X, T, H] -> [X, N, T, H/N]."""
        size = flat.shape[-1] // self.n_heads
        return flat.view(flat.shape[0], flat.shape[1], self.n_heads, size).permute(0, 2, 1, 3)


def _attend_fused(query: Tensor, keys: Pair, values: Pair, biases: Pair) -> Tensor:
    """As `_attend`, the weights never in memory: what training and evaluation compute with."""
    n_rows, _, n_tokens, _ = query.shape
    key, value = (
        torch.cat([near, far.expand(n_rows, -1, -1, -1)], dim=2) for near, far in (keys, values)
    )
    bias = torch.cat([bias.expand(n_rows, -1, n_tokens, -1) for bias in biases], dim=-1)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _attend(query: Tensor, keys: Pair, values: Pair, biases: Pair) -> Tensor:
    """[B, N, T, D] over text and memory -> [B, N, T, D], in steps that a graph can hold.

    A memory of one row is multiplied with all texts as it is, never copied for each.
    """
    scale = 1.0 / math.sqrt(query.shape[-1])
    near, far = (
        torch.matmul(query, key.transpose(2, 3)) * scale + bias
        for key, bias in zip(keys, biases, strict=True)
    )
    weights = torch.softmax(torch.cat([near, far], dim=-1), dim=-1)
    n_tokens = query.shape[2]
    mixed = torch.matmul(weights[..., :n_tokens], values[0])
    return mixed + torch.matmul(weights[..., n_tokens:], values[1])


class SpanReader(nn.Module):
    """Joint layers and the three scores.

    Args:
        hidden_size: H.
        n_heads: of each layer's attention.
        n_layers: how many layers are joint; the reader starts from the states below as many
            layers of the encoder.
        inner_size: of the feed-forward part.
        norm_eps: of the layer norms.
    """

    def __init__(
        self, hidden_size: int, *, n_heads: int, n_layers: int, inner_size: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.n_layers = n_layers
        self.score_size = hidden_size // N_MARKS
        self.memory_mark = nn.Parameter(torch.zeros(hidden_size))
        self.layers = nn.ModuleList(
            JointLayer(hidden_size, n_heads, inner_size, norm_eps) for _ in range(n_layers)
        )
        self.tokens = nn.Linear(hidden_size, N_MARKS * self.score_size)
        self.candidates = nn.Linear(hidden_size, N_MARKS * self.score_size)
        self.bias = nn.Parameter(torch.full((N_MARKS,), FIRST_BIAS))

    def set_attn_implementation(self, name: Attention) -> None:
        """How the layers attend: "eager" in plain steps, which a graph can hold, else fused."""
        for layer in self.layers:
            assert isinstance(layer, JointLayer)
            layer.attention = name

    def forward(
        self,
        lower_states: Tensor,
        mask: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        candidate_vectors: Tensor,
    ) -> Tensor:
        """Score every token for every candidate.

        Args:
            lower_states: [B, T, H] from below the encoder's top layers.
            mask: [B, T] int64.
            memory: [M, K, H]; M is 1 or B.
            memory_mask: [M, K] int64.
            candidate_vectors: [M, C, H], L2-normalized.

        Returns:
            [B, T, C, 3] logits: first token, last token, inside.
        """
        bias = _mask_bias(mask, lower_states)
        memory_bias = _mask_bias(memory_mask, lower_states)
        states, marked = lower_states, memory + self.memory_mark
        for layer in self.layers:
            states = layer(states, bias, marked, memory_bias)
        hidden = candidate_vectors.shape[-1]
        tokens = self.tokens(states).unflatten(-1, (N_MARKS, self.score_size))
        wanted = self.candidates(candidate_vectors * math.sqrt(hidden))
        wanted = wanted.unflatten(-1, (N_MARKS, self.score_size))
        # [B, 3, T, D] @ [M, 3, D, C] -> [B, 3, T, C]
        scores = torch.matmul(tokens.permute(0, 2, 1, 3), wanted.permute(0, 2, 3, 1))
        scaled = scores.permute(0, 2, 3, 1) / math.sqrt(self.score_size)
        return scaled + self.bias


def build_span_reader(encoder: Any, *, n_layers: int) -> SpanReader:
    """A reader for a transformers encoder, its layers copied from the encoder's top ones.

    An encoder of another build than BERT's (BERT, RoBERTa, ELECTRA, XLM-R share one) gets layers
    with random weights, which need more data.
    """
    config = encoder.config
    reader = SpanReader(
        config.hidden_size,
        n_heads=config.num_attention_heads,
        n_layers=n_layers,
        inner_size=getattr(config, "intermediate_size", 4 * config.hidden_size),
        norm_eps=float(getattr(config, "layer_norm_eps", 1e-12)),
    )
    top = getattr(getattr(encoder, "encoder", None), "layer", None)
    if top is not None:
        for joint, layer in zip(reader.layers, list(top)[-n_layers:], strict=True):
            _copy_layer(layer, joint)
    return reader


def _copy_layer(layer: Any, joint: Any) -> None:
    """Weights of a BERT layer into a joint one; nothing where it is built otherwise, or pruned."""
    try:
        if layer.attention.self.query.out_features != joint.query.out_features:
            return
        pairs = [
            (layer.attention.self.query, joint.query),
            (layer.attention.self.key, joint.key),
            (layer.attention.self.value, joint.value),
            (layer.attention.output.dense, joint.output),
            (layer.attention.output.LayerNorm, joint.attention_norm),
            (layer.intermediate.dense, joint.inner),
            (layer.output.dense, joint.outer),
            (layer.output.LayerNorm, joint.norm),
        ]
    except AttributeError:
        return
    for source, target in pairs:
        target.load_state_dict(source.state_dict())


def _mask_bias(mask: Tensor, like: Tensor) -> Tensor:
    """[X, T] -> [X, 1, 1, T]: 0 where a token stands, far below elsewhere."""
    return (1.0 - mask[:, None, None, :].to(like.dtype)) * -1e4

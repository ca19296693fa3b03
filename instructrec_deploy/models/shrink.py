"""Take layers, attention heads and feed-forward neurons out of a transformers encoder.

Shapes: L layers, N heads, D size of a head, F feed-forward width, H hidden size.

A configuration of transformers holds one width for all layers, so every layer keeps as many. Fewer
layers and neurons are what `config.json` can say; fewer heads of the same size it cannot, so
`instructrec.json` says it (`kept_heads`) and `shrink_heads` makes room for the weights at load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.models.span_reader import SpanReader

FEED_FORWARD_KEYS = ("intermediate_size", "hidden_dim")  # what the families call F


@dataclass(frozen=True, slots=True)
class LayerParts:
    """The linear layers of one layer, and where they hang: (module, attribute)."""

    inputs: tuple[tuple[Any, str], ...]  # query, key, value: [H, N * D]; (): heads cannot be cut
    output: tuple[Any, str]  # of the attention: [N * D, H]
    inner: tuple[Any, str]  # [H, F]
    outer: tuple[Any, str]  # [F, H]
    attention_norm: tuple[Any, str]  # reads the sum of the attention's output and its input
    norm: tuple[Any, str]  # reads that of the feed-forward part
    n_heads: int


def layers_of(base: Any) -> nn.ModuleList:
    """The layers of an encoder, lowest first.

    Args:
        base: a bare encoder of transformers (`model.base_model`).

    Raises:
        ConfigError: it is built otherwise than BERT and its kin.
    """
    for stem in ("encoder", "transformer"):
        found = getattr(getattr(base, stem, None), "layer", None)
        if isinstance(found, nn.ModuleList):
            return found
    raise _unknown(base)


def parts_of(base: Any) -> list[LayerParts]:
    """The linear layers of each layer.

    Raises:
        ConfigError: as `layers_of`.
    """
    try:
        return [_parts(layer) for layer in layers_of(base)]
    except AttributeError as error:
        raise _unknown(base) from error


def linear(place: tuple[Any, str]) -> nn.Linear:
    """The linear layer that hangs at a place."""
    found: nn.Linear = getattr(*place)
    return found


def keep_layers(base: Any, numbers: Sequence[int]) -> None:
    """Leave the layers of these numbers, in their order."""
    layers = layers_of(base)
    _holder(base).layer = nn.ModuleList(layers[number] for number in sorted(numbers))
    base.config.num_hidden_layers = len(numbers)


def keep_heads(base: Any, kept: Sequence[Sequence[int]]) -> None:
    """Leave these heads of each layer: as many everywhere.

    Raises:
        ConfigError: the family computes with a fixed number of heads.
    """
    for parts, heads in zip(parts_of(base), kept, strict=True):
        if not parts.inputs:
            raise ConfigError(
                f"heads of a {base.config.model_type} model cannot be pruned",
                hint="prune layers and the feed-forward width",
            )
        size = linear(parts.output).in_features // parts.n_heads
        rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in sorted(heads)])
        for place in parts.inputs:
            setattr(*place, _with_outputs(linear(place), rows))
        setattr(*parts.output, _with_inputs(linear(parts.output), rows))
        _count_heads(parts.inputs[0][0], len(heads), size)


def shrink_heads(base: Any, n_heads: int) -> None:
    """Make room for as many heads a layer as a pruned checkpoint has."""
    keep_heads(base, [range(n_heads)] * len(layers_of(base)))


def keep_neurons(base: Any, kept: Sequence[Tensor], reader: SpanReader | None = None) -> None:
    """Leave these neurons of each layer's feed-forward part: as many everywhere.

    Args:
        base: the encoder.
        kept: for each layer, [F'] indices; behind them those of the reader's layers.
        reader: whose layers are as wide as the encoder's.
    """
    places = [(parts.inner, parts.outer) for parts in parts_of(base)]
    places += reader_places(reader)
    for (inner, outer), neurons in zip(places, kept, strict=True):
        ordered = neurons.sort().values
        setattr(*inner, _with_outputs(linear(inner), ordered))
        setattr(*outer, _with_inputs(linear(outer), ordered))
    key = next(key for key in FEED_FORWARD_KEYS if hasattr(base.config, key))
    setattr(base.config, key, len(kept[0]))


def reader_places(
    reader: SpanReader | None,
) -> list[tuple[tuple[Any, str], tuple[Any, str]]]:
    """Where the feed-forward parts of a span reader's layers hang: inner, outer."""
    layers = [] if reader is None else list(reader.layers)
    return [((layer, "inner"), (layer, "outer")) for layer in layers]


def _holder(base: Any) -> Any:
    return base.encoder if hasattr(base, "encoder") else base.transformer


def _parts(layer: Any) -> LayerParts:
    if hasattr(layer, "ffn"):  # DistilBERT
        attention, ffn = layer.attention, layer.ffn
        inputs = tuple((attention, name) for name in ("q_lin", "k_lin", "v_lin"))
        output = (attention, "out_lin")
        norms = (layer, "sa_layer_norm"), (layer, "output_layer_norm")
        return LayerParts(inputs, output, (ffn, "lin1"), (ffn, "lin2"), *norms, attention.n_heads)
    own = layer.attention.self
    names = ("query", "key", "value")
    inputs = tuple((own, name) for name in names) if hasattr(own, "query") else ()
    output = (layer.attention.output, "dense")
    inner, outer = (layer.intermediate, "dense"), (layer.output, "dense")
    for place in (*inputs, output, inner, outer):
        if not isinstance(getattr(*place), nn.Linear):
            raise AttributeError(place[1])
    norms = (layer.attention.output, "LayerNorm"), (layer.output, "LayerNorm")
    return LayerParts(inputs, output, inner, outer, *norms, own.num_attention_heads)


def _count_heads(attention: Any, n_heads: int, size: int) -> None:
    for name in ("num_attention_heads", "n_heads"):
        if hasattr(attention, name):
            setattr(attention, name, n_heads)
    if hasattr(attention, "all_head_size"):
        attention.all_head_size = n_heads * size


def _with_outputs(layer: nn.Linear, rows: Tensor) -> nn.Linear:
    """The layer with these of its outputs."""
    found = nn.Linear(layer.in_features, len(rows), bias=layer.bias is not None)
    with torch.no_grad():
        found.weight.copy_(layer.weight[rows])
        if layer.bias is not None:
            found.bias.copy_(layer.bias[rows])
    return found.train(layer.training)


def _with_inputs(layer: nn.Linear, columns: Tensor) -> nn.Linear:
    """The layer with these of its inputs."""
    found = nn.Linear(len(columns), layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        found.weight.copy_(layer.weight[:, columns])
        if layer.bias is not None:
            found.bias.copy_(layer.bias)
    return found.train(layer.training)


def _unknown(base: Any) -> ConfigError:
    return ConfigError(
        f"a {base.config.model_type} model cannot be pruned: its layers are built otherwise than "
        "BERT's",
        hint="BERT, RoBERTa, XLM-R, ELECTRA and DistilBERT can be; DeBERTa-v2 but for its heads",
    )

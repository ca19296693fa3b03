"""The graphs of a model that writes, traced: one step of the decoder with its cache, the encoder.

One decoder graph serves the first step and all later ones: a cache of no tokens is a tensor with
an axis of length 0, so nothing branches and no weight is stored twice.

Shapes: B rows, T tokens of a text, S new tokens, P tokens in the cache, A heads, D their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from instructrec_deploy.core.bundle import DECODER_FILE, ENCODER_FILE
from instructrec_deploy.export.graphs import TEXT_AXES, trace_module
from instructrec_deploy.models.generator import Generator, plain_cache
from instructrec_deploy.runtime.decoding import CROSS, PAST, PRESENT, cache_names

# Of the traced example, all different and more than one, so that no axis is taken for another.
ROWS, TOKENS, CACHED, NEW = 2, 7, 5, 3
Axes = Mapping[int, str]
PAST_AXES: Axes = {0: "batch", 2: "cached"}
PRESENT_AXES: Axes = {0: "batch", 2: "known"}
CROSS_AXES: Axes = {0: "batch", 2: "tokens"}


class _Step(nn.Module):
    """A causal model: input_ids [B, S], attention_mask [B, P + S], cache -> logits [B, V], cache.

    Positions count the tokens that the mask shows, so padding before a text changes nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> Any:
        n_new = input_ids.shape[1]
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        cache = plain_cache(_pairs(past))
        logits = self.model(
            input_ids=input_ids,
            attention_mask=_causal_mask(attention_mask, n_new),
            position_ids=positions[:, -n_new:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1], *_tensors(cache)


class _EncodeForDecoder(nn.Module):
    """input_ids, attention_mask [B, T] -> keys and values of the text for each decoder layer.

    The decoder's own code makes them, in a step of which nothing else is kept.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        model: Any = self.model
        mask = _shown(attention_mask[:, None, None, :])
        states = model.get_encoder()(input_ids=input_ids, attention_mask=mask)[0]
        cache = model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=torch.zeros_like(input_ids[:, :1]),
            decoder_attention_mask=torch.zeros_like(mask[..., :1]),
            use_cache=True,
        ).past_key_values
        return tuple(_tensors(cache.cross_attention_cache))


class _StepBehindEncoder(nn.Module):
    """A seq2seq model: input_ids [B, S], attention_mask of the text [B, T], caches -> as `_Step`.

    Rows of the decoder all have as many tokens: nothing is padded there.
    """

    def __init__(self, model: nn.Module, n_layers: int) -> None:
        super().__init__()
        self.model = model
        self.n_layers = n_layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *tensors: Tensor) -> Any:
        from transformers.cache_utils import EncoderDecoderCache

        past, cross = tensors[: 2 * self.n_layers], tensors[2 * self.n_layers :]
        cache = plain_cache(_pairs(past))
        n_new = input_ids.shape[1]
        shown = input_ids.new_ones((input_ids.shape[0], past[0].shape[2] + n_new))
        logits = self.model(
            # Never read: keys and values of the text come with the cache.
            encoder_outputs=(cross[0],),
            attention_mask=_shown(attention_mask[:, None, None, :]),
            decoder_input_ids=input_ids,
            decoder_attention_mask=_causal_mask(shown, n_new),
            past_key_values=EncoderDecoderCache(cache, plain_cache(_pairs(cross))),
            use_cache=True,
        ).logits
        return logits[:, -1], *_tensors(cache)


def generator_graphs(generator: Generator, *, work: Path) -> dict[str, onnx.ModelProto]:
    """Trace a model that writes, in 32-bit floats.

    Args:
        generator: loaded by `load_generator`.
        work: a folder for temporary files.

    Returns:
        Models by their path in the bundle.
    """
    section, model = generator.section, generator.model
    token = (generator.pad_id + 1) % section.n_vocabulary
    ids = torch.full((ROWS, TOKENS), token)
    text_mask = torch.ones_like(ids)
    text_mask[1, -2:] = 0
    shape = (ROWS, section.n_heads, CACHED, section.head_size)
    past = {name: (torch.zeros(shape), PAST_AXES) for name in cache_names(PAST, section.n_layers)}
    new_ids = (torch.full((ROWS, NEW), token), {0: "batch", 1: "new"})
    outputs: dict[str, Axes] = {"logits": {0: "batch"}}
    outputs |= dict.fromkeys(cache_names(PRESENT, section.n_layers), PRESENT_AXES)
    if generator.kind == "causal":
        known = torch.ones((ROWS, CACHED + NEW), dtype=torch.int64)
        inputs = {
            "input_ids": new_ids,
            "attention_mask": (known, {0: "batch", 1: "known"}),
            **past,
        }
        return {DECODER_FILE: trace_module(_Step(model), inputs, outputs, work=work)}
    cross_names = cache_names(CROSS, section.n_layers)
    cross_shape = (ROWS, section.n_heads, TOKENS, section.head_size)
    text = {"attention_mask": (text_mask, TEXT_AXES)}
    return {
        ENCODER_FILE: trace_module(
            _EncodeForDecoder(model),
            {"input_ids": (ids, TEXT_AXES), **text},
            dict.fromkeys(cross_names, CROSS_AXES),
            work=work,
        ),
        DECODER_FILE: trace_module(
            _StepBehindEncoder(model, section.n_layers),
            {
                "input_ids": new_ids,
                **text,
                **past,
                **{name: (torch.zeros(cross_shape), CROSS_AXES) for name in cross_names},
            },
            outputs,
            work=work,
        ),
    }


@torch.no_grad()
def read_by_decoder(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
    """The outputs of a seq2seq model's encoder graph, by the checkpoint itself, in their order."""
    return list(_EncodeForDecoder(model)(input_ids, attention_mask))


def _causal_mask(shown: Tensor, n_new: int) -> Tensor:
    """[B, P + S] -> [B, 1, S, P + S] to be added to attention scores: no token sees a later one."""
    places = torch.arange(shown.shape[1])
    is_before = places[None, :] <= places[-n_new:, None]
    return _shown(is_before[None, None].to(shown.dtype) * shown[:, None, None, :])


def _shown(mask: Tensor) -> Tensor:
    """1 and 0 -> what is added to attention scores."""
    hidden = torch.finfo(torch.float32).min
    return (1.0 - mask.to(torch.float32)) * hidden


def _pairs(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def _tensors(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]

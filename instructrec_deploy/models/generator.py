"""Models of transformers that write text, with the facts that export and writing need of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.manifest import GenerationSection, GeneratorKind
from instructrec_deploy.models.loading import load_tokenizer, load_transformers
from instructrec_deploy.text.tokenizer import TextTokenizer

LOADERS: dict[GeneratorKind, str] = {
    "seq2seq": "AutoModelForSeq2SeqLM",
    "causal": "AutoModelForCausalLM",
}
DEFAULT_WINDOW = 512  # tokens of a text, where positions are relative and the model names no bound
# Rotary positions that change with the length of the text: a traced graph would keep one length's.
LENGTH_BOUND_ROPE = ("dynamic", "longrope")
# What a generation configuration may ask for and the writer does not do.
UNFOLLOWED = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "sequence_bias",
    "suppress_tokens",
)
UNSET = (None, 0, 1, False)  # values that ask for nothing


@dataclass(frozen=True, slots=True)
class Generator:
    """A model that writes, in memory, in float32."""

    model: Any
    kind: GeneratorKind
    tokenizer_path: Path
    section: GenerationSection
    max_tokens: int  # of a text that is read, control tokens included
    pad_id: int
    hidden_size: int
    unfollowed: tuple[str, ...] = ()  # settings of its own that the writer does not follow

    @property
    def n_parameters(self) -> int:
        """How many weights the model has; shared ones count once."""
        return sum(p.numel() for p in self.model.parameters())

    def open_tokenizer(self) -> TextTokenizer:
        """Its tokenizer.

        Raises:
            BundleError: the file is unreadable.
        """
        return TextTokenizer(self.tokenizer_path, max_tokens=self.max_tokens)


def load_generator(folder: Path, *, kind: GeneratorKind, work: Path) -> Generator:
    """Load a folder of transformers.

    Args:
        folder: with `config.json`, weights in safetensors and a tokenizer.
        kind: seq2seq or causal.
        work: gets `tokenizer.json`.

    Raises:
        ConfigError: it cannot be loaded, or its cache or positions are of a kind that a graph
            with one plain key-value cache does not give.
    """
    source = str(folder.resolve())
    model = load_transformers(source, (), head=LOADERS[kind]).eval()
    # Attention in its plain form: the fused ones choose a kernel by the example's shapes.
    model.set_attn_implementation("eager")
    config = model.config
    _check_cache(config, folder)
    tokenizer, path = load_tokenizer(source, work)
    stops, pad = _stop_ids(model), _pad_id(model, tokenizer)
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    own = model.generation_config
    first, last, start = (
        own.forced_bos_token_id,
        own.forced_eos_token_id,
        own.decoder_start_token_id,
    )
    n_layers, n_heads, head_size = _cache_shape(model, kind)
    if kind == "seq2seq" and start is None:
        raise ConfigError(
            f"{folder}: it does not say what its decoder begins with",
            hint="set decoder_start_token_id in its generation_config.json",
        )
    section = GenerationSection(
        n_layers=n_layers,
        n_heads=n_heads,
        head_size=head_size,
        n_vocabulary=int(model.get_output_embeddings().weight.shape[0]),
        start_id=int(start) if kind == "seq2seq" else -1,
        stop_ids=stops,
        forced_first_id=_one_id(first),
        forced_last_id=_one_id(last),
        max_positions=positions,
    )
    return Generator(
        model,
        kind,
        path,
        section,
        max_tokens=positions or DEFAULT_WINDOW,
        pad_id=pad,
        hidden_size=int(config.hidden_size),
        unfollowed=tuple(n for n in UNFOLLOWED if getattr(own, n, None) not in UNSET),
    )


def plain_cache(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """A cache of transformers that holds these keys and values [B, heads, P, D], as they are.

    Not by its own constructor: that joins them to an empty tensor of one dimension, which a traced
    graph would keep.
    """
    from transformers.cache_utils import Cache, DynamicLayer

    make_layer: Any = DynamicLayer  # its constructor has no types
    layers: list[Any] = []
    for keys, values in pairs:
        layer = make_layer()
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        layers.append(layer)
    return Cache(layers=layers)


def _check_cache(config: Any, folder: Path) -> None:
    from transformers.cache_utils import DynamicCache, DynamicLayer

    strange = {type(layer).__name__ for layer in DynamicCache(config=config).layers} - {
        DynamicLayer.__name__
    }
    if strange:
        raise ConfigError(
            f"{folder}: its cache is no plain one ({', '.join(sorted(strange))})",
            hint="models whose every layer attends to the whole text are exported",
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in LENGTH_BOUND_ROPE:
        raise ConfigError(
            f"{folder}: its rotary positions ({rope['rope_type']}) depend on the text's length",
            hint="models with fixed rotary positions are exported",
        )


@torch.no_grad()
def _cache_shape(model: nn.Module, kind: GeneratorKind) -> tuple[int, int, int]:
    """(layers, heads, head size) as one step of the model leaves them."""
    ids = torch.zeros((1, 1), dtype=torch.long)
    more = {"decoder_input_ids": ids} if kind == "seq2seq" else {}
    cache = model(input_ids=ids, use_cache=True, **more).past_key_values
    cache = cache.self_attention_cache if kind == "seq2seq" else cache
    shapes = {tuple(layer.keys.shape) for layer in cache.layers}
    shapes |= {tuple(layer.values.shape) for layer in cache.layers}
    if len(shapes) != 1:
        raise ConfigError(
            "the layers' keys and values differ in shape",
            hint="models whose cache has one shape are exported",
        )
    _, n_heads, _, head_size = shapes.pop()
    return len(cache.layers), n_heads, head_size


def _stop_ids(model: Any) -> tuple[int, ...]:
    own = model.generation_config.eos_token_id
    found = own if isinstance(own, list) else [own]
    return tuple(int(stop) for stop in found if stop is not None)


def _pad_id(model: Any, tokenizer: Any) -> int:
    """Whatever is there: the mask hides it."""
    stated = model.generation_config.pad_token_id, tokenizer.pad_token_id
    return next((int(found) for found in stated if found is not None and found >= 0), 0)


def _one_id(stated: Any) -> int:
    """An id that a configuration may leave out."""
    return int(stated) if stated is not None else -1

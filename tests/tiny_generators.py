"""Random checkpoints of models that write, as `save_pretrained` leaves them, and their tokenizers.

The weights are drawn wide, so that a text's continuation depends on the text and does not run in
a circle at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import tiny_tokenizer

HIDDEN = 64  # 64 x 64 weights are the fewest that are quantized
POSITIONS = 160
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": HIDDEN, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    ),
    "bart": (
        "BartForConditionalGeneration",
        {
            "d_model": HIDDEN,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_position_embeddings": POSITIONS,
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
    ),
    "llama": (
        "LlamaForCausalLM",
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": POSITIONS,
        },
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": POSITIONS,
        },
    ),
}
SEQ2SEQ = ("t5", "bart")
CAUSAL = ("gpt2", "llama", "qwen2")


def byte_tokenizer() -> Tokenizer:
    """Bytes and `<|endoftext|>`, no merges: reads any text, frames none."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def write_generator(
    folder: Path,
    family: str,
    *,
    seed: int = 3,
    generation: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> Any:
    """Write a folder, and return its model; `changes` go into the configuration.

    `generation`: goes into `generation_config.json`.
    """
    torch.manual_seed(seed)
    name, sizes = FAMILIES[family]
    if family in SEQ2SEQ:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tiny_tokenizer(),
            unk_token="[UNK]",
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        )
        stop, first = tokenizer.sep_token_id, tokenizer.pad_token_id
        special = {"pad_token_id": 0, "eos_token_id": stop, "decoder_start_token_id": first}
        special |= {"bos_token_id": None, "forced_eos_token_id": None}
    else:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=byte_tokenizer(), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        )
        stop = tokenizer.eos_token_id
        special = {"pad_token_id": stop, "eos_token_id": stop, "bos_token_id": stop}
    loader: Any = getattr(transformers, name)
    values = sizes | special | changes
    config = loader.config_class(vocab_size=len(tokenizer), **values)
    model = loader(config).eval()
    for key, weight in model.named_parameters():
        if weight.dim() == 2:
            is_table = any(part in key for part in ("shared", "embed", "wte", "wpe"))
            torch.nn.init.normal_(weight, std=0.3 if is_table else 0.2)
    model.generation_config.update(**generation)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model

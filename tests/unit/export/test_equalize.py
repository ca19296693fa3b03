"""Equalizing: same function, quieter channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.export.equalize import channel_factors, equalize_graph
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.runtime.providers import CPU, open_session

K, N = 64, 64
RNG = np.random.default_rng(1)


def norm_graph() -> onnx.ModelProto:
    """x -> layer norm with two loud channels -> a product, and the norm itself (a residual)."""
    gamma = np.ones(K, np.float32)
    gamma[[3, 40]] = 30.0
    constants = {
        "gamma": gamma,
        "beta": np.zeros(K, np.float32),
        "w": (RNG.standard_normal((K, N)) / 8).astype(np.float32),
    }
    shape = ["B", "T", K]
    graph = helper.make_graph(
        [
            helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], axis=-1),
            helper.make_node("MatMul", ["n", "w"], ["p"]),
            helper.make_node("Add", ["p", "n"], ["y"]),
        ],
        "norm",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["B", "T"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batch() -> dict[str, np.ndarray]:
    x = RNG.standard_normal((4, 6, K)).astype(np.float32)
    mask = np.ones((4, 6), np.int64)
    x[0, 4:], mask[0, 4:] = 1e6, 0  # padding must not be measured
    return {"x": x, "attention_mask": mask}


def run(model: onnx.ModelProto, folder: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    path = folder / "graph.onnx"
    onnx.save(model, path)
    result: np.ndarray = open_session(path, providers=[CPU], n_threads=1).run(["y"], feed)[0]
    return result


def test_equalizing_changes_nothing_in_float(tmp_path: Path) -> None:
    graph, feed = norm_graph(), batch()
    equal = equalize_graph(graph, [feed], work=tmp_path)
    assert equal is not graph
    assert np.allclose(run(equal, tmp_path, feed), run(graph, tmp_path, feed), atol=1e-3)


def test_equalizing_lowers_the_int8_error_of_loud_channels(tmp_path: Path) -> None:
    graph, feed = norm_graph(), batch()
    truth = run(graph, tmp_path, feed)
    plain = run(quantize_graph(graph)[0], tmp_path, feed)
    equal = run(quantize_graph(equalize_graph(graph, [feed], work=tmp_path))[0], tmp_path, feed)
    words = feed["attention_mask"] > 0
    assert np.abs(equal - truth)[words].mean() < 0.5 * np.abs(plain - truth)[words].mean()


def test_no_calibration_leaves_the_graph_as_it_is(tmp_path: Path) -> None:
    graph = norm_graph()
    assert equalize_graph(graph, [], work=tmp_path) is graph


def test_calibration_leaves_no_file_behind(tmp_path: Path) -> None:
    equalize_graph(norm_graph(), [batch()], work=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loud_channel_is_divided_by_more_and_a_silent_one_by_something_finite() -> None:
    factors = channel_factors(np.array([1, 30, 0], np.float32), np.ones(3, np.float32))
    assert factors[1] > factors[0] > factors[2] > 0
    assert np.isfinite(factors).all()

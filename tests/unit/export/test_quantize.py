"""int8: scales, safety of 16-bit pairs, batch invariance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.export.quantize import (
    GELU_ZERO_POINT,
    quantize_columns,
    quantize_graph,
    quantize_rows,
)
from instructrec_deploy.runtime.providers import CPU, open_session

K, N = 64, 96
RNG = np.random.default_rng(0)


def linear_graph(
    weight: np.ndarray, *, kind: str = "MatMul", before: str = "", bias: bool = False
) -> onnx.ModelProto:
    """y = before(x) @ weight (+ bias); `kind` Gemm keeps the weight transposed."""
    source = "g" if before else "x"
    nodes = [helper.make_node(before, ["x"], ["g"])] if before else []
    constants = {"w": weight, "b": np.linspace(-1, 1, weight.shape[1], dtype=np.float32)}
    if kind == "Gemm":
        constants["w"] = np.ascontiguousarray(weight.T)
        nodes.append(helper.make_node("Gemm", [source, "w", "b"], ["y"], transB=1))
    else:
        nodes.append(helper.make_node("MatMul", [source, "w"], ["p" if bias else "y"]))
        if bias:
            nodes.append(helper.make_node("Add", ["p", "b"], ["y"]))
    shape = ["R", weight.shape[0]] if kind == "Gemm" else ["B", "T", weight.shape[0]]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape[:-1], weight.shape[1]])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, folder: Path, x: np.ndarray) -> np.ndarray:
    path = folder / "graph.onnx"
    onnx.save(model, path)
    result: np.ndarray = open_session(path, providers=[CPU], n_threads=1).run(None, {"x": x})[0]
    return result


@given(st.integers(0, 2**32 - 1), st.integers(2, 70), st.floats(0.1, 4.0))
def test_no_pair_of_weights_can_overflow_sixteen_bits(seed: int, k: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((k, 5)) * rng.lognormal(0, tail, (k, 1))).astype(np.float32)
    values, _ = quantize_columns(weight)
    pairs = np.pad(values.astype(np.int64), ((0, k % 2), (0, 0))).reshape(-1, 2, 5)
    # the worst an unsigned activation can do to a pair: 255 where it hurts, 0 elsewhere
    assert np.maximum(pairs, 0).sum(1).max() * 255 <= 32_767
    assert np.minimum(pairs, 0).sum(1).min() * 255 >= -32_768


def test_quantized_columns_are_within_half_a_step_of_the_weights() -> None:
    weight = RNG.standard_normal((K, N)).astype(np.float32)
    values, scale = quantize_columns(weight)
    assert np.abs(values * scale - weight).max(axis=0) == pytest.approx(0.5 * scale, rel=0.2)


def test_a_column_and_a_row_of_zeros_stay_zeros() -> None:
    weight = np.zeros((K, 2), np.float32)
    assert not quantize_columns(weight)[0].any()
    assert not (quantize_rows(weight.T)[0] * quantize_rows(weight.T)[1]).any()


def test_integer_products_are_exact_on_this_processor_even_for_the_worst_activations(
    tmp_path: Path,
) -> None:
    weight = RNG.standard_normal((K, N)).astype(np.float32)
    values, scale = quantize_columns(weight)
    # each row attacks one column: the largest activation wherever its weight is positive
    x = np.where(values.T > 0, 1.0, -1.0).astype(np.float32)[None]
    model, report = quantize_graph(linear_graph(weight))
    assert report.n_products == 1
    expected = (127 * x.astype(np.int64) @ values.astype(np.int64)) * (scale / 127)
    assert run(model, tmp_path, x) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "before", "bias"),
    [("MatMul", "", False), ("MatMul", "Relu", True), ("Gemm", "", False)],
)
def test_a_quantized_product_is_near_the_float_one(
    tmp_path: Path, kind: str, before: str, bias: bool
) -> None:
    weight = (RNG.standard_normal((K, N)) / 8).astype(np.float32)
    graph = linear_graph(weight, kind=kind, before=before, bias=bias)
    x = RNG.standard_normal((5, K) if kind == "Gemm" else (2, 5, K)).astype(np.float32)
    quantized, report = quantize_graph(graph)
    assert report.n_products == 1
    assert np.abs(run(quantized, tmp_path, x) - run(graph, tmp_path, x)).max() < 0.05


def test_a_row_s_result_does_not_depend_on_the_rows_beside_it(tmp_path: Path) -> None:
    weight = RNG.standard_normal((K, N)).astype(np.float32)
    quantized, _ = quantize_graph(linear_graph(weight))
    x = RNG.standard_normal((3, 4, K)).astype(np.float32)
    loud = x * np.array([1.0, 1e3, 1e-3], np.float32)[:, None, None]
    alone = run(quantized, tmp_path, x[:1])
    assert np.array_equal(run(quantized, tmp_path, loud)[:1], alone)


def test_a_row_of_zeros_gives_zeros(tmp_path: Path) -> None:
    quantized, _ = quantize_graph(linear_graph(np.ones((K, N), np.float32)))
    assert not run(quantized, tmp_path, np.zeros((1, 2, K), np.float32)).any()


def test_products_of_one_input_share_its_quantization() -> None:
    graph = linear_graph(np.ones((K, N), np.float32))
    graph.graph.node.append(helper.make_node("MatMul", ["x", "w"], ["y2"]))
    graph.graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, None))
    quantized, report = quantize_graph(graph)
    kinds = [n.op_type for n in quantized.graph.node]
    assert report.n_products == 2
    assert kinds.count("QuantizeLinear") == 1
    assert not [c for c in quantized.graph.initializer if c.name == "w"]


def test_what_follows_a_gelu_keeps_nearly_the_whole_byte_for_what_is_above_zero() -> None:
    quantized, _ = quantize_graph(linear_graph(np.ones((K, N), np.float32), before="Relu"))
    zeros = [n for n in quantized.graph.node if n.op_type == "ConstantOfShape"]
    assert [numpy_helper.to_array(n.attribute[0].t).item() for n in zeros] == [GELU_ZERO_POINT]


@pytest.mark.parametrize(("shape", "n_zeros"), [((5,), 1), ((2, 5), 2)])
def test_inputs_of_equally_many_rows_share_their_zero_points(
    tmp_path: Path, shape: tuple[int, ...], n_zeros: int
) -> None:
    """x @ w, and (x + z) @ w: as many rows if z is a vector, perhaps more if it is a matrix."""
    graph = linear_graph(np.eye(K, dtype=np.float32))
    z = RNG.standard_normal((*shape[:-1], K)).astype(np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(z, "z"))
    graph.graph.node.append(helper.make_node("Add", ["y", "z"], ["moved"]))
    graph.graph.node.append(helper.make_node("MatMul", ["moved", "w"], ["y2"]))
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, ["B", "M", K]))
    quantized, report = quantize_graph(graph)
    assert report.n_products == 2
    assert [n.op_type for n in quantized.graph.node].count("ConstantOfShape") == n_zeros
    x = RNG.standard_normal((3, 1, K)).astype(np.float32)  # one row, of which z may make two
    assert np.abs(run(quantized, tmp_path, x) - run(graph, tmp_path, x)).max() < 0.1


def test_small_matrices_and_products_of_two_inputs_are_left_alone() -> None:
    small = linear_graph(np.ones((8, 8), np.float32))
    assert quantize_graph(small)[1].n_products == 0
    shape = ["B", "T", "T"]
    two = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "z"], ["y"])],
            "two",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xz"],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    assert quantize_graph(two)[1].n_products == 0


def test_the_graph_given_in_is_left_as_it_was() -> None:
    graph = linear_graph(np.ones((K, N), np.float32))
    before = graph.SerializeToString()
    quantize_graph(graph)
    assert graph.SerializeToString() == before


def test_an_embedding_table_keeps_one_scale_for_each_row(tmp_path: Path) -> None:
    table = (RNG.standard_normal((200, 32)) * RNG.lognormal(0, 2, (200, 1))).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["t", "x"], ["y"])],
            "table",
            [helper.make_tensor_value_info("x", TensorProto.INT64, ["B", "T"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", 32])],
            [numpy_helper.from_array(table, "t")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    quantized, report = quantize_graph(model)
    assert report.n_tables == 1
    ids = RNG.integers(0, 200, (2, 7))
    step = np.abs(table[ids]).max(axis=-1, keepdims=True) / 127
    assert (np.abs(run(quantized, tmp_path, ids) - table[ids]) <= 0.51 * step).all()

"""Equalizing: same function, quieter channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.export.equalize import channel_factors, equalize_graph
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.runtime.providers import CPU, open_session

K, N = 64, 64
Feed = dict[str, np.ndarray]
RNG = np.random.default_rng(1)


def model_of(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """x [B, T, K] and its attention mask -> y."""
    shape = ["B", "T", K]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["B", "T"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def norm_graph() -> onnx.ModelProto:
    """x -> layer norm with two loud channels -> a product, and the norm itself (a residual)."""
    gamma = np.ones(K, np.float32)
    gamma[[3, 40]] = 30.0
    constants = {
        "gamma": gamma,
        "beta": np.zeros(K, np.float32),
        "w": (RNG.standard_normal((K, N)) / 8).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "w"], ["p"]),
        helper.make_node("Add", ["p", "n"], ["y"]),
    ]
    return model_of(nodes, constants)


def gated_graph() -> onnx.ModelProto:
    """x -> an RMS norm's weight -> gate and value, both products -> gated sum -> a product -> relu
    -> a product: T5's and Llama's layers; nothing but products reads what products read."""
    weights = {
        "scale": np.abs(RNG.standard_normal(K)).astype(np.float32),
        **{
            name: (RNG.standard_normal((K, N)) / 8).astype(np.float32)
            for name in ("gate", "value", "down", "out")
        },
    }
    weights["scale"][[3, 40]] = 30.0
    weights["value"][:, [5, 9]] *= 30.0
    weights["down"][:, 7] *= 30.0
    ops = [
        ("Mul", ["scale", "x"], "n"),
        ("MatMul", ["n", "gate"], "g"),
        ("Sigmoid", ["g"], "s"),
        ("MatMul", ["n", "value"], "v"),
        ("Mul", ["s", "v"], "h"),
        ("MatMul", ["h", "down"], "d"),
        ("Relu", ["d"], "r"),
        ("MatMul", ["r", "out"], "y"),
    ]
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in ops]
    return model_of(nodes, weights)


def loudest_of_mean(model: onnx.ModelProto, name: str, folder: Path, feed: Feed) -> float:
    """How much louder the loudest channel of a tensor is than the mean one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend([helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
    onnx.save(copy, folder / "probe.onnx")
    session = open_session(folder / "probe.onnx", providers=[CPU], n_threads=1)
    values = np.abs(session.run([name], feed)[0][feed["attention_mask"] > 0]).max(axis=0)
    return float(values.max() / values.mean())


def batch() -> Feed:
    x = RNG.standard_normal((4, 6, K)).astype(np.float32)
    mask = np.ones((4, 6), np.int64)
    x[0, 4:], mask[0, 4:] = 1e6, 0  # padding must not be measured
    return {"x": x, "attention_mask": mask}


def run(model: onnx.ModelProto, folder: Path, feed: Feed) -> np.ndarray:
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


def test_what_products_alone_read_is_divided_where_it_is_made(tmp_path: Path) -> None:
    """The norm's weight, a column of the gated product and one before a ReLU: no node more."""
    graph, feed = gated_graph(), batch()
    equal = equalize_graph(graph, [feed], work=tmp_path)
    assert [n.op_type for n in equal.graph.node] == [n.op_type for n in graph.graph.node]
    truth = run(graph, tmp_path, feed)
    words = feed["attention_mask"] > 0
    assert np.allclose(run(equal, tmp_path, feed)[words], truth[words], rtol=1e-3, atol=1e-2)
    for name in ("n", "h", "r"):
        before = loudest_of_mean(graph, name, tmp_path, feed)
        assert loudest_of_mean(equal, name, tmp_path, feed) < 0.7 * before, name


def test_a_norm_that_products_alone_read_takes_the_division_itself(tmp_path: Path) -> None:
    graph, feed = norm_graph(), batch()
    graph.graph.node[2].input[1] = "x"  # the residual path goes past the norm
    equal = equalize_graph(graph, [feed], work=tmp_path)
    assert [n.op_type for n in equal.graph.node] == ["LayerNormalization", "MatMul", "Add"]
    assert np.allclose(run(equal, tmp_path, feed), run(graph, tmp_path, feed), atol=1e-3)
    assert loudest_of_mean(equal, "n", tmp_path, feed) < loudest_of_mean(graph, "n", tmp_path, feed)


def test_rows_that_were_put_elsewhere_are_those_of_the_norm(tmp_path: Path) -> None:
    """As GPT-2 does: all tokens of all texts below each other."""
    graph, feed = norm_graph(), batch()
    nodes = graph.graph.node
    nodes.insert(1, helper.make_node("Reshape", ["n", "flat"], ["rows"]))
    nodes[2].input[0], nodes[3].input[1] = "rows", "p"
    flat = numpy_helper.from_array(np.array([-1, K], np.int64), "flat")
    graph.graph.initializer.append(flat)
    equal = equalize_graph(graph, [feed], work=tmp_path)
    assert equal is not graph
    assert [n.op_type for n in equal.graph.node] == [n.op_type for n in graph.graph.node]
    assert np.allclose(run(equal, tmp_path, feed), run(graph, tmp_path, feed), rtol=1e-3, atol=1e-3)


def test_rows_that_became_others_are_left_alone(tmp_path: Path) -> None:
    """Two tokens in one row: its channels are not the norm's."""
    graph, feed = norm_graph(), batch()
    nodes = graph.graph.node
    nodes.insert(1, helper.make_node("Reshape", ["n", "pairs"], ["rows"]))
    nodes[2].input[0], nodes[3].input[1] = "rows", "p"
    twice = (RNG.standard_normal((2 * K, N)) / 8).astype(np.float32)
    graph.graph.initializer[2].CopyFrom(numpy_helper.from_array(twice, "w"))
    pairs = numpy_helper.from_array(np.array([-1, 2 * K], np.int64), "pairs")
    graph.graph.initializer.append(pairs)
    assert equalize_graph(graph, [feed], work=tmp_path) is graph


def test_a_tensor_that_something_else_reads_keeps_its_size(tmp_path: Path) -> None:
    graph, feed = gated_graph(), batch()
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "T", K]) for name in "nhr"
    )
    assert equalize_graph(graph, [feed], work=tmp_path) is graph


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

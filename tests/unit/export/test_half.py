"""16-bit floats: what costs takes them, sums that grow do not, and answers stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.export.half import LARGEST, half_graph
from instructrec_deploy.export.run import export_run
from instructrec_deploy.runtime.providers import CPU, open_session
from tests.unit.export.test_generators import export_family

WIDE = frozenset({"LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "ReduceL2", "Where"})
WIDTH = 64


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of each tensor that ONNX can infer, and of each constant."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input]}
    found |= {v.name: v.type.tensor_type.elem_type for v in graph.output}
    return found | {c.name: c.data_type for c in graph.initializer}


def residual_graph(weight: np.ndarray) -> onnx.ModelProto:
    """y = norm(x + (x @ W + b)), and z = softmax(y)."""
    names = {"w": weight, "b": np.full(WIDTH, 0.5), "s": np.ones(WIDTH), "zero": np.zeros(WIDTH)}
    shape = ["n", WIDTH]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["b", "product"], ["biased"]),
            helper.make_node("Add", ["x", "biased"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "s", "zero"], ["y"]),
            helper.make_node("Softmax", ["y"], ["z"]),
        ],
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("y", "z")],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in names.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray, tmp_path: Path) -> list[np.ndarray]:
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    found: list[np.ndarray] = open_session(path, providers=[CPU], n_threads=1).run(None, {"x": x})
    return found


def test_a_product_and_its_bias_take_16_bits_and_the_sum_behind_them_32(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = residual_graph(rng.normal(size=(WIDTH, WIDTH)))
    half = half_graph(model)
    onnx.checker.check_model(half, full_check=True)
    types = types_of(half)
    assert types["product_half"] == types["biased_half"] == types["w_half"] == TensorProto.FLOAT16
    assert types["sum"] == types["y"] == types["z"] == types["x"] == TensorProto.FLOAT
    assert "w" not in types  # no weight is kept twice
    x = rng.normal(size=(5, WIDTH)).astype(np.float32)
    for one, other in zip(run(model, x, tmp_path), run(half, x, tmp_path), strict=True):
        # Eleven bits of each of 64 products and of the bias, over a norm of about 8.
        np.testing.assert_allclose(one, other, atol=5e-3)


def test_a_sum_beyond_16_bits_stays_right(tmp_path: Path) -> None:
    model = residual_graph(np.eye(WIDTH))
    x = np.linspace(-LARGEST, LARGEST, 2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)
    assert abs(x + x).max() > LARGEST  # what is added up behind the product
    whole, half = run(model, x, tmp_path)[0], run(half_graph(model), x, tmp_path)[0]
    np.testing.assert_allclose(whole, half, atol=5e-3)


def test_a_weight_beyond_16_bits_becomes_the_largest(tmp_path: Path) -> None:
    half = half_graph(residual_graph(np.full((WIDTH, WIDTH), 1e6)))
    weight = next(c for c in half.graph.initializer if c.name == "w_half")
    assert (numpy_helper.to_array(weight) == np.float16(LARGEST)).all()


def test_a_bundle_of_halves_answers_as_its_checkpoint(encoder_run: Path, tmp_path: Path) -> None:
    whole = export_run(encoder_run, tmp_path / "whole", precision="fp32")
    half = export_run(encoder_run, tmp_path / "half", precision="fp16")
    assert half.parity.agreement == 1.0
    assert 0 < half.parity.max_difference < 5e-3
    assert half.parity.batch_difference < 1e-3
    bundle = open_bundle(half.out)
    assert bundle.manifest.model.precision == "fp16"
    for name in ("encoder", "fusion", "prepare"):
        path = Path("graphs") / f"{name}.onnx"
        made, base = onnx.load(half.out / path), onnx.load(whole.out / path)
        assert list(made.graph.input) == list(base.graph.input)
        assert list(made.graph.output) == list(base.graph.output)
        types = types_of(made)
        for node in made.graph.node:
            if node.op_type in WIDE:
                assert TensorProto.FLOAT16 not in [types.get(n) for n in node.input], node.op_type
    sizes = [(one.out / "graphs" / "encoder.onnx").stat().st_size for one in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_other_families_keep_their_answers(
    run_maker: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    report = export_run(run_maker(family), tmp_path / "bundle", precision="fp16")
    assert report.parity.agreement == 1.0


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama", "qwen2"])
def test_models_that_write_keep_their_cache_in_32_bits(tmp_path: Path, family: str) -> None:
    _, report = export_family(tmp_path, family, precision="fp16")
    graph = onnx.load(report.out / "graphs" / "decoder.onnx").graph
    kinds = {v.type.tensor_type.elem_type for v in [*graph.input, *graph.output]}
    assert kinds <= {TensorProto.FLOAT, TensorProto.INT64}
    assert any(c.data_type == TensorProto.FLOAT16 for c in graph.initializer)
    assert report.parity.agreement > 0.9

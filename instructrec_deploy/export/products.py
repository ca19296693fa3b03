"""Find what can be quantized in a graph: products with constant weights, by structure alone.

Shapes: K inner size of a product, N its outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators
MIN_WEIGHTS = 4_096  # a smaller matrix gains neither time nor space


@dataclass(frozen=True, slots=True)
class Product:
    """`output = source @ weight (+ bias)`, from a MatMul or a Gemm."""

    source: str
    output: str
    weight: Floats  # [K, N]
    bias: str = ""  # name of a constant [N], or ""


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the values of Constant nodes, by name."""
    found = {c.name: c for c in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def as_product(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Product | None:
    """The node as a product worth quantizing, or None."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[0] in constants:
        return None
    constant = constants.get(node.input[1])
    if constant is None or not is_float_matrix(constant):
        return None
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    is_plain = options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0
    if options.get("transA", 0) or not is_plain:
        return None
    weight = numpy_helper.to_array(constant)
    if weight.size < MIN_WEIGHTS:
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    return Product(
        node.input[0], node.output[0], weight.T if options.get("transB", 0) else weight, bias
    )


def is_float_matrix(constant: onnx.TensorProto) -> bool:
    """Whether the constant is a float32 matrix."""
    return bool(constant.data_type == TensorProto.FLOAT and len(constant.dims) == 2)


def replace_nodes(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], added: list[onnx.TensorProto]
) -> None:
    """Put new nodes in place of the old ones, and keep only the constants still in use."""
    wanted, kept = {output.name for output in graph.output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    constants = {c.name: c for c in [*graph.initializer, *added] if c.name in wanted}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants.values())


def declare_microsoft(model: onnx.ModelProto) -> None:
    """Say that the model uses ONNX Runtime's own operators; the fusing tool forgets to."""
    if not any(o.domain == MICROSOFT for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))

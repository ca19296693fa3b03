"""Products, attention and tables in 16-bit floats, for GPUs; all else stays in 32 bits.

Half precision has a range of 65,504 and eleven bits. Sums that grow (the residual stream, norms,
softmax, masks, pooling) keep 32 bits; what costs time and memory (products with weights, biases
and activations behind them, attention, embedding tables) takes 16. Inputs and outputs of a graph
keep their types. Processors without such kernels compute the same graph in 32 bits with rounded
weights: ONNX Runtime puts casts around each node.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.export.products import (
    constants_of,
    is_float_matrix,
    replace_nodes,
)
from instructrec_deploy.export.quantize import LEAST

LARGEST = float(np.finfo(np.float16).max)
ATTENTION = "MultiHeadAttention"
KEY_MASK = 4  # the one input of attention that is no float
# Which inputs of an operator are floats; None: all of them.
FLOAT_INPUTS: Mapping[str, tuple[int, ...] | None] = {
    "MatMul": None,
    "Gemm": None,
    "Add": None,
    "Gather": (0,),
    ATTENTION: (0, 1, 2, 3, 5, 6, 7),
    **dict.fromkeys(LEAST, None),
}
# Ops that only lay out anew what they are given: they follow their input.
LAYOUT_OPS = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def half_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a float graph; the argument is left as it was.

    Returns:
        A new model with the same inputs and outputs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rewriter = _Rewriter(copy.graph)
    replace_nodes(copy.graph, rewriter.nodes(), rewriter.constants)
    return copy


class _Rewriter:
    """One pass over a graph: which tensors are there in 16 bits, in 32, or in both."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._known = constants_of(graph)
        self._halves: dict[str, str] = {}  # a tensor -> its name in 16 bits
        self._missing: set[str] = set()  # tensors that are there in 16 bits alone
        self._producer = {out: node for node in graph.node for out in node.output}
        self.constants: list[onnx.TensorProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        """The graph's nodes anew, casts among them."""
        made: list[onnx.NodeProto] = []
        for node in self._graph.node:
            if self._is_half(node):
                self._halve(node, made)
                continue
            for name in node.input:
                self._widen(name, made)
            made.append(node)
        for output in self._graph.output:
            self._widen(output.name, made)
        return made

    def _is_half(self, node: onnx.NodeProto) -> bool:
        kind = node.op_type
        if kind in LAYOUT_OPS:
            return node.input[0] in self._missing
        if kind == "Gather":
            table = self._known.get(node.input[0])
            return table is not None and is_float_matrix(table)
        if kind == "Add":  # a bias; other sums grow
            return self._is_bias(node.input[0], node.input[1]) or self._is_bias(
                node.input[1], node.input[0]
            )
        return kind in FLOAT_INPUTS

    def _is_bias(self, name: str, source: str) -> bool:
        constant, producer = self._known.get(name), self._producer.get(source)
        return (
            constant is not None
            and constant.data_type == TensorProto.FLOAT
            and len(constant.dims) == 1
            and producer is not None
            and producer.op_type == "MatMul"
        )

    def _halve(self, node: onnx.NodeProto, made: list[onnx.NodeProto]) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        places = (0,) if node.op_type in LAYOUT_OPS else FLOAT_INPUTS[node.op_type]
        for place, name in enumerate(node.input):
            if name and (places is None or place in places):
                new.input[place] = self._narrow(name, made)
            else:
                self._widen(name, made)
        for place, name in enumerate(node.output):
            new.output[place] = self._halves[name] = f"{name}_half"
            self._missing.add(name)
        made.append(new)

    def _narrow(self, name: str, made: list[onnx.NodeProto]) -> str:
        """The tensor's name in 16 bits, made once."""
        if name not in self._halves:
            half = self._halves[name] = f"{name}_half"
            if name in self._known:
                values = numpy_helper.to_array(self._known[name])
                fitting = np.clip(values, -LARGEST, LARGEST).astype(np.float16)
                self.constants.append(numpy_helper.from_array(fitting, half))
            else:
                made.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
        return self._halves[name]

    def _widen(self, name: str, made: list[onnx.NodeProto]) -> None:
        """Make the tensor in 32 bits where it is there in 16 alone, once."""
        if name in self._missing:
            self._missing.remove(name)
            made.append(
                helper.make_node("Cast", [self._halves[name]], [name], to=TensorProto.FLOAT)
            )

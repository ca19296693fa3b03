"""Take the padding out of a graph: everything but attention runs on real tokens alone.

Shapes: B texts, T tokens of the longest, N real tokens of all texts, H width.

Products with weights, layer norms and activations look at one token at a time. So the tokens of
all texts may stand one behind the other, [N, H] in place of [B, T, H], and nothing is computed for
padding. Attention alone looks at a text: before it the tokens are laid out as [B, T, H] again
(copies of rows), after it the real ones are picked. Inputs and outputs of the graph stay as they
are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from instructrec_deploy.export.products import constants_of, replace_nodes

MASK = "attention_mask"
ATTENTION = "MultiHeadAttention"
N_ATTENDED = 3  # queries, keys and values are its first inputs
PLACES, ORDER = "real_tokens", "token_order"
NORM = "LayerNormalization"
# Ops that treat each row by itself, as long as what else they take is a vector or a number.
ROW_OPS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Erf", "Tanh", "Relu", "Sqrt", "Sigmoid"}
    | {"BiasGelu", "FastGelu", "Gelu", "QuickGelu", "Dropout", "Identity", NORM}
)


def unpad_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a float graph whose attention is fused; the argument is left as it was.

    Returns:
        A new model with the same inputs and outputs; the argument itself where its attention has
        another form, or it has no mask of padding.
    """
    graph = model.graph
    names = {value.name for value in graph.input}
    if MASK not in names or not any(node.op_type == ATTENTION for node in graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rewriter = _Rewriter(copy.graph)
    replace_nodes(copy.graph, [*_index_nodes(), *rewriter.nodes()], _index_constants())
    return copy


class _Rewriter:
    """One pass over a graph: which tensors are flat, and where layouts change."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._ranks = {name: len(c.dims) for name, c in constants_of(graph).items()}
        self._flat: dict[str, str] = {}  # a tensor -> its [N, H] form
        self._padded: set[str] = set()  # flat tensors that are laid out as [B, T, H] too
        self._outputs = {value.name for value in graph.output}

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """The graph's nodes anew."""
        for node in self._graph.node:
            if node.op_type == ATTENTION and all(n in self._flat for n in node.input[:N_ATTENDED]):
                for name in node.input[:N_ATTENDED]:
                    yield from self._lay_out(name)
                yield node
                yield self._pick(node.output[0])
            elif not self._flat and node.op_type == NORM:  # that of the embeddings
                yield self._pick(node.input[0])
                yield from self._by_row(node)
            elif self._is_by_row(node):
                yield from self._by_row(node)
            else:
                for name in node.input:
                    yield from self._lay_out(name)
                yield node

    def _is_by_row(self, node: onnx.NodeProto) -> bool:
        flat = [name for name in node.input if name in self._flat]
        others = [self._ranks.get(name) for name in node.input if name and name not in self._flat]
        if node.op_type == "MatMul":
            return node.input[0] in self._flat and others == [2]
        is_small = all(rank is not None and rank <= 1 for rank in others)
        return node.op_type in ROW_OPS and bool(flat) and is_small

    def _by_row(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        flat = onnx.NodeProto()
        flat.CopyFrom(node)
        for place, name in enumerate(node.input):
            flat.input[place] = self._flat.get(name, name)
        output = node.output[0]
        self._flat[output] = flat.output[0] = f"{output}_flat"
        yield flat
        if output in self._outputs:
            yield from self._lay_out(output)

    def _pick(self, name: str) -> onnx.NodeProto:
        """[B, T, H] -> [N, H]."""
        self._flat[name] = f"{name}_flat"
        self._padded.add(name)
        return helper.make_node("GatherND", [name, PLACES], [self._flat[name]])

    def _lay_out(self, name: str) -> Iterator[onnx.NodeProto]:
        """[N, H] -> [B, T, H], once; a place of padding gets a copy of the token before it."""
        if name in self._flat and name not in self._padded:
            self._padded.add(name)
            yield helper.make_node("Gather", [self._flat[name], ORDER], [name])


def _index_nodes() -> list[onnx.NodeProto]:
    """Where the real tokens stand, [N, 2], and which of them stands where, [B, T]."""
    return [
        helper.make_node("NonZero", [MASK], ["real_tokens_by_axis"]),
        helper.make_node("Transpose", ["real_tokens_by_axis"], [PLACES], perm=[1, 0]),
        helper.make_node("Shape", [MASK], ["mask_shape"]),
        helper.make_node("Reshape", [MASK, "unpad_all"], ["mask_line"]),
        helper.make_node("CumSum", ["mask_line", "unpad_first_axis"], ["n_tokens_so_far"]),
        helper.make_node("Sub", ["n_tokens_so_far", "unpad_one"], ["token_order_from_one"]),
        helper.make_node("Max", ["token_order_from_one", "unpad_zero"], ["token_order_line"]),
        helper.make_node("Reshape", ["token_order_line", "mask_shape"], [ORDER]),
    ]


def _index_constants() -> list[onnx.TensorProto]:
    values = {
        "unpad_all": np.array([-1]),
        "unpad_first_axis": np.array(0),
        "unpad_one": np.array(1),
        "unpad_zero": np.array(0),
    }
    return [numpy_helper.from_array(v.astype(np.int64), name) for name, v in values.items()]

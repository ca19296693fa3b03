"""Weights and embeddings to int8; activations to one scale per row, so no row sees its batch.

Shapes: K inner size of a product, N its outputs, V rows of a table, H its width.

ONNX Runtime's dynamic int8 takes one activation scale per tensor: a text's answer then depends on
who shares its batch. Here each row (token) gets its own scale, and integer products are exact, so
a row's result is the same whoever stands beside it.

AVX2 machines multiply unsigned activations by signed weights in *pairs*: two products are added in
16 bits and saturate beyond 32,767. Full 8-bit weights overflow there and nowhere else, so one
bundle would answer differently on different processors. `quantize_columns` therefore chooses the
scale of each column such that no neighbouring pair of weights of one sign exceeds 128 in sum:
255 * 128 = 32,640 cannot overflow. The figures behind the choice: docs/adr/0002-rowwise-int8.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from instructrec_deploy.export.products import (
    MICROSOFT,
    Floats,
    Product,
    as_product,
    constants_of,
    declare_microsoft,
    is_float_matrix,
    replace_nodes,
)
from instructrec_deploy.export.same_rows import same_rows

Bytes = npt.NDArray[np.int8]

OPSET = 21  # the first whose QuantizeLinear knows one scale per row of a [B, T, K] tensor
IR_VERSION = 10  # the file format that goes with opset 21
MAX_WEIGHT = 127
MAX_BYTE = 255  # of an activation
MAX_PAIR = 127  # before rounding; two roundings may add 1, and 255 * 128 < 2^15
ZERO_POINT = 128  # of activations that spread both ways
# GELU is never below -0.17: a low zero point leaves nearly the whole byte to what is above zero.
GELU_ZERO_POINT = 16
# No row is searched for its least value behind these: nearly each comes near GELU's.
LEAST = {"BiasGelu": -0.17, "FastGelu": -0.17, "Gelu": -0.17, "QuickGelu": -0.17, "Relu": 0.0}
MIN_TABLE = 4_096  # numbers in it; a smaller one gains nothing
TINY = 1e-12  # a row of zeros must not divide by zero


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was rewritten."""

    n_products: int
    n_tables: int


def quantize_columns(weight: Floats) -> tuple[Bytes, Floats]:
    """One scale per column, safe in 16-bit pairs.

    Args:
        weight: [K, N] float32.

    Returns:
        [K, N] int8 and [N] float32 scales; `int8 * scale` approximates the weight.
    """
    rows = weight if len(weight) % 2 == 0 else np.pad(weight, ((0, 1), (0, 0)))
    pairs = rows.reshape(-1, 2, rows.shape[1])
    above = np.maximum(pairs, 0.0).sum(axis=1).max(axis=0)
    below = np.maximum(-pairs, 0.0).sum(axis=1).max(axis=0)
    scale = np.maximum(np.abs(weight).max(axis=0) / MAX_WEIGHT, np.maximum(above, below) / MAX_PAIR)
    scale = np.maximum(scale, TINY).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def quantize_rows(table: Floats) -> tuple[Bytes, Floats]:
    """One scale per row of an embedding table.

    Args:
        table: [V, H] float32.

    Returns:
        [V, H] int8 and [V, 1] float32 scales.
    """
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / MAX_WEIGHT, TINY)
    return np.rint(table / scale).astype(np.int8), scale.astype(np.float32)


def quantize_graph(
    model: onnx.ModelProto, *, kept: Collection[str] = ()
) -> tuple[onnx.ModelProto, QuantizeReport]:
    """Rewrite a float graph; the argument is left as it was.

    Products are found by structure (MatMul or Gemm with a constant matrix), tables likewise
    (Gather of rows from a constant matrix); names do not matter.

    Args:
        model: a float graph.
        kept: outputs of products and tables that stay in floats.

    Returns:
        A new model of opset 21 with the same inputs and outputs, and what was rewritten.
    """
    copy = ready_to_rewrite(model)
    return copy, Rewriter(copy, kept).run()


def as_table(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Floats | None:
    """The table [V, H] that a node takes rows from, where it is worth quantizing."""
    if node.op_type != "Gather" or any(a.name == "axis" and a.i != 0 for a in node.attribute):
        return None
    constant = constants.get(node.input[0])
    if constant is None or not is_float_matrix(constant):
        return None
    table = numpy_helper.to_array(constant)
    return table if table.size >= MIN_TABLE else None


def ready_to_rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model, of opset 21 and with ONNX Runtime's own operators allowed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declare_microsoft(copy)
    if next(o.version for o in copy.opset_import if o.domain in ("", "ai.onnx")) < OPSET:
        copy = version_converter.convert_version(copy, OPSET)
    copy.ir_version = max(copy.ir_version, IR_VERSION)
    return copy


class Rewriter:
    """One pass over a graph: products and tables are replaced, all else stays."""

    def __init__(self, model: onnx.ModelProto, kept: Collection[str] = ()) -> None:
        self.kept = kept
        self.graph = model.graph
        self.constants = constants_of(model.graph)
        self.producer = {out: node for node in model.graph.node for out in node.output}
        self.added: list[onnx.TensorProto] = []
        self.quantized: dict[str, tuple[str, str, str]] = {}  # input -> bytes, scale, zero point
        self._zeros: dict[tuple[str, int], str] = {}  # rows, zero point -> a tensor of it for each

    @cached_property
    def _rows(self) -> dict[str, str]:
        return same_rows(self.graph)  # weights alone need none

    def run(self) -> QuantizeReport:
        """Rewrite the graph in place."""
        nodes: list[onnx.NodeProto] = []
        counts: dict[str, int] = defaultdict(int)
        for node in self.graph.node:
            product = as_product(node, self.constants)
            table = as_table(node, self.constants)
            if node.output[0] in self.kept:
                nodes.append(node)
            elif product is not None:
                nodes += self.product_nodes(product)
                counts["products"] += 1
            elif table is not None:
                nodes += self._table_nodes(node, table)
                counts["tables"] += 1
            else:
                nodes.append(node)
        replace_nodes(self.graph, nodes, self.added)
        return QuantizeReport(counts["products"], counts["tables"])

    def product_nodes(self, product: Product) -> list[onnx.NodeProto]:
        """What stands in place of a product."""
        out = product.output
        weight, scale = quantize_columns(product.weight)
        nodes: list[onnx.NodeProto] = []
        source = product.source
        if source not in self.quantized:
            nodes += self._activation_nodes(source, len(weight))
        data, row_scale, zero = self.quantized[source]
        inputs = [
            data,
            self.constant(f"{out}_weight_int8", weight),
            self.constant("int8_one", np.float32(1.0)),
            self.constant(f"{out}_weight_scale", scale),
            zero,
        ]
        plain, scaled = f"{out}_unscaled", f"{out}_unbiased" if product.bias else out
        nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [plain], domain=MICROSOFT))
        nodes.append(helper.make_node("Mul", [plain, row_scale], [scaled]))
        if product.bias:
            nodes.append(helper.make_node("Add", [scaled, product.bias], [out]))
        return nodes

    def _activation_nodes(self, source: str, width: int) -> list[onnx.NodeProto]:
        """Quantize [..., K] with one scale per row; products of one input share it."""
        producer = self.producer.get(source)
        known = LEAST.get(producer.op_type) if producer is not None else None
        zero = ZERO_POINT if known is None else GELU_ZERO_POINT
        last = self.constant("int8_last_axis", np.array([-1], np.int64))
        up = self.constant(f"int8_up_{zero}", np.float32(1.0 / (MAX_BYTE - zero)))
        name, sizes = f"{source}_row", source
        nodes: list[onnx.NodeProto] = []
        if known is not None:
            least = self.constant(f"{name}_least", np.float32(max(-known / zero, TINY)))
        else:
            sizes, least = f"{source}_sizes", self.constant("int8_tiny", np.float32(TINY))
            nodes.append(helper.make_node("Abs", [source], [sizes]))
        nodes += [
            helper.make_node("ReduceMax", [sizes, last], [f"{name}_max"], keepdims=1),
            helper.make_node("Mul", [f"{name}_max", up], [f"{name}_up"]),
            helper.make_node("Max", [f"{name}_up", least], [f"{name}_scale"]),
            *self._zero_nodes(source, zero),
            helper.make_node(
                "QuantizeLinear",
                [source, f"{name}_scale", self._zeros[self._rows_of(source), zero]],
                [f"{name}_uint8"],
                axis=-1,
                block_size=width,
            ),
        ]
        point = self.constant(f"int8_zero_{zero}", np.uint8(zero))
        self.quantized[source] = (f"{name}_uint8", f"{name}_scale", point)
        return nodes

    def _zero_nodes(self, source: str, zero: int) -> list[onnx.NodeProto]:
        """A zero point for each row, of the scale's shape; inputs of equally many rows share it."""
        key = (self._rows_of(source), zero)
        if key in self._zeros:
            return []
        name = self._zeros[key] = f"{source}_row_zeros"
        fill = helper.make_tensor("value", TensorProto.UINT8, [1], [zero])
        return [
            helper.make_node("Shape", [f"{source}_row_scale"], [f"{name}_shape"]),
            helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=fill),
        ]

    def _rows_of(self, source: str) -> str:
        return self._rows.get(source, source)

    def _table_nodes(self, node: onnx.NodeProto, table: Floats) -> list[onnx.NodeProto]:
        out, ids = node.output[0], node.input[1]
        name = node.input[0]
        rows, scale = quantize_rows(table)
        return [
            helper.make_node("Gather", [self.constant(f"{name}_int8", rows), ids], [f"{out}_int8"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_whole"], to=TensorProto.FLOAT),
            helper.make_node(
                "Gather", [self.constant(f"{name}_scale", scale), ids], [f"{out}_scale"]
            ),
            helper.make_node("Mul", [f"{out}_whole", f"{out}_scale"], [out]),
        ]

    def constant(self, name: str, value: npt.NDArray[np.generic] | np.generic) -> str:
        """Add a constant, and return its name."""
        self.added.append(numpy_helper.from_array(np.asarray(value), name))
        return name

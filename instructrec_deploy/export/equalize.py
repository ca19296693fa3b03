"""Take the loud channels out of what products read, before it is quantized.

Shapes: K channels, N outputs of a product.

One scale per row serves a row's largest channel, and a few channels of a layer norm, or of a gated
feed-forward layer, are ten times louder than the rest: they cause nearly all of the int8 error.
Each such channel is divided by a constant and the weights that read it are multiplied by the same,
which changes nothing in float. What makes the tensor takes the division, where the products alone
read it: it costs nothing. The residual path of a post-norm model reads its norms, too: there a
node of its own divides.

Source: arXiv:2211.10438 (SmoothQuant).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.export.products import (
    Floats,
    Product,
    as_product,
    constants_of,
    replace_nodes,
)
from instructrec_deploy.runtime.providers import CPU, open_session

Feed = Mapping[str, npt.NDArray[Any]]
# What leaves channels channels, where as many come out as go in.
ROW_MOVES = frozenset({"Reshape", "Slice"})
NORM_OPS = frozenset({"LayerNormalization", "SkipLayerNormalization"})
# Share of the difficulty moved from activations to weights; of 0.35, 0.5, 0.65 and 0.8 the best on
# both MiniLM and e5 (docs/adr/0002-rowwise-int8.md).
STRENGTH = 0.65
TINY = 1e-6  # a channel that is always zero


def equalize_graph(
    model: onnx.ModelProto, batches: Sequence[Feed], *, work: Path
) -> onnx.ModelProto:
    """Rewrite a float graph; the argument is left as it was.

    Args:
        model: a float graph.
        batches: its inputs for calibration; `attention_mask` says which rows count.
        work: a folder for the temporary graph.

    Returns:
        A new model that computes the same.
    """
    if not batches:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    equalizer = _Equalizer(copy.graph)
    sources = equalizer.sources()
    if not sources:
        return model
    loudness = _loudness(model, list(sources), batches, work)
    # From the last to the first: a weight that takes a division is read divided by its own source.
    for source, place in reversed(sources.items()):
        equalizer.equalize(source, place, loudness[source])
    equalizer.finish()
    return copy


def channel_factors(loudness: Floats, weight_size: Floats) -> Floats:
    """What to divide each channel by.

    Args:
        loudness: [K] largest absolute value seen in each channel.
        weight_size: [K] largest absolute weight that reads it.

    Returns:
        [K] float32 with geometric mean 1.
    """
    raw = np.log(np.maximum(loudness, TINY)) * STRENGTH
    raw -= np.log(np.maximum(weight_size, TINY)) * (1.0 - STRENGTH)
    factors: Floats = np.exp(raw - raw.mean()).astype(np.float32)
    return factors


@dataclass(frozen=True, slots=True)
class _Place:
    """What takes a division of channels; nothing named: a node of its own."""

    vectors: tuple[str, ...] = ()  # constants [K] of the node that makes the source
    product: str = ""  # the output of a product whose columns become the channels


class _Equalizer:
    """One graph whose products get quieter sources; `finish` writes it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = constants_of(graph)
        self.outputs = {output.name for output in graph.output}
        self.producers = {out: node for node in graph.node for out in node.output}
        # Outputs of the nodes that read a tensor's values, not its shape alone.
        self.readers: dict[str, list[str]] = defaultdict(list)
        for node in graph.node:
            for name in node.input if node.op_type != "Shape" else ():
                self.readers[name].append(node.output[0])
        found = (as_product(node, self.constants) for node in graph.node)
        self.products = {p.output: p for p in found if p is not None}
        self.sources_of = {p.output: self._source(p) for p in self.products.values()}
        self.weights: dict[str, Floats] = {}  # [K, N] by product, where it is another one now
        self.vectors: dict[tuple[str, str], Floats] = {}  # by node and constant, likewise
        self.added: dict[str, Floats] = {}  # by source: what a node of its own multiplies with

    def sources(self) -> dict[str, _Place]:
        """What can be equalized, in the graph's order, and what takes the division."""
        found: dict[str, _Place] = {}
        for out, product in self.products.items():
            source = self.sources_of[out]
            place = self._place(source, len(product.weight))
            if place is not None:
                found[source] = place
        return found

    def equalize(self, source: str, place: _Place, loudness: Floats) -> None:
        """Divide the channels of a source, and multiply the weights that read it."""
        read = [out for out, theirs in self.sources_of.items() if theirs == source]
        size = np.max([np.abs(self._weight(out)).max(axis=1) for out in read], axis=0)
        factor = channel_factors(loudness, size)
        for out in read:
            self.weights[out] = self._weight(out) * factor[:, None]
        if place.product:
            self.weights[place.product] = self._weight(place.product) / factor
        elif place.vectors:
            for name in place.vectors:
                vector: Floats = numpy_helper.to_array(self.constants[name])
                self.vectors[source, name] = vector / factor
        else:
            self.added[source] = 1.0 / factor

    def finish(self) -> None:
        """Write all that changed into the graph."""
        constants: list[onnx.TensorProto] = []

        def constant(name: str, value: Floats) -> str:
            constants.append(numpy_helper.from_array(value.astype(np.float32), name))
            return name

        renamed = {
            (out, name): constant(f"{out}_{name}_equal", vector)
            for (out, name), vector in self.vectors.items()
        }
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            out = node.output[0]
            if out in self.weights:
                product = self.products[out]
                source = product.source + ("_equal" if product.source in self.added else "")
                weight = constant(f"{out}_equal_weight", self.weights[out])
                nodes += _product_nodes(product, source, weight)
                continue
            for place, name in enumerate(node.input):
                node.input[place] = renamed.get((out, name), name)
            nodes.append(node)
            for name in node.output:
                if name in self.added:
                    factor = constant(f"{name}_factor", self.added[name])
                    nodes.append(helper.make_node("Mul", [name, factor], [f"{name}_equal"]))
        replace_nodes(self.graph, nodes, constants)

    def _weight(self, out: str) -> Floats:
        return self.weights.get(out, self.products[out].weight)

    def _source(self, product: Product) -> str:
        """What a product reads; rows of a norm that were put elsewhere are the norm's."""
        node = self.producers.get(product.source)
        if node is None or node.op_type not in ROW_MOVES:
            return product.source
        origin, width = node.input[0], len(product.weight)
        is_norm = self._vectors(origin, width) and self._is_read_by_products_alone(origin, width)
        return origin if is_norm else product.source

    def _vectors(self, source: str, width: int) -> tuple[str, ...]:
        """The constants [K] that a source's channels are multiplied with and added to, if any."""
        node = self.producers.get(source)
        if node is None or node.op_type not in ("LayerNormalization", "Mul"):
            return ()
        vectors = tuple(name for name in node.input if self._is_vector(name, width))
        return vectors if len(vectors) == len(node.input) - 1 else ()

    def _place(self, source: str, width: int) -> _Place | None:
        """What takes the division of a source's channels; None: nothing that is worth it."""
        node = self.producers.get(source)
        if node is None:
            return None
        if self._is_read_by_products_alone(source, width):
            if vectors := self._vectors(source, width):
                return _Place(vectors=vectors)
            for name in node.input if node.op_type in ("Mul", "Relu") else ():
                if self._is_columns_of_its_own(name, source):
                    return _Place(product=name)
        return _Place() if node.op_type in NORM_OPS else None

    def _is_read_by_products_alone(self, source: str, width: int) -> bool:
        """Whether nothing else reads a tensor's channels, of which there are `width`.

        The width is known where constants have it, and only then are rows followed elsewhere.
        """
        readers = set(self.readers[source])
        moves: set[str] = set()
        if self._vectors(source, width):
            moves = {out for out in readers if self.producers[out].op_type in ROW_MOVES}
            readers = (readers - moves).union(*(self.readers[out] for out in moves))
        return not self.outputs & {source, *moves} and all(
            out in self.products and len(self.products[out].weight) == width for out in readers
        )

    def _is_columns_of_its_own(self, name: str, source: str) -> bool:
        product = self.products.get(name)
        return product is not None and not product.bias and self.readers[name] == [source]

    def _is_vector(self, name: str, width: int) -> bool:
        constant = self.constants.get(name)
        return constant is not None and list(constant.dims) == [width]


def _loudness(
    model: onnx.ModelProto, names: list[str], batches: Sequence[Feed], work: Path
) -> dict[str, Floats]:
    """Run the batches and keep each channel's largest absolute value, padding left out."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    present = {output.name for output in probe.graph.output}
    probe.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n not in present
    )
    path = work / "calibration.onnx"
    onnx.save(probe, path)
    largest: dict[str, Floats] = {}
    try:
        session = open_session(path, providers=[CPU], n_threads=1)
        for batch in batches:
            is_text = batch["attention_mask"] > 0
            for name, values in zip(names, session.run(names, dict(batch)), strict=True):
                # The mask of a text that is read says nothing of the tokens that are written.
                rows = values.reshape(-1, values.shape[-1]) if is_text.all() else values[is_text]
                loud = np.abs(rows).max(axis=0)
                largest[name] = np.maximum(largest.get(name, loud), loud)
    finally:
        path.unlink(missing_ok=True)
    return largest


def _product_nodes(product: Product, source: str, weight: str) -> list[onnx.NodeProto]:
    if not product.bias:
        return [helper.make_node("MatMul", [source, weight], [product.output])]
    plain = f"{product.output}_unbiased"
    return [
        helper.make_node("MatMul", [source, weight], [plain]),
        helper.make_node("Add", [plain, product.bias], [product.output]),
    ]

"""Take the loud channels out of layer-norm outputs before they are quantized.

Shapes: K channels, N outputs of a product.

One scale per row serves a row's largest channel, and layer norms of BERT-like models have a few
channels ten times louder than the rest: on MiniLM they cause nearly all of the int8 error. Each
such channel is divided by a constant and the weights that read it are multiplied by the same, which
changes nothing in float and costs one product per layer norm.

Source: arXiv:2211.10438 (SmoothQuant); ours divides in a node of its own, because the residual
path of a post-norm model reads the same tensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

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

Ints = npt.NDArray[np.int64]
NORM_OPS = frozenset({"LayerNormalization", "SkipLayerNormalization"})
# Share of the difficulty moved from activations to weights; of 0.35, 0.5, 0.65 and 0.8 the best on
# both MiniLM and e5 (docs/adr/0002-rowwise-int8.md).
STRENGTH = 0.65
TINY = 1e-6  # a channel that is always zero


def equalize_graph(
    model: onnx.ModelProto, batches: Sequence[Mapping[str, Ints]], *, work: Path
) -> onnx.ModelProto:
    """Rewrite a float graph; the argument is left as it was.

    Args:
        model: a float graph.
        batches: its inputs for calibration; `attention_mask` says which rows count.
        work: a folder for the temporary graph.

    Returns:
        A new model that computes the same.
    """
    sources = _products_after_norms(model.graph)
    if not sources or not batches:
        return model
    loudness = _loudness(model, list(sources), batches, work)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    added: list[onnx.TensorProto] = []
    products: dict[str, tuple[Product, Floats]] = {}
    for source, found in sources.items():
        weight_size = np.max([np.abs(p.weight).max(axis=1) for p in found], axis=0)
        factor = channel_factors(loudness[source], weight_size)
        added.append(numpy_helper.from_array(1.0 / factor, f"{source}_factor"))
        products.update({p.output: (p, factor) for p in found})
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.output[0] in products:
            product, factor = products[node.output[0]]
            name = f"{product.output}_equal"
            added.append(numpy_helper.from_array(product.weight * factor[:, None], name))
            nodes += _product_nodes(product, name)
        else:
            nodes.append(node)
        nodes += [
            helper.make_node("Mul", [out, f"{out}_factor"], [f"{out}_equal"])
            for out in node.output
            if out in sources
        ]
    replace_nodes(copy.graph, nodes, added)
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


def _products_after_norms(graph: onnx.GraphProto) -> dict[str, list[Product]]:
    constants = constants_of(graph)
    normed = {n.output[0] for n in graph.node if n.op_type in NORM_OPS}
    found: dict[str, list[Product]] = defaultdict(list)
    for node in graph.node:
        product = as_product(node, constants)
        if product is not None and product.source in normed:
            found[product.source].append(product)
    return dict(found)


def _loudness(
    model: onnx.ModelProto, names: list[str], batches: Sequence[Mapping[str, Ints]], work: Path
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
                loud = np.abs(values[is_text]).max(axis=0)
                largest[name] = np.maximum(largest.get(name, loud), loud)
    finally:
        path.unlink(missing_ok=True)
    return largest


def _product_nodes(product: Product, weight: str) -> list[onnx.NodeProto]:
    source = f"{product.source}_equal"
    if not product.bias:
        return [helper.make_node("MatMul", [source, weight], [product.output])]
    plain = f"{product.output}_unbiased"
    return [
        helper.make_node("MatMul", [source, weight], [plain]),
        helper.make_node("Add", [plain, product.bias], [product.output]),
    ]

"""Weights alone to 8 or 4 bit, in blocks; activations stay floats.

Shapes: K inner size of a product, N its outputs, G blocks of a column.

ONNX Runtime's MatMulNBits restores a block of weights when it multiplies with it. It saves memory
and its traffic, which is what a decoder waits for; it saves no arithmetic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from instructrec_deploy.export.products import MICROSOFT, Floats, Product
from instructrec_deploy.export.quantize import TINY, QuantizeReport, Rewriter, ready_to_rewrite

Bytes = npt.NDArray[np.uint8]
BLOCK = 32  # weights that share a scale
FLOAT_ARITHMETIC = 1  # accuracy_level: activations are not rounded, so no row sees another


def quantize_blocks(weight: Floats, bits: int) -> tuple[Bytes, Floats]:
    """One scale for each block of a column.

    Args:
        weight: [K, N] float32.
        bits: 8 or 4.

    Returns:
        [N, G, 32 * bits / 8] uint8, of 4 bits the first of two in the low half; [N, G] float32
        scales. `(byte - 2 ** (bits - 1)) * scale` approximates the weight; the last block is
        filled up with zeros.
    """
    n_inner, n_outputs = weight.shape
    padded = np.pad(weight.T, ((0, 0), (0, -n_inner % BLOCK))).reshape(n_outputs, -1, BLOCK)
    zero = 2 ** (bits - 1)
    # The value farthest from zero takes the lowest step, which there is one more of.
    farthest = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[..., None], axis=2)
    scale = (farthest / -zero).astype(np.float32)
    safe = np.where(np.abs(scale) < TINY, 1.0, scale)
    steps = np.clip(np.rint(padded / safe) + zero, 0, 2 * zero - 1).astype(np.uint8)
    if bits == 4:
        steps = steps[..., ::2] | (steps[..., 1::2] << 4)
    return steps, scale[..., 0]


def quantize_weights(
    model: onnx.ModelProto, *, bits: int, n_words: int = 0
) -> tuple[onnx.ModelProto, QuantizeReport]:
    """Rewrite a float graph; the argument is left as it was.

    Args:
        model: of 32-bit floats.
        bits: 8 or 4, of the weights of products; embedding tables get 8, one scale per row.
        n_words: outputs of the product that chooses a token, which gets 8 bits in any case; 0
            where there is none.

    Returns:
        A new model with the same inputs and outputs, and what was rewritten.
    """
    copy = ready_to_rewrite(model)
    return copy, _WeightRewriter(copy, bits, n_words).run()


class _WeightRewriter(Rewriter):
    def __init__(self, model: onnx.ModelProto, bits: int, n_words: int) -> None:
        super().__init__(model)
        self._bits = bits
        self._n_words = n_words

    def product_nodes(self, product: Product) -> list[onnx.NodeProto]:
        n_inner, n_outputs = product.weight.shape
        bits = 8 if n_outputs == self._n_words else self._bits
        steps, scale = quantize_blocks(product.weight, bits)
        out = product.output
        result = f"{out}_unbiased" if product.bias else out
        node = helper.make_node(
            "MatMulNBits",
            [
                product.source,
                self.constant(f"{out}_weight_int{bits}", steps),
                self.constant(f"{out}_weight_scale", scale),
            ],
            [result],
            domain=MICROSOFT,
            K=n_inner,
            N=n_outputs,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=FLOAT_ARITHMETIC,
        )
        if not product.bias:
            return [node]
        return [node, helper.make_node("Add", [result, product.bias], [out])]

"""OpenVINO as this project uses it: the same graphs as ONNX Runtime, lowered while they are read.

The only file that imports openvino, and it does so when it is asked to.

Shapes: N rows, K inner size of a product, M its outputs.

OpenVINO reads no QuantizeLinear with one scale per row of a dynamic size, and no
MatMulIntegerToFloat without it. Both are said in other words here: a row divided by its scale,
rounded to the numbers 0 to 255, and a product with int8 weights, which OpenVINO does in whole
numbers. What the zero point adds to a sum is a constant of the weights and is taken off again. So
the scales are those of the row, and a row does not see its neighbours.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.core.errors import BundleError, MissingExtra

TELEMETRY = "openvino_telemetry"
MAX_BYTE = 255
MICROSOFT = "com.microsoft"
ERRORS = (RuntimeError, TypeError, ValueError)  # what its Python binding raises


def load_openvino() -> Any:
    """The openvino module, which is kept from reporting its import to a server.

    Raises:
        MissingExtra: it is not installed.
    """
    is_silenced = "openvino" not in sys.modules and TELEMETRY not in sys.modules
    if is_silenced:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # "cannot be imported"
    try:
        import openvino
        import openvino.frontend.onnx
        import openvino.opset13
    except ImportError as error:
        raise MissingExtra(
            "openvino is not installed",
            hint="pip install 'instructrec-deploy[openvino]', or set engine.runtime to onnxruntime",
        ) from error
    finally:
        if is_silenced:
            del sys.modules[TELEMETRY]
    return openvino


@dataclass(frozen=True, slots=True)
class Output:
    """What a graph gives."""

    name: str


class OpenVinoSession:
    """One graph, open. Safe to share between threads: each call takes a request of its own.

    Args:
        compiled: a compiled model.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: deque[Any] = deque()

    def get_outputs(self) -> list[Output]:
        """The outputs, as a session of ONNX Runtime tells them."""
        return [Output(output.get_any_name()) for output in self._compiled.outputs]

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """The outputs of these names; arrays of their own.

        Raises:
            RuntimeError, TypeError, ValueError: as OpenVINO.
        """
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer(feed, share_inputs=True)
        found = [request.get_tensor(name).data.copy() for name in names]
        self._idle.append(request)
        return found


def open_session(path: Path, *, n_threads: int, n_streams: int) -> OpenVinoSession:
    """Open one graph.

    Args:
        path: an ONNX file of a bundle.
        n_threads: threads inside one operator.
        n_streams: calls that compute at a time.

    Raises:
        BundleError: not a graph that OpenVINO can run.
        MissingExtra: it is not installed.
    """
    ov = load_openvino()
    core = _core()
    options = {
        "NUM_STREAMS": n_streams,
        "INFERENCE_NUM_THREADS": n_streams * n_threads,
        "ENABLE_CPU_PINNING": False,
        # Left to itself it computes in 16-bit floats where the processor can: other scores.
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    try:
        model = core.read_model(path)
        _seek_both_ends(ov, model)
        return OpenVinoSession(core.compile_model(model, "CPU", options))
    except ERRORS as error:
        raise BundleError(
            f"{path.name}: OpenVINO {ov.__version__.partition('-')[0]} cannot open it",
            hint="set engine.runtime to onnxruntime, or export the bundle again",
        ) from error


def _seek_both_ends(ov: Any, model: Any) -> None:
    """Say "the largest absolute value" as "the greatest value or the least, negated", in place.

    The same number, and no copy of the row: int8 graphs are 1 to 4 % faster, where ONNX Runtime is
    faster with the copy.
    """
    op = ov.opset13
    for node in model.get_ordered_ops():
        source = node.input_value(0).get_node() if node.get_type_name() == "ReduceMax" else None
        if source is None or source.get_type_name() != "Abs":
            continue
        row, axes, keeps = source.input_value(0), node.input_value(1), node.get_keep_dims()
        least = op.negative(op.reduce_min(row, axes, keeps))
        both = op.maximum(op.reduce_max(row, axes, keeps), least)
        ov.utils.replace_node(node, both)


@cache
def _core() -> Any:
    """The one Core of this process, which is never given up.

    Its CPU plugin gives the thread that loads it an alternate signal stack and takes it back when
    the Core is gone. With several that go in another order than they came, the thread is left with
    a stack that is no longer memory (openvino/src/plugins/intel_cpu/src/plugin.cpp,
    SigAltStackSetup), and the next signal kills the process: SIGTERM would end a server that
    swapped models without a drain.
    """
    ov = load_openvino()
    core = ov.Core()
    for extension in _extensions(ov):
        core.add_extension(extension)
    return core


def _extensions(ov: Any) -> list[Any]:
    """How the operators of export/quantize.py are read."""
    op = ov.opset13

    def number(value: float) -> Any:
        return op.constant(np.float32(value))

    def quantize(node: Any) -> list[Any]:
        """[N, K] floats, [N, 1] scales -> [N, K] whole numbers, still of type float."""
        zeros = node.get_input(2).get_node()
        if not node.get_attribute("block_size", 0) or zeros.get_type_name() != "Broadcast":
            raise ValueError("a QuantizeLinear that is not by rows")
        zero = float(zeros.input_value(0).get_node().data.reshape(-1)[0])
        steps = op.add(op.divide(node.get_input(0), node.get_input(1)), number(zero))
        low, high = number(0), number(MAX_BYTE)
        return list(op.fake_quantize(steps, low, high, low, high, MAX_BYTE + 1).outputs())

    def multiply(node: Any) -> list[Any]:
        """[N, K] whole numbers, [K, M] int8 -> [N, M], not yet times the rows' scales."""
        weight, scale, zero = (node.get_input(at).get_node().data for at in (1, 3, 4))
        scale = scale.reshape(1, -1).astype(np.float32)
        matrix = op.multiply(op.convert(op.constant(weight), "f32"), op.constant(scale))
        sums = weight.sum(axis=0, dtype=np.int64).reshape(1, -1) * -int(zero.reshape(-1)[0])
        shift = op.constant((sums * scale).astype(np.float32))
        product = op.matmul(node.get_input(0), matrix, False, False)
        return list(op.add(product, shift).outputs())

    convert = ov.frontend.onnx.ConversionExtension
    return [
        convert("QuantizeLinear", "", quantize),
        convert("MatMulIntegerToFloat", MICROSOFT, multiply),
    ]

"""A model that came as an ONNX graph, as Optimum exports them: read as it is, and made ours.

The graph as it came is the truth that the bundle is held against; the bundle gets it with the
inputs and outputs that bundles have.

Shapes: B rows, T tokens, L labels or tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.models.pair_classifier import token_types
from instructrec_deploy.runtime.providers import CPU, available_cores, open_session

ONNX_FILE = "model.onnx"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
ANSWERS = ("start_logits", "end_logits")  # of a question-answering head
MIN_OPSET = 13  # the first whose Unsqueeze takes its axes as an input


class OnnxModel(nn.Module):
    """The graph as it came, run by ONNX Runtime.

    Args:
        path: the file.
        separator_id: what stands between two texts, where the graph wants token types.

    Raises:
        BundleError: ONNX Runtime cannot open it.
        ConfigError: it is no encoder with a head, as Optimum exports them.
    """

    def __init__(self, path: Path, *, separator_id: int) -> None:
        super().__init__()
        self.path = path
        self.separator_id = separator_id
        self._session = open_session(path, providers=[CPU], n_threads=available_cores())
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._outputs = outputs_of([one.name for one in self._session.get_outputs()], path)
        check_inputs(self._inputs, path)
        graph = onnx.load(path, load_external_data=False).graph
        self.n_weights = sum(
            int(np.prod(one.dims))
            for one in graph.initializer
            if one.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """[B, T] int64 ids and mask -> logits [B, L], or of each token [B, T, L]."""
        feed = {IDS: input_ids, MASK: attention_mask}
        if TYPES in self._inputs:
            feed[TYPES] = token_types(input_ids, attention_mask, self.separator_id)
        found = self._session.run(self._outputs, {name: one.numpy() for name, one in feed.items()})
        return (torch.from_numpy(found[0] if len(found) == 1 else np.stack(found, axis=-1)),)


def outputs_of(names: Sequence[str], path: Path) -> list[str]:
    """The outputs that hold a head's logits.

    Raises:
        ConfigError: there are none.
    """
    if "logits" in names:
        return ["logits"]
    if set(ANSWERS) <= set(names):
        return list(ANSWERS)
    raise ConfigError(
        f"{path}: its outputs are {', '.join(names)}, wanted logits or start_logits and end_logits",
        hint="graphs of text-classification, token-classification and question-answering are "
        "imported; of other models import the weights",
    )


def check_inputs(names: Sequence[str], path: Path) -> None:
    """Let only graphs pass that read ids, a mask, and perhaps token types.

    Raises:
        ConfigError: it wants something else, or no mask.
    """
    if not {IDS, MASK} <= set(names) <= {IDS, MASK, TYPES}:
        raise ConfigError(
            f"{path}: its inputs are {', '.join(names)}, wanted {IDS} and {MASK}, perhaps {TYPES}",
            hint="graphs of text-classification, token-classification and question-answering are "
            "imported",
        )


def adapt_graph(model: OnnxModel) -> onnx.ModelProto:
    """The graph with a bundle's inputs and outputs: ids and mask in, `logits` out.

    Token types follow from the ids, as in `token_types`; logits of first and last token of an
    answer become one tensor.
    """
    graph_file: onnx.ModelProto = onnx.load(model.path)
    graph = graph_file.graph
    _name_axes(graph)
    if any(one.name == TYPES for one in graph.input):
        _derive_types(graph, model.separator_id)
    if not any(one.name == "logits" for one in graph.output):
        _join_answers(graph)
    others = [one for one in graph.output if one.name != "logits"]
    for one in others:
        graph.output.remove(one)
    return graph_file


def _derive_types(graph: onnx.GraphProto, separator_id: int) -> None:
    """Nodes in place of the third input: 1 behind the first separator, where there is a token."""
    for one in [one for one in graph.input if one.name == TYPES]:
        graph.input.remove(one)
    name = "types_of_ids"
    constants = {"separator": separator_id, "one": 1, "axis": 1}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"{name}_{key}")
        for key, value in constants.items()
    )
    is_separator, separators = f"{name}_is_separator", f"{name}_separators"
    so_far, before, behind = (f"{name}_{part}" for part in ("so_far", "before", "behind"))
    made = [
        helper.make_node("Equal", [IDS, f"{name}_separator"], [is_separator]),
        helper.make_node("Cast", [is_separator], [separators], to=TensorProto.INT64),
        helper.make_node("CumSum", [separators, f"{name}_axis"], [so_far]),
        helper.make_node("Sub", [so_far, separators], [before]),
        helper.make_node("Min", [before, f"{name}_one"], [behind]),
        helper.make_node("Mul", [behind, MASK], [TYPES]),
    ]
    for place, node in enumerate(made):
        graph.node.insert(place, node)


def _join_answers(graph: onnx.GraphProto) -> None:
    """start_logits, end_logits [B, T] -> logits [B, T, 2]."""
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "answers_axis"))
    for name in ANSWERS:
        graph.node.append(helper.make_node("Unsqueeze", [name, "answers_axis"], [f"{name}_column"]))
    columns = [f"{name}_column" for name in ANSWERS]
    graph.node.append(helper.make_node("Concat", columns, ["logits"], axis=-1))
    graph.output.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 2])
    )


def _name_axes(graph: onnx.GraphProto) -> None:
    """Batch and length of the inputs by the names that our own graphs give them."""
    for one in graph.input:
        for axis, name in zip(one.type.tensor_type.shape.dim, ("batch", "tokens"), strict=False):
            axis.dim_param = name


def check_opset(path: Path) -> None:
    """Refuse graphs in which the added nodes would mean something else, or that are in parts.

    Raises:
        ConfigError: it is such a one.
    """
    model = onnx.load(path, load_external_data=False)
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    is_in_parts = any(one.data_location == TensorProto.EXTERNAL for one in model.graph.initializer)
    if version < MIN_OPSET or is_in_parts:
        raise ConfigError(
            f"{path}: opset {version}{', weights in a file of their own' if is_in_parts else ''}",
            hint=f"export it again, with opset {MIN_OPSET} or newer, in one file",
        )

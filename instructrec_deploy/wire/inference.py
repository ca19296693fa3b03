"""The Open Inference Protocol on the wire: its tensors and parameters as a batch of our own.

A ModelInfer is read as a `PredictBatchRequest`, so that every rule about texts and questions
stands where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructrec_deploy.core.errors import TensorInvalid
from instructrec_deploy.core.instruction import check_count
from instructrec_deploy.core.question import read_question
from instructrec_deploy.core.request import MAX_TOP_K, Question
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.status import Limits
from instructrec_deploy.pb.inference import open_inference_pb2 as oip
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import check_items, write_question
from instructrec_deploy.wire.tensors import (
    FLOATS,
    STRINGS,
    StringTensor,
    pack_floats,
    pack_strings,
)

INFERENCE_SERVICE = "inference.GRPCInferenceService"
PLATFORM = "instructrec"
INPUTS = ("text", "text2", "instruction", "task", "candidates")
OUTPUTS = {"label": STRINGS, "score": FLOATS, "answer": STRINGS}
TRITON_TYPES = {STRINGS: 13, FLOATS: 11}  # numbers of its DataType
WORDS, NUMBERS = ("string_param",), ("int64_param", "uint64_param")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "task": WORDS,
    "instruction": WORDS,
    "candidates": WORDS,  # a JSON list
    "text2": WORDS,
    "prepared_id": WORDS,
    "kind": WORDS,
    "decision": WORDS,
    "none_label": WORDS,
    "threshold": ("double_param", *NUMBERS),
    "top_k": NUMBERS,
    "explain": ("bool_param",),
}
# What clients of other servers send along, and what means nothing here.
FOREIGN = frozenset(("sequence_id", "sequence_start", "sequence_end", "priority", "timeout"))
FOREIGN_PREFIX = "triton_"
NOT_SERVED = ("shared_memory_region", "classification")  # of a tensor


@dataclass(frozen=True, slots=True)
class Infer:
    """A ModelInfer, understood: what is asked, and how the answer is to look."""

    batch: pb.PredictBatchRequest
    shape: tuple[int, ...]  # of the texts and so of every output
    outputs: tuple[str, ...]
    id: str = ""


def read_infer(message: oip.ModelInferRequest, limits: Limits) -> Infer:
    """A ModelInfer as a batch; its texts and questions are not checked yet.

    Raises:
        TensorInvalid: a tensor or a parameter is unknown, or does not fit.
        TextUndecodable: an element is not UTF-8.
        TooManyLabels, RequestError: past the limits, or two ways of asking at once.
    """
    outputs = _read_outputs(message)
    given = _read_parameters(message.parameters)
    inputs = _read_inputs(message, given)
    text = inputs.get("text")
    if text is None:
        raise TensorInvalid("there is no input text", hint="send a BYTES tensor named text")
    if len(text.shape) > 1 and text.shape[1] != 1:
        raise TensorInvalid("the shape of text is not [n] or [n, 1]", hint="one text a row")
    check_items(text.n_items, limits)
    columns = _Columns(inputs, given, text.n_items)
    asked = list(
        zip(
            columns.words("instruction"),
            columns.words("task"),
            columns.candidates(limits.max_candidates),
            strict=True,
        )
    )
    # Candidates that all texts share are one object: hashing them for each text would take long.
    keys = [(words, task, id(candidates)) for words, task, candidates in asked]
    questions = dict(zip(keys, asked, strict=True))
    made = {key: _write_question(*parts, given) for key, parts in questions.items()}
    batch = pb.PredictBatchRequest(questions=made.values() if len(made) == 1 else ())
    rest = {name: given[name] for name in ("top_k", "explain") if name in given}
    for row, key, text2 in zip(text.strings(), keys, columns.words("text2"), strict=True):
        request = batch.requests.add(text=row, text2=text2, **rest)
        if len(made) > 1:
            request.questions.append(made[key])
    return Infer(batch, text.shape, outputs, message.id)


def write_infer(infer: Infer, predictions: Sequence[Prediction]) -> oip.ModelInferResponse:
    """The answer to a ModelInfer: one element of each output for each text, in order."""
    values = {
        "label": lambda: pack_strings(p.label for p in predictions),
        "score": lambda: pack_floats([p.score for p in predictions]),
        "answer": lambda: pack_strings(
            json.dumps(p.to_dict(), ensure_ascii=False) for p in predictions
        ),
    }
    message = oip.ModelInferResponse(
        model_name=predictions[0].model, model_version=predictions[0].model_version, id=infer.id
    )
    for name in infer.outputs:
        message.outputs.add(name=name, datatype=OUTPUTS[name], shape=infer.shape)
        message.raw_output_contents.append(values[name]())
    return message


def write_metadata(name: str, version: str) -> oip.ModelMetadataResponse:
    """What a model takes and gives. Of the inputs only `text` is needed."""
    message = oip.ModelMetadataResponse(name=name, versions=[version], platform=PLATFORM)
    for tensor in INPUTS:
        message.inputs.add(name=tensor, datatype=STRINGS, shape=[-1])
    for tensor, datatype in OUTPUTS.items():
        message.outputs.add(name=tensor, datatype=datatype, shape=[-1])
    return message


def write_config(name: str, limits: Limits) -> oip.ModelConfigResponse:
    """The same for tools that plan a load by it."""
    message = oip.ModelConfigResponse()
    config = message.config
    config.name, config.platform, config.backend = name, PLATFORM, PLATFORM
    config.max_batch_size = limits.max_batch_items
    for tensor in INPUTS:
        config.input.add(
            name=tensor, data_type=TRITON_TYPES[STRINGS], dims=[1], optional=tensor != "text"
        )
    for tensor, datatype in OUTPUTS.items():
        config.output.add(name=tensor, data_type=TRITON_TYPES[datatype], dims=[1])
    return message


class _Columns:
    """What stands beside the texts, a value for each of them."""

    def __init__(
        self, inputs: Mapping[str, StringTensor], given: Mapping[str, Any], n_rows: int
    ) -> None:
        self._inputs = inputs
        self._given = given
        self._n_rows = n_rows

    def words(self, name: str) -> list[str]:
        """An input of one element or one for each text, or a parameter."""
        tensor = self._inputs.get(name)
        if tensor is None:
            return [self._given.get(name, "")] * self._n_rows
        if tensor.n_items not in (1, self._n_rows):
            raise TensorInvalid(
                f"{name} has {tensor.n_items} elements for {self._n_rows} texts",
                hint="send one for all texts, or one for each",
            )
        found = tensor.strings()
        return found if len(found) == self._n_rows else found * self._n_rows

    def candidates(self, max_candidates: int) -> list[tuple[str, ...] | None]:
        """[k] for all texts, or [n, k]: of each row those that are not empty; None: not given."""
        tensor = self._inputs.get("candidates")
        if tensor is None:
            return [self._given.get("candidates")] * self._n_rows
        n_rows, width = (1, *tensor.shape)[-2:]
        check_count(width, max_candidates)
        if n_rows not in (1, self._n_rows) or (width == 1 and n_rows > 1):
            raise TensorInvalid(
                "candidates are neither [k] nor, for each text, [n, k] with more than one of them",
                hint="send those of all texts as a tensor of shape [k]",
            )
        found = tensor.strings()
        if len(tensor.shape) == 1:
            return [tuple(found)] * self._n_rows
        rows: list[tuple[str, ...] | None] = [
            tuple(word for word in found[at * width : (at + 1) * width] if word) or None
            for at in range(n_rows)
        ]
        return rows if n_rows == self._n_rows else rows * self._n_rows


def _write_question(
    words: str, task: str, candidates: tuple[str, ...] | None, given: Mapping[str, Any]
) -> pb.Question:
    asked = read_question(
        instruction=words or None,
        candidates=candidates,
        task=task,
        prepared_id=given.get("prepared_id", ""),
        decision=given.get("decision", ""),
        threshold=given.get("threshold"),
        none_label=given.get("none_label", ""),
    )
    message = write_question(asked if isinstance(asked, Question) else asked.as_question())
    if given.get("kind"):
        if not message.HasField("instruction"):
            raise TensorInvalid(
                "a kind came without an instruction or candidates",
                hint="a task and a prepared instruction have their own",
            )
        message.instruction.kind = given["kind"]
    return message


def _read_inputs(
    message: oip.ModelInferRequest, given: Mapping[str, Any]
) -> dict[str, StringTensor]:
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise TensorInvalid(
            f"{len(raws)} raw contents for {len(message.inputs)} inputs",
            hint="send all contents raw, or none",
        )
    found: dict[str, StringTensor] = {}
    for i, tensor in enumerate(message.inputs):
        if tensor.name not in INPUTS:
            raise TensorInvalid(f"input {i} is unknown", hint=f"there are: {', '.join(INPUTS)}")
        if tensor.name in found or given.get(tensor.name):
            raise TensorInvalid(f"{tensor.name} came twice", hint="send it once")
        _refuse_extensions(tensor.parameters, tensor.name)
        if tensor.datatype != STRINGS:
            raise TensorInvalid(f"{tensor.name} is not of type BYTES", hint="send its UTF-8 bytes")
        if raws and tensor.HasField("contents"):
            raise TensorInvalid(
                f"{tensor.name} has raw contents and others", hint="send all contents raw, or none"
            )
        raw = raws[i] if raws else None
        found[tensor.name] = StringTensor(
            tensor.name, tuple(tensor.shape), raw, tensor.contents.bytes_contents
        )
    return found


def _read_outputs(message: oip.ModelInferRequest) -> tuple[str, ...]:
    for i, tensor in enumerate(message.outputs):
        if tensor.name not in OUTPUTS:
            raise TensorInvalid(f"output {i} is unknown", hint=f"there are: {', '.join(OUTPUTS)}")
        _refuse_extensions(tensor.parameters, tensor.name)
    return tuple(dict.fromkeys(tensor.name for tensor in message.outputs)) or tuple(OUTPUTS)


def _refuse_extensions(parameters: Mapping[str, oip.InferParameter], tensor: str) -> None:
    for name in NOT_SERVED:
        if name in parameters:
            raise TensorInvalid(
                f"{name} of {tensor} is not served",
                hint="send contents in the message; the output answer has all scores",
            )


def _read_parameters(parameters: Mapping[str, oip.InferParameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        wanted = PARAMETERS.get(name)
        if wanted is None:
            if name in FOREIGN or name.startswith(FOREIGN_PREFIX):
                continue
            raise TensorInvalid(
                "a parameter is unknown", hint=f"there are: {', '.join(PARAMETERS)}"
            )
        kind = value.WhichOneof("parameter_choice")
        if kind not in wanted:
            raise TensorInvalid(f"parameter {name} is no {wanted[0]}", hint="send it as one")
        found[name] = getattr(value, kind)
    if not 0 <= found.get("top_k", 0) <= MAX_TOP_K:
        raise TensorInvalid("top_k is no count", hint="use 0 for all scores, or a count")
    if "candidates" in found:
        found["candidates"] = _read_list(found["candidates"])
    return found


def _read_list(text: str) -> tuple[str, ...]:
    """The strings of a JSON list."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(i, str) and _is_unicode(i) for i in items):
        raise TensorInvalid(
            "parameter candidates is no JSON list of strings", hint='write ["yes", "no"]'
        )
    return tuple(items)


def _is_unicode(text: str) -> bool:
    """Whether it has no lone surrogates, which JSON can write and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

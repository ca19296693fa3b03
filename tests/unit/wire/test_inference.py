"""A ModelInfer is read as a batch of our own, or refused in words."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import (
    DecisionInvalid,
    RequestError,
    TensorInvalid,
    TextUndecodable,
    TooManyLabels,
)
from instructrec_deploy.core.result import Answer, LabelScore, Prediction
from instructrec_deploy.core.status import Limits
from instructrec_deploy.pb.inference import open_inference_pb2 as oip
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.inference import (
    INPUTS,
    OUTPUTS,
    PARAMETERS,
    read_infer,
    write_config,
    write_infer,
    write_metadata,
)
from instructrec_deploy.wire.requests import DEFAULT_LIMITS, parse, read_batch
from instructrec_deploy.wire.tensors import pack_strings

LIMITS = Limits(max_text_chars=100, max_candidates=4, max_batch_items=8)


def request(*, is_raw: bool = True, id: str = "", **inputs: Any) -> oip.ModelInferRequest:
    """Inputs by name: a list of strings [n], or of lists [n, k]."""
    message = oip.ModelInferRequest(model_name="tiny", id=id)
    for name, rows in inputs.items():
        is_flat = all(isinstance(row, str) for row in rows)
        shape = [len(rows)] if is_flat else [len(rows), len(rows[0])]
        items: Sequence[str] = rows if is_flat else [word for row in rows for word in row]
        tensor = message.inputs.add(name=name, datatype="BYTES", shape=shape)
        if is_raw:
            message.raw_input_contents.append(pack_strings(items))
        else:
            tensor.contents.bytes_contents.extend(item.encode() for item in items)
    return message


def with_parameters(message: oip.ModelInferRequest, **given: Any) -> oip.ModelInferRequest:
    kinds = {str: "string_param", bool: "bool_param", int: "int64_param", float: "double_param"}
    for name, value in given.items():
        setattr(message.parameters[name], kinds[type(value)], value)
    return message


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("is_column", [True, False])
def test_texts_come_raw_or_as_contents_in_a_row_or_a_column(is_raw: bool, is_column: bool) -> None:
    texts = ["我的卡丢了 😀", "lost card"]
    rows = [[text] for text in texts] if is_column else texts
    found = read_infer(request(text=rows, is_raw=is_raw), LIMITS)
    assert [item.text for item in found.batch.requests] == texts
    assert found.shape == ((2, 1) if is_column else (2,))
    assert list(found.batch.questions) == [pb.Question(task="")]


def test_a_question_that_all_texts_share_is_asked_once() -> None:
    message = request(
        text=["a", "b", "c"], instruction=["which?"], candidates=["是", "否"], text2=["x", "", "z"]
    )
    batch = read_infer(message, LIMITS).batch
    assert len(batch.questions) == 1
    asked = batch.questions[0].instruction
    assert (asked.text, [c.label for c in asked.candidates]) == ("which?", ["是", "否"])
    assert [item.text2 for item in batch.requests] == ["x", "", "z"]
    assert not any(item.questions for item in batch.requests)


def test_each_text_may_have_a_question_of_its_own() -> None:
    message = request(
        text=["a", "b", "c"],
        instruction=["one?", "two?", ""],
        task=["", "", "sentiment"],
        candidates=[["x", "y"], ["z", ""], ["", ""]],
    )
    items = read_batch(read_infer(message, LIMITS).batch, LIMITS)
    questions = [item.questions[0] for item in items if not isinstance(item, Exception)]
    labels = [q.instruction.labels if q.instruction else None for q in questions]
    assert labels == [("x", "y"), ("z",), None]
    assert questions[2].task == "sentiment"


def test_parameters_ask_as_inputs_do() -> None:
    by_parameters = with_parameters(
        request(text=["a"]), instruction="which?", candidates='["x", "y"]', task="intent"
    )
    by_inputs = request(text=["a"], instruction=["which?"], candidates=["x", "y"], task=["intent"])
    assert read_infer(by_parameters, LIMITS) == read_infer(by_inputs, LIMITS)


def test_the_rest_of_a_question_comes_by_parameters() -> None:
    message = with_parameters(
        request(text=["a"], instruction=["who?"], candidates=["人名"]),
        kind="ner",
        threshold=0.25,
        top_k=3,
        explain=True,
        timeout=1000,
        triton_enable_empty_final_response=True,
    )
    batch = read_infer(message, LIMITS).batch
    asked = batch.questions[0].instruction
    assert (asked.kind, asked.threshold) == ("ner", 0.25)
    assert (batch.requests[0].top_k, batch.requests[0].explain) == (3, True)
    prepared = with_parameters(request(text=["a"]), prepared_id="0" * 32)
    assert read_infer(prepared, LIMITS).batch.questions[0].prepared_id == "0" * 32


@pytest.mark.parametrize(
    ("message", "error", "word"),
    [
        (request(), TensorInvalid, "no input text"),
        (request(text=[]), RequestError, "0 texts"),
        (request(text=["a"] * 9), RequestError, "9 texts"),
        (request(text=[["a", "b"]]), TensorInvalid, "shape of text"),
        (request(text=["a"], words=["b"]), TensorInvalid, "input 1 is unknown"),
        (request(text=["a"] * 3, task=["b", "c"]), TensorInvalid, "2 elements for 3 texts"),
        (request(text=["a", "b"], candidates=[["x"], ["y"]]), TensorInvalid, "neither"),
        (request(text=["a"], candidates=list("abcde")), TooManyLabels, "5"),
        (with_parameters(request(text=["a"]), tasks="x"), TensorInvalid, "parameter is unknown"),
        (with_parameters(request(text=["a"]), task=3), TensorInvalid, "task is no string"),
        (with_parameters(request(text=["a"]), top_k=-1), TensorInvalid, "top_k"),
        (with_parameters(request(text=["a"]), candidates="a,b"), TensorInvalid, "JSON list"),
        (with_parameters(request(text=["a"]), candidates='["\\ud800"]'), TensorInvalid, "JSON"),
        (with_parameters(request(text=["a"]), candidates="[" * 9999), TensorInvalid, "JSON list"),
        (with_parameters(request(text=["a"], task=["x"]), task="y"), TensorInvalid, "twice"),
        (with_parameters(request(text=["a"]), kind="ner"), TensorInvalid, "kind came without"),
        (with_parameters(request(text=["a"]), decision="both"), DecisionInvalid, "decision"),
        (
            with_parameters(request(text=["a"], task=["x"]), prepared_id="0"),
            RequestError,
            "prepared_id",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint(
    message: oip.ModelInferRequest, error: type[RequestError], word: str
) -> None:
    with pytest.raises(error, match=word) as caught:
        read_infer(message, LIMITS)
    assert caught.value.hint


def test_tensors_that_are_no_strings_in_the_message_are_refused() -> None:
    number = request(text=["a"])
    number.inputs[0].datatype = "FP32"
    shared = request(text=["a"])
    shared.inputs[0].parameters["shared_memory_region"].string_param = "x"
    both = request(text=["a"])
    both.inputs[0].contents.bytes_contents.append(b"a")
    short = request(text=["a"], task=["b"])
    del short.raw_input_contents[1]
    classes = request(text=["a"])
    classes.outputs.add(name="label").parameters["classification"].int64_param = 2
    unknown = request(text=["a"])
    unknown.outputs.add(name="logits")
    for message in (number, shared, both, short, classes, unknown):
        with pytest.raises(TensorInvalid) as caught:
            read_infer(message, LIMITS)
        assert caught.value.hint


def test_bytes_that_are_not_utf8_are_the_callers_fault() -> None:
    message = request(text=["a"])
    message.raw_input_contents[0] = b"\x01\x00\x00\x00\xff"
    with pytest.raises(TextUndecodable, match=r"text\[0\]"):
        read_infer(message, LIMITS)


PIECES = st.sampled_from(
    [b"", b"\xff", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00a", b"\xff\xff\xff\x7f", "卡".encode()]
)
RAWS = st.lists(PIECES, max_size=4).map(b"".join) | st.binary(max_size=24)
SHAPES = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 4), max_size=3)


@given(st.data())
def test_random_tensors_are_read_or_refused_and_never_crash(data: st.DataObject) -> None:
    message = oip.ModelInferRequest()
    for name in data.draw(st.lists(st.sampled_from([*INPUTS, "x"]), max_size=4)):
        kind = data.draw(st.sampled_from(["BYTES", "BYTES", "FP32"]))
        tensor = message.inputs.add(name=name, datatype=kind, shape=data.draw(SHAPES))
        tensor.contents.bytes_contents.extend(data.draw(st.lists(RAWS, max_size=3)))
    message.raw_input_contents.extend(data.draw(st.lists(RAWS, max_size=4)))
    for name in data.draw(st.lists(st.sampled_from([*PARAMETERS, "x"]), max_size=3)):
        value = message.parameters[name]
        value.string_param = data.draw(st.sampled_from(["", "any", '["a"]', "[]", "[1]", "ner"]))
    with suppress(RequestError):
        found = read_infer(message, DEFAULT_LIMITS)
        for item in read_batch(found.batch, DEFAULT_LIMITS):
            assert isinstance(item, RequestError) or item.text.strip()


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(RequestError):
        read_infer(parse(oip.ModelInferRequest, data), DEFAULT_LIMITS)


def test_answer_has_an_element_for_each_text_in_every_output() -> None:
    predictions = [
        Prediction((Answer("", label, score, (LabelScore(label, score),)),), model="tiny")
        for label, score in (("卡", 0.75), ("", 0.0))
    ]
    infer = read_infer(request(text=[["a"], ["b"]], id="mine"), LIMITS)
    message = write_infer(infer, predictions)
    assert (message.id, message.model_name) == ("mine", "tiny")
    assert {o.name: (o.datatype, list(o.shape)) for o in message.outputs} == {
        name: (datatype, [2, 1]) for name, datatype in OUTPUTS.items()
    }
    raws = dict(zip(OUTPUTS, message.raw_output_contents, strict=True))
    assert raws["label"] == pack_strings(["卡", ""])
    assert raws["score"] == struct.pack("<2f", 0.75, 0.0)
    first = json.loads(raws["answer"][4 : 4 + struct.unpack_from("<I", raws["answer"])[0]])
    assert first == predictions[0].to_dict()


def test_only_the_outputs_that_were_asked_for_come_back() -> None:
    message = request(text=["a"])
    for name in ("score", "label", "score"):
        message.outputs.add(name=name)
    found = write_infer(read_infer(message, LIMITS), [Prediction(())])
    assert [output.name for output in found.outputs] == ["score", "label"]
    assert len(found.raw_output_contents) == 2


def test_metadata_names_every_tensor() -> None:
    message = write_metadata("tiny", "1")
    assert [tensor.name for tensor in message.inputs] == list(INPUTS)
    assert [(t.name, t.datatype) for t in message.outputs] == list(OUTPUTS.items())


def test_a_config_names_the_same_tensors_and_how_many_texts_a_call_takes() -> None:
    config = write_config("tiny", LIMITS).config
    assert (config.name, config.max_batch_size) == ("tiny", 8)
    assert [(t.name, t.optional) for t in config.input] == [(n, n != "text") for n in INPUTS]
    assert [t.name for t in config.output] == list(OUTPUTS)
    number_of = {"BYTES": 13, "FP32": 11}  # Triton's
    assert [t.data_type for t in config.output] == [number_of[kind] for kind in OUTPUTS.values()]

"""The Open Inference Protocol against a real server process, through plain stubs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import (
    InstructRecError,
    ModelUnknown,
    TaskUnknown,
    TensorInvalid,
    TextEmpty,
    TextUndecodable,
)
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.inference import open_inference_pb2 as oip
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from instructrec_deploy.wire.inference import INFERENCE_SERVICE
from instructrec_deploy.wire.tensors import pack_strings
from tests.serving import ServerProcess, running_server

TEXTS = ["I lost my card", "请问我的余额 😀", "mail jo@mail.example.com about the refund"]
CODE, DETAILS = "instructrec-code", "grpc-status-details-bin"


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tiny_bundle, tmp_path_factory.mktemp("server")) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as found:
        yield found


def call(channel: grpc.Channel, method: str, request: Message | bytes, *, key: str = "") -> Any:
    data = request if isinstance(request, bytes) else request.SerializeToString()
    metadata = [("authorization", f"Bearer {key}")] if key else []
    answer = channel.unary_unary(f"/{INFERENCE_SERVICE}/{method}")(
        data, timeout=20, metadata=metadata
    )
    return getattr(oip, f"{method}Response").FromString(answer)


def ask(texts: list[str], *, model: str = "tiny", **inputs: list[str]) -> oip.ModelInferRequest:
    message = oip.ModelInferRequest(model_name=model, id="十")
    for name, items in {"text": texts, **inputs}.items():
        message.inputs.add(name=name, datatype="BYTES", shape=[len(items)])
        message.raw_input_contents.append(pack_strings(items))
    return message


def strings(raw: bytes) -> list[str]:
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return found


def outputs(message: oip.ModelInferResponse) -> dict[str, list[Any]]:
    return {
        output.name: strings(raw)
        if output.datatype == "BYTES"
        else list(struct.unpack(f"<{len(raw) // 4}f", raw))
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    }


def failure(channel: grpc.Channel, request: Message | bytes, **more: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", request, **more)
    return caught.value


def code_of(error: Any) -> str:
    return str(dict(error.trailing_metadata())[CODE])


def test_texts_are_answered_as_by_the_own_service(
    channel: grpc.Channel, server: ServerProcess
) -> None:
    message = call(channel, "ModelInfer", ask(TEXTS))
    found = outputs(message)
    with Client(server.address) as client:
        wanted = [p for p in client.predict_batch(TEXTS) if isinstance(p, Prediction)]
    assert (message.id, message.model_name, message.model_version) == (
        "十",
        "tiny",
        wanted[0].model_version,
    )
    assert found["label"] == [p.label for p in wanted]
    assert found["score"] == pytest.approx([p.score for p in wanted], abs=1e-5)
    answers = [json.loads(text) for text in found["answer"]]
    assert [one["text"] for one in answers] == [p.text for p in wanted]
    assert list(answers[0]["scores"]) == [s.label for s in wanted[0].answers[0].scores]


def test_questions_of_all_kinds_are_answered(channel: grpc.Channel, server: ServerProcess) -> None:
    words, labels = ["What does the customer want?"], ["refund", "card lost"]
    inline = call(
        channel, "ModelInfer", ask(["refund please"], instruction=words, candidates=labels)
    )
    assert outputs(inline)["label"] == ["refund"]
    each = call(channel, "ModelInfer", ask(["a", "b"], task=["sentiment", "intent"]))
    tasks = [json.loads(a)["answers"][0]["task"] for a in outputs(each)["answer"]]
    assert tasks == ["sentiment", "intent"]
    pair = call(channel, "ModelInfer", ask(["my card"], text2=["余额"]))
    with Client(server.address) as client:
        wanted = client.predict_request(Request("my card", text2="余额"))
    assert outputs(pair)["score"] == pytest.approx([wanted.score], abs=1e-5)


def test_server_and_model_tell_what_they_are(channel: grpc.Channel) -> None:
    assert call(channel, "ServerLive", oip.ServerLiveRequest()).live
    assert call(channel, "ServerReady", oip.ServerReadyRequest()).ready
    assert call(channel, "ModelReady", oip.ModelReadyRequest(name="tiny")).ready
    assert not call(channel, "ModelReady", oip.ModelReadyRequest(name="other")).ready
    assert not call(channel, "ModelReady", oip.ModelReadyRequest(name="tiny", version="9")).ready
    assert call(channel, "ServerMetadata", oip.ServerMetadataRequest()).name == "instructrec"
    told = call(channel, "ModelMetadata", oip.ModelMetadataRequest(name="tiny"))
    assert [tensor.name for tensor in told.outputs] == ["label", "score", "answer"]
    (index,) = call(channel, "RepositoryIndex", oip.RepositoryIndexRequest()).models
    assert (index.name, index.version, index.state) == ("tiny", told.versions[0], "READY")
    health = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service=INFERENCE_SERVICE)
    assert health.Check(asked, timeout=10).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("request_", "status", "code", "word"),
    [
        (ask(["a", " ", "b"]), "INVALID_ARGUMENT", TextEmpty, "text[1]: "),
        (ask([" "]), "INVALID_ARGUMENT", TextEmpty, "the text is empty"),
        (ask(["a", "b"], task=["intent", "no"]), "NOT_FOUND", TaskUnknown, "text[1]: "),
        (ask(["a"], model="other"), "NOT_FOUND", ModelUnknown, "no such model"),
        (ask(["a"], words=["b"]), "INVALID_ARGUMENT", TensorInvalid, "input 1 is unknown"),
        (b"\xff" * 40, "INVALID_ARGUMENT", TextUndecodable, "ModelInferRequest"),
    ],
    ids=["a bad text", "the only text", "a bad task", "another model", "a bad tensor", "noise"],
)
def test_one_fault_fails_the_call_and_is_told(
    channel: grpc.Channel,
    request_: Message | bytes,
    status: str,
    code: type[InstructRecError],
    word: str,
) -> None:
    error: Any = failure(channel, request_)
    assert error.code().name == status
    assert word in error.details()
    metadata = dict(error.trailing_metadata())
    assert metadata[CODE] == code.code
    details = status_pb2.Status.FromString(metadata[DETAILS])
    info = error_details_pb2.ErrorInfo()
    assert details.details[0].Unpack(info)
    assert info.metadata["code"] == code.code


def test_access_is_that_of_the_own_service(tiny_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    secret: dict[str, str] = {}
    entries: dict[str, KeyEntry] = {}
    for name, more in {
        "asks": {"roles": ["predict"]},
        "one task": {"roles": ["predict"], "tasks": ["intent"]},
        "corrects": {"roles": ["feedback"]},
    }.items():
        id_, secret[name], kept = new_key()
        entries[id_] = KeyEntry.model_validate({"name": name, "hash": kept, **more})
    write_keys(keys, entries)
    door = {"access": {"keys": str(keys)}}
    with (
        running_server(tiny_bundle, tmp_path / "server", **door) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert call(channel, "ServerLive", oip.ServerLiveRequest()).live
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            call(channel, "ServerReady", oip.ServerReadyRequest())
        ready = call(channel, "ServerReady", oip.ServerReadyRequest(), key=secret["corrects"])
        assert ready.ready
        assert outputs(call(channel, "ModelInfer", ask(["a"]), key=secret["asks"]))["label"]
        named = ask(["a"], task=["intent"])
        assert outputs(call(channel, "ModelInfer", named, key=secret["one task"]))["label"]
        refused = [
            failure(channel, ask(["a"])),
            failure(channel, ask(["a"]), key=secret["corrects"]),
            failure(channel, ask(["a"]), key=secret["one task"]),
            failure(channel, ask(["a"], task=["sentiment"]), key=secret["one task"]),
        ]
    assert [code_of(error) for error in refused] == ["IR-1401", "IR-1400", "IR-1400", "IR-1400"]


def test_a_draining_server_is_live_and_not_ready(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        running_server(tiny_bundle, tmp_path, drain_wait_s=60) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        server.process.terminate()
        server.event("draining")
        assert call(channel, "ServerLive", oip.ServerLiveRequest()).live
        assert not call(channel, "ServerReady", oip.ServerReadyRequest()).ready
        assert not call(channel, "ModelReady", oip.ModelReadyRequest(name="tiny")).ready
        (index,) = call(channel, "RepositoryIndex", oip.RepositoryIndexRequest()).models
        assert index.state == "UNAVAILABLE"
        ready_only = oip.RepositoryIndexRequest(ready=True)
        assert not call(channel, "RepositoryIndex", ready_only).models
        assert server.stop() == 0

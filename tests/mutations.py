"""Messages gone wrong, for the methods that a server answers: the same seed, the same bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from instructrec_deploy.pb.inference import open_inference_pb2 as oip
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.inference import INFERENCE_SERVICE
from instructrec_deploy.wire.requests import SERVICE
from instructrec_deploy.wire.tensors import pack_strings

STREAM = f"/{SERVICE}/PredictStream"
WORDS = (
    "", " ", "\0", "I lost my card", "我的卡丢了", "👍🏽", "\u202e", "\ufeff", "[SEP] [MASK]",
    "intent", "sentiment", "no such task", "one", "any", "ner", "qa", "ranking", "classification",
    "-1", "NaN", "text", "label", "BYTES", "['a']", '["a", "b"]', "[" * 2000, "{}", "a\nb",
    "e\u0301", "x" * 700,
)  # fmt: skip
WHOLE = (0, 1, 2, 3, 5, 63, 64, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1)
REAL = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
# Bytes that mean much on the wire: tags of other types, lengths that lie, no UTF-8.
CHUNKS = (
    b"\x00", b"\xff", b"\x0a", b"\x0b", b"\x0c", b"\x0d", b"\x0f", b"\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\x0f", b"\xed\xa0\x80", b"\xc0\x80", b"\xf8\x88", b"\x7f\xff",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is sent: to a method, one message, or several to a stream."""

    method: str
    messages: tuple[bytes, ...]


def mutant(number: int) -> Mutant:
    """The same for the same number."""
    rng = random.Random(number)
    method, seeds = rng.choice(METHODS)
    n_messages = rng.randint(1, 3) if method == STREAM else 1
    return Mutant(method, tuple(_mutate(rng.choice(seeds), rng) for _ in range(n_messages)))


def _mutate(seed: Message, rng: random.Random) -> bytes:
    """Fields that hold what nobody sends, bytes that are no message, or both."""
    message = type(seed)()
    message.CopyFrom(seed)
    kind = rng.randrange(10)
    if kind < 6:
        for _ in range(rng.randint(1, 4)):
            _change_field(message, rng)
    data = message.SerializeToString()
    if kind >= 5:
        for _ in range(rng.randint(1, 4)):
            data = rng.choice(DAMAGES)(data, rng)
    return data


def _change_field(message: Message, rng: random.Random, depth: int = 0) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = rng.choice(fields)
    if field.is_repeated:
        _change_list(message, field, rng, depth)
    elif field.message_type is not None:
        if rng.random() < 0.2:
            message.ClearField(field.name)
        elif depth < 4:
            part = getattr(message, field.name)
            part.SetInParent()
            _change_field(part, rng, depth + 1)
    else:
        setattr(message, field.name, _odd_value(field, rng))


def _change_list(message: Message, field: FieldDescriptor, rng: random.Random, depth: int) -> None:
    items: Any = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        part = items[rng.choice((*WORDS, *PARAMETER_NAMES))]
        if depth < 4:
            _change_field(part, rng, depth + 1)
    elif items and rng.random() < 0.3:
        del items[rng.randrange(len(items)) :]
    elif field.message_type is not None:
        part = rng.choice(items) if items and rng.random() < 0.5 else items.add()
        if depth < 4:
            _change_field(part, rng, depth + 1)
    else:
        items.extend(_odd_value(field, rng) for _ in range(rng.choice((1, 1, 2, 3, 80))))


def _odd_value(field: FieldDescriptor, rng: random.Random) -> Any:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice((*CHUNKS, pack_strings(["a", "b"]), rng.randbytes(rng.randrange(40))))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(WORDS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(REAL)
    bits, is_signed = {
        FieldDescriptor.CPPTYPE_INT32: (32, True),
        FieldDescriptor.CPPTYPE_UINT32: (32, False),
        FieldDescriptor.CPPTYPE_INT64: (64, True),
        FieldDescriptor.CPPTYPE_UINT64: (64, False),
    }[kind]
    value = rng.choice(WHOLE) % 2**bits
    return value - 2**bits if is_signed and value >= 2 ** (bits - 1) else value


def _at(data: bytes, rng: random.Random) -> int:
    return rng.randint(0, len(data))


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = _at(data, rng)
    return (
        data[:at] + bytes(b ^ (1 << rng.randrange(8)) for b in data[at : at + 1]) + data[at + 1 :]
    )


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.choice((*CHUNKS, rng.randbytes(rng.randrange(9)))) + data[at:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_at(data, rng), _at(data, rng)))
    return data[:start] + data[end:]


def _end(data: bytes, rng: random.Random) -> bytes:
    return data[: _at(data, rng)]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_at(data, rng), _at(data, rng)))
    return data[:end] + data[start:end] * rng.randint(1, 3) + data[end:]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at = _at(data, rng)
    number = rng.choice((b"\xff", struct.pack("<I", rng.choice(WHOLE) % 2**32), rng.randbytes(4)))
    return data[:at] + number + data[at + len(number) :]


def _nest(data: bytes, rng: random.Random) -> bytes:
    """Deep in itself: a parser without a bound would overflow its stack."""
    for _ in range(rng.choice((2, 20, 150))):
        if len(data) < 4000:
            data = b"\x12" + _varint(len(data)) + data
    return data


def _splice(data: bytes, rng: random.Random) -> bytes:
    other: bytes = rng.choice(rng.choice(METHODS)[1]).SerializeToString()
    return data[: _at(data, rng)] + other[_at(other, rng) :]


def _noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(64))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _insert, _cut, _end, _repeat, _overwrite, _nest, _splice, _noise,
)  # fmt: skip
PARAMETER_NAMES = (
    "task", "instruction", "candidates", "prepared_id", "kind", "decision", "threshold", "top_k",
    "explain", "shared_memory_region", "classification", "binary_data", "sequence_id", "priority",
)  # fmt: skip


def _instruction(**changes: Any) -> pb.Instruction:
    candidates = [
        pb.Candidate(label="card", description="about a card"),
        pb.Candidate(label="余额"),
    ]
    return pb.Instruction(**{"text": "What is it about?", "candidates": candidates, **changes})


def _predicts() -> list[pb.PredictRequest]:
    ask = pb.Question(instruction=_instruction(decision="any", threshold=0.4))
    return [
        pb.PredictRequest(text="I lost my card"),
        pb.PredictRequest(
            text="我的卡丢了 13800138000", questions=[ask, pb.Question(task="intent")]
        ),
        pb.PredictRequest(text="a card", text2="a lost card", top_k=0, explain=True, id="7"),
        pb.PredictRequest(
            text="Anna works at ACME",
            head=pb.Mark(start=0, end=4),
            tail=pb.Mark(start=14, end=18),
            questions=[pb.Question(prepared_id="0" * 32)],
        ),
    ]


def _infers() -> list[oip.ModelInferRequest]:
    raw = oip.ModelInferRequest(model_name="tiny", id="1")
    for name, words, shape in [("text", ["a card", "余额"], [2]), ("candidates", ["a", "b"], [2])]:
        raw.inputs.add(name=name, datatype="BYTES", shape=shape)
        raw.raw_input_contents.append(pack_strings(words))
    raw.parameters["instruction"].string_param = "which?"
    plain = oip.ModelInferRequest(model_name="tiny")
    tensor = plain.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(b"a card")
    plain.parameters["top_k"].int64_param = 2
    plain.outputs.add(name="label")
    return [raw, plain]


def _all_methods() -> dict[str, list[Message]]:
    predicts, ask = _predicts(), pb.Question(instruction=_instruction(none_label="none"))
    many = {"requests": predicts, "questions": [ask]}
    mark = pb.FeedbackSpan(start=0, end=4, type="person")
    own: dict[str, list[Message]] = {
        "Predict": [*predicts],
        "PredictBatch": [pb.PredictBatchRequest(**many), pb.PredictBatchRequest(requests=predicts)],
        "PredictStream": [pb.PredictStreamRequest(**many)],
        "PrepareInstruction": [
            pb.PrepareInstructionRequest(instruction=_instruction()),
            pb.PrepareInstructionRequest(task="intent"),
            pb.PrepareInstructionRequest(instruction=_instruction(kind="ranking", task="intent")),
        ],
        "GetModelStatus": [pb.GetModelStatusRequest(with_labels=True, model="tiny")],
        "Feedback": [
            pb.FeedbackRequest(text="my card", task="intent", labels=["card lost"], lang="en"),
            pb.FeedbackRequest(text="Anna B", spans=pb.FeedbackSpans(spans=[mark]), head=mark),
        ],
        "SwapModel": [pb.SwapModelRequest(model="no such model", rollback=True)],
    }
    inference: dict[str, list[Message]] = {
        "ServerLive": [oip.ServerLiveRequest()],
        "ServerReady": [oip.ServerReadyRequest()],
        "ModelReady": [oip.ModelReadyRequest(name="tiny", version="1")],
        "ServerMetadata": [oip.ServerMetadataRequest()],
        "ModelMetadata": [oip.ModelMetadataRequest(name="tiny")],
        "ModelConfig": [oip.ModelConfigRequest(name="tiny")],
        "ModelInfer": [*_infers()],
        "RepositoryIndex": [oip.RepositoryIndexRequest(repository_name="x", ready=True)],
    }
    health: dict[str, list[Message]] = {"Check": [health_pb2.HealthCheckRequest(service=SERVICE)]}
    return {
        f"/{service}/{name}": seeds
        for service, methods in [
            (SERVICE, own), (INFERENCE_SERVICE, inference), ("grpc.health.v1.Health", health),
        ]
        for name, seeds in methods.items()
    }  # fmt: skip


# Those with much in them come more often.
METHODS = tuple(
    (method, seeds)
    for method, seeds in _all_methods().items()
    for _ in range(4 if len(seeds) > 1 or method == STREAM else 1)
)

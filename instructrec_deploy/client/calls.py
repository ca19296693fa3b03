"""What both clients share: channel options, building requests, reading answers and errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import unquote

import grpc

from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.errors import ConfigError, InstructRecError, RequestError
from instructrec_deploy.core.failure import rebuild_error
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.question import read_question
from instructrec_deploy.core.request import MarkLike, Question, Request, as_mark
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.metadata import CODE_KEY, HINT_KEY, RETRY_KEY
from instructrec_deploy.wire.requests import SERVICE

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_TOP_K = 5
DEFAULT_KEEPALIVE_S = 30.0
MIN_KEEPALIVE_S = 10.0  # what our server allows
INITIAL_RECONNECT_MS = 100  # doubled each time, up to two minutes
PING_TIMEOUT_S = 20
COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
HINTS = {
    "UNAVAILABLE": "is the server running there? `instructrec serve BUNDLE` starts one",
    "DEADLINE_EXCEEDED": "allow more time with timeout_s, or send less at once",
    "UNIMPLEMENTED": "the server does not have this call: another version, or another service",
    "CANCELLED": "the server ended the call; try again",
    "RESOURCE_EXHAUSTED": "send smaller messages, or raise max_message_bytes on both sides",
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a call is sent again while the server cannot be reached.

    UNAVAILABLE is retried, and CANCELLED, which a stopping server makes of calls that reach it too
    late; a call cancelled by its caller is not. A server that has too much to do (`Overloaded`) is
    asked again only on demand, and then after the time that it names. A stream is sent again only
    while nothing of it has been answered.
    """

    max_attempts: int = 4  # the first one included; 1: none is retried. gRPC allows at most 5
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 1.0
    retry_overloaded: bool = False

    def service_config(self) -> str:
        """gRPC's JSON for it."""
        config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
        if self.max_attempts > 1:
            codes = ["UNAVAILABLE", "CANCELLED"]
            if self.retry_overloaded:
                codes.append("RESOURCE_EXHAUSTED")
            policy = {
                "maxAttempts": self.max_attempts,
                "initialBackoff": f"{self.initial_backoff_s}s",
                "maxBackoff": f"{self.max_backoff_s}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": codes,
            }
            config["methodConfig"] = [
                {"name": [{"service": SERVICE, "method": "SwapModel"}]},  # twice is not once
                {"name": [{"service": SERVICE}], "retryPolicy": policy},
            ]
        return json.dumps(config)


def channel_options(
    address: str,
    retry: RetryPolicy,
    max_message_bytes: int,
    *,
    keepalive_s: float = DEFAULT_KEEPALIVE_S,
    compression: str = "none",
) -> list[tuple[str, Any]]:
    """Options of a channel to the server.

    Raises:
        ConfigError: pings too often, or a compression that there is not.
    """
    if 0 < keepalive_s < MIN_KEEPALIVE_S:
        raise ConfigError(
            f"keepalive_s is {keepalive_s}: servers cut off who pings so often",
            hint=f"use {MIN_KEEPALIVE_S} or more, or 0 for none",
        )
    if compression not in COMPRESSIONS:
        raise ConfigError(
            "the compression is unknown", hint=f"use one of: {', '.join(COMPRESSIONS)}"
        )
    is_local = address.startswith(("127.", "localhost:", "[::1]"))
    options: list[tuple[str, Any]] = [
        ("grpc.enable_http_proxy", 0 if is_local else 1),  # a proxy cannot reach our loopback
        ("grpc.service_config", retry.service_config()),
        # gRPC's own second is longer than all attempts of `RetryPolicy` together: a server that
        # was replaced at once would be found too late.
        ("grpc.initial_reconnect_backoff_ms", INITIAL_RECONNECT_MS),
        # Each client has a connection of its own: several of them reach several workers.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.primary_user_agent", "instructrec"),
        ("grpc.default_compression_algorithm", COMPRESSIONS[compression].value),
    ]
    if keepalive_s:
        # Pings only while a call is open: that is when a connection that died unseen does harm.
        options += [
            ("grpc.keepalive_time_ms", int(1000 * keepalive_s)),
            ("grpc.keepalive_timeout_ms", 1000 * PING_TIMEOUT_S),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return options


def addressed(
    message: pb.PredictRequest
    | pb.PredictBatchRequest
    | pb.PredictStreamRequest
    | pb.PrepareInstructionRequest
    | pb.GetModelStatusRequest,
    *,
    model: str,
    model_version: str,
) -> bytes:
    """The message for that model; "" and "": the server's default one, the newest."""
    if model:
        message.model = model
    if model_version:
        message.model_version = model_version
    return message.SerializeToString()


def build_request(
    text: str,
    *,
    instruction: str | Instruction | None = None,
    candidates: Iterable[str | Candidate] | None = None,
    task: str = "",
    prepared_id: str = "",
    top_k: int = DEFAULT_TOP_K,
    id: str = "",
    decision: str | Decision = "",
    threshold: float | None = None,
    none_label: str = "",
    text2: str = "",
    head: MarkLike | None = None,
    tail: MarkLike | None = None,
    explain: bool = False,
) -> Request:
    """One text and one question about it; without any, the bundle's default task.

    Raises:
        RequestError: a text is no str, or the question is named in more than one way.
        MarkInvalid: a mark is no pair of positions.
    """
    for name, given in (("text", text), ("text2", text2)):
        if not isinstance(given, str):
            raise RequestError(f"{name} is a {type(given).__name__}", hint="pass a str")
    if top_k < 0:
        raise RequestError(f"top_k is {top_k}", hint="use 0 for all scores, or a count")
    question = build_question(
        instruction=instruction,
        candidates=candidates,
        task=task,
        prepared_id=prepared_id,
        decision=decision,
        threshold=threshold,
        none_label=none_label,
    )
    marks = as_mark(head, "head"), as_mark(tail, "tail")
    return Request(text, (question,), id, top_k, text2, *marks, explain)


def build_question(
    *,
    instruction: str | Instruction | None = None,
    candidates: Iterable[str | Candidate] | None = None,
    task: str = "",
    prepared_id: str = "",
    decision: str | Decision = "",
    threshold: float | None = None,
    none_label: str = "",
) -> Question:
    """What loose arguments ask, as `Predictor.predict` reads them; the server checks the rest.

    An instruction's words with a task put the task's labels into these words; candidates with a
    task use the task's words.

    Raises:
        RequestError: the question is named in more than one way.
        DecisionInvalid: the decision is none.
    """
    asked = read_question(
        instruction=instruction,
        candidates=candidates,
        task=task,
        prepared_id=prepared_id,
        decision=decision,
        threshold=threshold,
        none_label=none_label,
    )
    return asked if isinstance(asked, Question) else asked.as_question()


def build_batch(texts: Sequence[str | Request], **question: Any) -> list[Request]:
    """Requests from texts that share one question, or requests as they are."""
    if isinstance(texts, str):
        raise RequestError("a batch is one str", hint="pass a list of texts")
    if any(isinstance(item, Request) for item in texts) and question:
        raise RequestError(
            "a question beside ready requests", hint="put the question into each Request"
        )
    if not texts:
        return []
    shared = None
    requests = []
    for item in texts:
        if isinstance(item, Request):
            requests.append(item)
        elif shared is None:
            shared = build_request(item, **question)
            requests.append(shared)
        else:
            requests.append(replace(shared, text=item, id=""))
    return requests


class CallFailed(Protocol):
    """What `grpc.RpcError` and `grpc.aio.AioRpcError` have in common."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Any: ...


def read_failure(error: CallFailed, address: str) -> InstructRecError:
    """The server's error as the class it had there; gRPC's own by its status."""
    status = error.code().name
    metadata = dict(error.trailing_metadata() or ())
    code = str(metadata.get(CODE_KEY, ""))
    message = error.details() or status
    if code:
        hint = unquote(str(metadata.get(HINT_KEY, "")))
    else:
        hint = HINTS.get(status, "")
        if status == "UNAVAILABLE":
            message = f"no answer from {address}"
        elif status == "RESOURCE_EXHAUSTED" and "larger than max" in message:
            status = "INVALID_ARGUMENT"
    return rebuild_error(
        message,
        code=code,
        status=status,
        hint=hint,
        retry_after_ms=int(metadata.get(RETRY_KEY, 0)),
    )


Results = list[Prediction | InstructRecError]
Numbered = tuple[int, Prediction | InstructRecError]  # of a stream

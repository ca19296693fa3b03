"""Calls of the service as JSON over HTTP: the same handlers, errors, roles and limits as gRPC's.

Bodies are the messages of instructrec.proto in protobuf's JSON form; answers have the proto's field
names. Only `application/json` is taken: what a page of another site sends without asking first is
not.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InstructRecError,
    RequestError,
    TextTooLong,
)
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.server.failures import describe_failure
from instructrec_deploy.wire.metadata import CODE_KEY, HINT_KEY, RETRY_KEY

TIMEOUT_HEADER = "instructrec-timeout-ms"
BODY_S = 30.0  # for a body to arrive
GONE = 499  # nobody reads it: the caller has left
HTTP_STATUS = {  # of google.rpc.Code
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": GONE,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
Answer = Callable[[bytes, Any], Awaitable[bytes]]  # what `InstructRecService.guard` returns
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One way in: path, method of the service, its messages."""

    path: str
    method: str
    request: type[Message]
    response: type[Message]
    is_get: bool = False  # without a body; what is asked stands in the query


CALLS = (
    Call("/v1/predict", "Predict", pb.PredictRequest, pb.PredictResponse),
    Call("/v1/predict_batch", "PredictBatch", pb.PredictBatchRequest, pb.PredictBatchResponse),
    Call(
        "/v1/prepare",
        "PrepareInstruction",
        pb.PrepareInstructionRequest,
        pb.PrepareInstructionResponse,
    ),
    Call("/v1/feedback", "Feedback", pb.FeedbackRequest, pb.FeedbackResponse),
    Call(
        "/v1/status",
        "GetModelStatus",
        pb.GetModelStatusRequest,
        pb.GetModelStatusResponse,
        is_get=True,
    ),
)


class Aborted(Exception):
    """A call ended with an error, as gRPC would have sent it."""

    def __init__(self, status: str, message: str, metadata: Metadata) -> None:
        super().__init__(status)
        self.status, self.message, self.metadata = status, message, metadata

    @classmethod
    def by(cls, error: InstructRecError) -> Aborted:
        """The same error as the service would have sent it."""
        failure = describe_failure(error)
        return cls(failure.status.name, failure.message, failure.metadata)


class HttpContext:
    """What the service asks of a gRPC call (`grpc.aio.ServicerContext`), for an HTTP one."""

    def __init__(self, headers: Mapping[str, str], timeout_s: float | None) -> None:
        self._metadata = tuple(headers.items())
        self._end_s = None if timeout_s is None else time.monotonic() + timeout_s

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers, in small letters."""
        return self._metadata

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Nothing: a client certificate was checked by TLS, and whose it is is not told."""
        return {}

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        return None if self._end_s is None else max(0.0, self._end_s - time.monotonic())

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call.

        Raises:
            Aborted: always.
        """
        raise Aborted(code.name, details, trailing_metadata)


async def answer_call(request: Request, call: Call, answer: Answer, *, max_bytes: int) -> Response:
    """Have the service answer an HTTP request; work for a caller who has left is dropped.

    Args:
        answer: the service's guarded handler of `call.method`.
        max_bytes: of the body.
    """
    try:
        context = HttpContext(request.headers, _timeout_s(request))
        message = await _read(request, call, max_bytes)
        working = asyncio.ensure_future(answer(message.SerializeToString(), context))
        leaving = asyncio.ensure_future(_has_left(request))
        try:
            await asyncio.wait(
                (working, leaving),
                timeout=context.time_remaining(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not working.done():
                working.cancel()
                if leaving.done():
                    raise Aborted("CANCELLED", "the caller has left", ())
                raise DeadlinePassed(
                    "the time was up before there was an answer", hint="allow more time"
                )
            data = working.result()
        finally:
            working.cancel()
            leaving.cancel()
    except InstructRecError as error:
        return failure(Aborted.by(error))
    except Aborted as ended:
        return failure(ended)
    found = call.response()
    found.ParseFromString(data)
    return JSONResponse(plain(found))


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it, with every field that has a value or a default."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def failure(ended: Aborted) -> Response:
    """An error: {"error": {"status", "code", "message", "hint"}}."""
    told = {name: value for name, value in ended.metadata if isinstance(value, str)}
    error = {
        "status": ended.status,
        "code": told.get(CODE_KEY, ""),
        "message": ended.message,
        "hint": unquote(told.get(HINT_KEY, "")),
    }
    headers = {}
    if retry_ms := int(told.get(RETRY_KEY, "0")):
        error["retry_after_ms"] = str(retry_ms)
        headers["retry-after"] = str(math.ceil(retry_ms / 1000))
    if ended.status == "UNAUTHENTICATED":
        headers["www-authenticate"] = "Bearer"
    status = 413 if told.get(CODE_KEY) == TextTooLong.code else HTTP_STATUS.get(ended.status, 500)
    return JSONResponse({"error": error}, status, headers)


def _timeout_s(request: Request) -> float | None:
    """The caller's time for an answer; None without one.

    Raises:
        RequestError: it is no time.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and 0 < int(given[:12]) <= 86_400_000):
        raise RequestError(
            f"{TIMEOUT_HEADER} is no time", hint="whole milliseconds from 1 to 86400000"
        )
    return int(given) / 1000


async def _read(request: Request, call: Call, max_bytes: int) -> Message:
    """The message that was sent.

    Raises:
        RequestError: it is none, or came in another form, or too slowly.
        TextTooLong: it is larger than `max_bytes`.
    """
    if call.is_get:
        raw: Any = dict(request.query_params)
        if "with_labels" in raw:
            raw["with_labels"] = raw["with_labels"] in ("", "1", "true")
        return _parse(raw, call)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            "the body is not application/json",
            hint="send the header content-type: application/json",
        )
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise TextTooLong(
                        f"the body is larger than {max_bytes} bytes",
                        hint="send less at once, or raise server.max_message_bytes",
                    )
    except (TimeoutError, ClientDisconnect) as error:
        raise RequestError("the body did not arrive", hint="send it whole") from error
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is no JSON", hint="UTF-8, one object") from error
    return _parse(raw, call)


def _parse(raw: Any, call: Call) -> Message:
    message = call.request()
    try:
        return ParseDict(raw, message)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # Its words may quote the body: they stay here.
        fields = ", ".join(field.name for field in call.request.DESCRIPTOR.fields)
        raise RequestError(
            f"the body is no {call.request.DESCRIPTOR.name}",
            hint=f"its fields: {fields}; /openapi.json has their types",
        ) from error


async def _has_left(request: Request) -> None:
    """Return when the caller has gone. Only after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""An error as a gRPC answer: status, message, and trailing metadata that says more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

import grpc
from google.rpc import error_details_pb2, status_pb2

from instructrec_deploy.core.errors import InstructRecError, Overloaded
from instructrec_deploy.core.failure import STATUS_NUMBERS
from instructrec_deploy.wire.metadata import (
    CODE_KEY,
    DETAILS_KEY,
    HINT_KEY,
    PUSHBACK_KEY,
    RETRY_KEY,
)

DOMAIN = "instructrec"
MAX_MESSAGE_CHARS = 500  # with the hint, percent-encoded, below gRPC's 8 KiB of metadata
MAX_HINT_CHARS = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """What goes out in place of an answer."""

    status: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]
    code: str = ""  # of our errors


def describe_failure(error: InstructRecError) -> Failure:
    """The gRPC answer for an error.

    Plain metadata for clients that read strings, google.rpc details for those that know them.
    """
    message = error.message[:MAX_MESSAGE_CHARS]
    hint = error.hint[:MAX_HINT_CHARS]
    info = error_details_pb2.ErrorInfo(
        reason=re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).upper(),
        domain=DOMAIN,
        metadata={"code": error.code, "hint": hint},
    )
    details = status_pb2.Status(code=STATUS_NUMBERS[error.grpc_status], message=message)
    details.details.add().Pack(info)
    metadata: list[tuple[str, str | bytes]] = [
        (CODE_KEY, error.code),
        (HINT_KEY, quote(hint, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~")),
    ]
    if isinstance(error, Overloaded):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        details.details.add().Pack(retry)
        wait = str(error.retry_after_ms)
        metadata += [(RETRY_KEY, wait), (PUSHBACK_KEY, wait)]
    metadata.append((DETAILS_KEY, details.SerializeToString()))
    return Failure(grpc.StatusCode[error.grpc_status], message, tuple(metadata), error.code)

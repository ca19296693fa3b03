"""Errors as gRPC answers, and back again as the client reads them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from instructrec_deploy.client.calls import read_failure
from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InstructRecError,
    InternalError,
    NotFound,
    Overloaded,
    RequestError,
    TaskUnknown,
    TextUndecodable,
    Unavailable,
)
from instructrec_deploy.server.failures import Failure, describe_failure


class FakeCall:
    """As much of a failed call as a client reads."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    def code(self) -> grpc.StatusCode:
        return self._failure.status

    def details(self) -> str | None:
        return self._failure.message

    def trailing_metadata(self) -> Any:
        return self._failure.metadata


@pytest.mark.parametrize(
    "error",
    [
        TextUndecodable("no UTF-8", hint="send UTF-8"),
        TaskUnknown("no such task", hint="its tasks: 意图, sentiment 100%"),
        Overloaded("full", hint="later", retry_after_ms=321),
        DeadlinePassed("late"),
        Unavailable("draining", hint="line one\nline two"),
        InternalError("internal error 0123"),
    ],
)
def test_error_comes_back_as_the_class_it_was(error: InstructRecError) -> None:
    found = read_failure(FakeCall(describe_failure(error)), "here")
    assert (type(found), found.message, found.hint) == (type(error), error.message, error.hint)
    wait_ms = getattr(error, "retry_after_ms", 0)
    assert getattr(found, "retry_after_ms", 0) == wait_ms
    assert int(dict(describe_failure(error).metadata).get("grpc-retry-pushback-ms", 0)) == wait_ms


def test_metadata_is_ascii_and_within_what_grpc_carries() -> None:
    failure = describe_failure(TaskUnknown("名" * 5_000, hint="任务" * 5_000))
    sizes = [len(key) + len(value) for key, value in failure.metadata]
    assert all(isinstance(value, bytes) or value.isascii() for _, value in failure.metadata)
    assert sum(sizes) + 3 * 3 * len(failure.message) < 10_000


def test_details_are_those_of_google_rpc() -> None:
    failure = describe_failure(Overloaded("full", hint="later", retry_after_ms=1_500))
    details = dict(failure.metadata)["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (status.code, info.reason, info.domain) == (8, "OVERLOADED", "instructrec")
    assert (info.metadata["code"], retry.retry_delay.ToMilliseconds()) == ("IR-1300", 1_500)


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlinePassed),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max", RequestError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls", Overloaded),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", RequestError),
        (grpc.StatusCode.NOT_FOUND, "", NotFound),
        (grpc.StatusCode.UNKNOWN, "", InternalError),
    ],
)
def test_failure_of_grpc_itself_is_told_by_its_status(
    status: grpc.StatusCode, details: str, kind: type[InstructRecError]
) -> None:
    found = read_failure(FakeCall(Failure(status, details, ())), "127.0.0.1:1")
    assert type(found) is kind
    assert found.message

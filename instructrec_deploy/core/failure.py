"""An error taken apart for a wire, and built again from its parts on the other side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from instructrec_deploy.core.errors import (
    DeadlinePassed,
    Denied,
    InstructRecError,
    InternalError,
    NotFound,
    Overloaded,
    RequestError,
    Unauthenticated,
    Unavailable,
)

STATUS_NUMBERS = {  # google.rpc.Code
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
STATUS_NAMES = {number: name for name, number in STATUS_NUMBERS.items()}
_BY_STATUS: dict[str, type[InstructRecError]] = {
    "INVALID_ARGUMENT": RequestError,
    "OUT_OF_RANGE": RequestError,
    "UNIMPLEMENTED": RequestError,
    "NOT_FOUND": NotFound,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlinePassed,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Unavailable,  # the caller did not cancel, or it would not ask: the server went
    "PERMISSION_DENIED": Denied,
    "UNAUTHENTICATED": Unauthenticated,
}


def rebuild_error(
    message: str,
    *,
    code: str = "",
    status: str = "INTERNAL",
    hint: str = "",
    retry_after_ms: int = 0,
) -> InstructRecError:
    """The error of that code; a code this version does not know: the base of that status."""
    kind = _by_code().get(code) or _BY_STATUS.get(status, InternalError)
    if issubclass(kind, Overloaded):
        return kind(message, hint=hint, retry_after_ms=retry_after_ms or 100)
    return kind(message, hint=hint)


@cache
def _by_code() -> dict[str, type[InstructRecError]]:
    return {kind.code: kind for kind in _family(InstructRecError)}


def _family(kind: type[InstructRecError]) -> Iterator[type[InstructRecError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)

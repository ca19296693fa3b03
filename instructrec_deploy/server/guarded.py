"""What stands around every call: who may, how many, how long, what went wrong; and the drain."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError as FutureCancelled
from typing import Any, Protocol, TypeAlias

import grpc

from instructrec_deploy.core.errors import InstructRecError, InternalError, Unavailable
from instructrec_deploy.server.access.callers import ANYONE, STRANGER, Caller
from instructrec_deploy.server.access.gate import Gate
from instructrec_deploy.server.failures import Failure, describe_failure
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.tracing.tracer import Tracer

Call: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
log = logging.getLogger(f"{LOGGER}.server")


class CallerContext(Protocol):
    """What a call says about who makes it."""

    def invocation_metadata(self) -> Any: ...

    def auth_context(self) -> Any: ...


class GuardedCalls:
    """Counts, admits and refuses calls; knows when the last accepted one is answered.

    All methods run on the event loop. `refusal`: why calls are refused; "" where they are not.
    """

    def __init__(
        self,
        metrics: Metrics,
        gate: Gate,
        tracer: Tracer,
        *,
        is_loopback: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._anyone = ANYONE if is_loopback else STRANGER
        self._is_closing = False
        self._refusal = "the model is still loading"
        self._n_in_flight = 0
        self._last_call_s = 0.0
        self.closers: set[Callable[[], None]] = set()  # called when it closes, by streams
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.watch("instructrec_requests_in_flight", lambda: self._n_in_flight)

    @property
    def is_open(self) -> bool:
        """Whether calls are accepted."""
        return not self._refusal

    def close(self) -> None:
        """Refuse calls from now on; those accepted go on."""
        self._is_closing = True
        self._refusal = "the server is shutting down"
        for close in tuple(self.closers):
            close()

    async def wait_idle(self, timeout_s: float) -> int:
        """Wait until every accepted call is answered; returns how many are not."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self._n_in_flight

    async def wait_quiet(self, quiet_s: float, timeout_s: float) -> None:
        """Wait until no call has come or ended for `quiet_s`, refused ones included."""
        end_s = self._clock() + timeout_s
        while (now := self._clock()) < end_s and now - self._last_call_s < quiet_s:
            await asyncio.sleep(self._last_call_s + quiet_s - now)

    def guard(
        self,
        method: str,
        handle: Callable[[Any, float | None, Caller], Awaitable[Any]],
        *,
        needs_model: bool = True,
        is_open: bool = False,
        is_stream: bool = False,
    ) -> Any:
        """A gRPC handler around one of ours: counts, deadline, errors.

        Args:
            method: its name; unique among all services, for roles and metrics go by it.
            needs_model: it is refused while there is no model, and while the server drains.
            is_open: the caller need not be known.
            is_stream: the handle is given the call itself, to read and to write.
        """

        async def answer(data: Any, context: Call) -> Any:
            start = self._last_call_s = self._clock()
            status, caller, code = "OK", None, ""
            span = self._tracer.begin(method, context)
            is_refused = needs_model and bool(self._refusal)
            if not is_refused:
                self._n_in_flight += 1
                self._idle.clear()
            try:
                caller = ANYONE if is_open else self.admit(context, method)
                if is_refused:
                    raise Unavailable(self._refusal, hint="try again, or another server")
                left_s = context.time_remaining()
                given = context if is_stream else data
                return await handle(given, None if left_s is None else start + left_s, caller)
            except asyncio.CancelledError:
                left_s = context.time_remaining()
                is_late = left_s is not None and left_s <= 0
                status = "DEADLINE_EXCEEDED" if is_late else "CANCELLED"
                raise
            except Exception as error:
                failure = self._fail(error, method)
                status, code = failure.status.name, failure.code
                await context.abort(failure.status, failure.message, failure.metadata)
                raise AssertionError("abort raises") from error
            finally:
                if not is_refused:
                    self._n_in_flight -= 1
                if not self._n_in_flight:
                    self._idle.set()
                self._last_call_s = self._clock()
                self._metrics.count_call(
                    method, status, self._last_call_s - start, trace_id=span.trace_id
                )
                span.end(status, code)
                self._gate.note(caller, method, status)

        return answer

    def admit(self, context: CallerContext, method: str) -> Caller:
        """Who calls a method.

        Raises:
            Unauthenticated, Denied: as `Gate.admit`.
        """
        if not self._gate.knows_callers:
            self._anyone.check_method(method)
            return self._anyone
        return self._gate.admit(context.invocation_metadata() or (), context.auth_context(), method)

    def _fail(self, error: BaseException, method: str) -> Failure:
        """The answer for an error, which is counted.

        Nothing in the handler's frame may name the error: its traceback names the frame, and a
        ring of all that a call had would wait for the garbage collector, 60 objects of each refused
        call, until it stops everything for 100 ms.
        """
        known = self._known_error(error, method)
        self._metrics.count_error(known)
        return describe_failure(known)

    def _known_error(self, error: BaseException, method: str) -> InstructRecError:
        """The error itself, or, for an unexpected one, an id that stands in the log, too."""
        if isinstance(error, InstructRecError):
            return error
        if isinstance(error, FutureCancelled):
            return Unavailable("the server is shutting down", hint="try again, or another server")
        incident = uuid.uuid4().hex[:12]
        log.error(
            "unexpected error", exc_info=error, extra={"incident": incident, "method": method}
        )
        return InternalError(
            f"internal error {incident}", hint="the server's log says more under this id"
        )


def unary_handlers(service: str, answers: Mapping[str, Any]) -> grpc.GenericRpcHandler:
    """What to register with the gRPC server: by method, what `GuardedCalls.guard` returned."""
    wrapped: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in answers.items()
    }
    return grpc.method_handlers_generic_handler(service, wrapped)

"""The calls of `instructrec.v1.InstructRec`: bytes in, bytes out, every error mapped.

Handlers are registered for raw bytes and parse them here: left to itself, gRPC answers INTERNAL
for bytes that are no message or no UTF-8.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import grpc

from instructrec_deploy.core.errors import (
    InstructRecError,
    InternalError,
    RequestError,
    Unavailable,
)
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.status import ModelChange, ModelStatus, PreparedInfo, ServedModel
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.runtime.admission import OverloadSettings
from instructrec_deploy.server.access.callers import ANYONE, STRANGER, Caller
from instructrec_deploy.server.access.gate import Gate
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.bridge import Bridge
from instructrec_deploy.server.failures import describe_failure
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.quotas import Quotas
from instructrec_deploy.server.served import Model
from instructrec_deploy.server.settings import DoorSettings
from instructrec_deploy.server.shelf import Shelf, Stand
from instructrec_deploy.wire.answers import (
    write_batch,
    write_change,
    write_prediction,
    write_prepared,
    write_status,
)
from instructrec_deploy.wire.feedback import read_feedback, write_receipt
from instructrec_deploy.wire.requests import (
    SERVICE,
    parse,
    read_batch,
    read_prepare,
    read_request,
)

# request, deadline, who asks -> response
Handle = Callable[[bytes, float | None, Caller], Awaitable[bytes]]
Call: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Item = Future[Prediction] | InstructRecError  # of a batch
log = logging.getLogger(f"{LOGGER}.server")


class CallerContext(Protocol):
    """What a call says about who makes it."""

    def invocation_metadata(self) -> Any: ...

    def auth_context(self) -> Any: ...


class Addressed(Protocol):
    """A message that may name the model it is for."""

    model: str
    model_version: str


class Operator(Protocol):
    """Who changes what is served."""

    def refused(self) -> Sequence[ServedModel]:
        """What lies there and cannot be served."""

    async def swap(self, model: str, *, is_rollback: bool) -> ModelChange:
        """Serve the newest version that is there, or the one before.

        Raises:
            ModelUnknown, RollbackImpossible, BundleError: as their names say; nothing changes then.
        """


class InstructRecService:
    """Answers calls with the model it has been given; refuses them before and after.

    All methods run on the event loop.
    """

    def __init__(
        self,
        settings: DoorSettings,
        metrics: Metrics,
        *,
        gate: Gate | None = None,
        quotas: Quotas | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate or Gate(AccessSettings())
        self._quotas = quotas or Quotas(OverloadSettings(), metrics)
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._bridge = Bridge(asyncio.get_running_loop())
        self._anyone = ANYONE if settings.is_loopback else STRANGER
        self._shelf: Shelf | None = None
        self._is_closing = False
        self.operator: Operator | None = None  # who swaps versions; None: nobody
        self._refusal = "the model is still loading"
        self._n_in_flight = 0
        self._last_call_s = 0.0
        self.closers: set[Callable[[], None]] = set()  # called when it closes, by streams
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.watch("instructrec_requests_in_flight", lambda: self._n_in_flight)

    def open(self, models: Sequence[Model], *, default: str = "") -> None:
        """Answer with these models from now on; the newest version of a name stands last.

        `default`: who answers where a request names none; "": the only one.
        """
        self._shelf = Shelf(models, self._settings, default=default)
        if not self._is_closing:
            self._refusal = ""

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

    def answers(self) -> dict[str, Any]:
        """The guarded handler of each method."""
        methods: dict[str, Handle] = {
            "Predict": self._predict,
            "PredictBatch": self._predict_batch,
            "PrepareInstruction": self._prepare,
            "Feedback": self._feedback,
            "SwapModel": self._swap,
        }
        guarded = {name: self.guard(name, handle) for name, handle in methods.items()}
        # Status is told while loading and draining, too.
        guarded["GetModelStatus"] = self.guard("GetModelStatus", self._status, needs_model=False)
        return guarded

    def handlers(self) -> grpc.GenericRpcHandler:
        """What to register with the gRPC server."""
        wrapped: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(answer)
            for name, answer in self.answers().items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, wrapped)

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
            status, caller = "OK", None
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
                known = self._known_error(error, method)
                status = known.grpc_status
                self._metrics.count_error(known)
                failure = describe_failure(known)
                await context.abort(failure.status, failure.message, failure.metadata)
                raise AssertionError("abort raises") from error
            finally:
                if not is_refused:
                    self._n_in_flight -= 1
                if not self._n_in_flight:
                    self._idle.set()
                self._last_call_s = self._clock()
                self._metrics.count_call(method, status, self._last_call_s - start)
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

    def find_stands(self) -> list[Stand]:
        """The models that there are, ready or not."""
        return [] if self._shelf is None else list(self._shelf)

    def find_stand(self, name: str = "", version: str = "") -> Stand:
        """Who answers a call; asked once for each, so that no two versions have a hand in it.

        Raises:
            ModelUnknown, RequestError: as `Shelf.pick`.
            Unavailable: none is loaded yet.
        """
        if self._shelf is None:
            raise Unavailable(self._refusal, hint="try again, or another server")
        return self._shelf.pick(name, version)

    def stand_for(self, message: Addressed, caller: Caller) -> Stand:
        """Who answers a message, if the caller may ask that model.

        Raises:
            ModelUnknown, RequestError, Unavailable: as `find_stand`.
            Denied: it may not.
        """
        stand = self.find_stand(message.model, message.model_version)
        caller.check_model(stand.model.name)
        return stand

    async def _predict(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(pb.PredictRequest, data)
        stand = self.stand_for(message, caller)
        request = read_request(message, stand.limits, stand.memo.read)
        future = self._quotas.submit(stand.model, request, deadline, caller)
        prediction = await self._bridge.wait(future)
        self._metrics.count_prediction(prediction)
        return write_prediction(prediction).SerializeToString()

    async def _predict_batch(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(pb.PredictBatchRequest, data)
        items = self.submit_batch(self.stand_for(message, caller), message, deadline, caller)
        return write_batch(await self.wait_batch(items)).SerializeToString()

    def submit_batch(
        self,
        stand: Stand,
        message: pb.PredictBatchRequest | pb.PredictStreamRequest,
        deadline: float | None,
        caller: Caller,
    ) -> list[Item]:
        """Queue the requests of a batch; one that is refused is its error.

        Raises:
            RequestError: the batch as a whole is unusable.
        """
        if any(item.model not in ("", message.model) for item in message.requests):
            raise RequestError(
                "a text of the batch names another model than the batch",
                hint="set `model` of the batch, and send a batch to each model",
            )
        return [
            self._submit_item(stand.model, item, deadline, caller)
            for item in read_batch(message, stand.limits, stand.memo.read)
        ]

    async def wait_batch(self, items: Sequence[Item]) -> list[Prediction | InstructRecError]:
        """A prediction or an error for each item, in order, when all are done."""
        await self._bridge.wait_all([item for item in items if isinstance(item, Future)])
        return [self.item_result(item) for item in items]

    def _submit_item(
        self,
        model: Model,
        item: Request | InstructRecError,
        deadline: float | None,
        caller: Caller,
    ) -> Item:
        if isinstance(item, InstructRecError):
            return item
        try:
            return self._quotas.submit(model, item, deadline, caller)
        except InstructRecError as error:
            return error

    def item_result(
        self, item: Item, method: str = "PredictBatch"
    ) -> Prediction | InstructRecError:
        """What an item that is done came to; it is counted."""
        if isinstance(item, Future):
            try:
                prediction = item.result(0)
            except Exception as error:  # noqa: BLE001 one bad item does not sink the others
                item = self._known_error(error, method)
            else:
                self._metrics.count_prediction(prediction)
                return prediction
        self._metrics.count_error(item)
        return item

    async def _prepare(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(pb.PrepareInstructionRequest, data)
        stand = self.stand_for(message, caller)
        question = read_prepare(message, stand.limits, stand.memo.read)
        caller.check_questions((question,))
        model = stand.model
        instruction = model.find(question)
        is_cached = model.is_prepared(instruction)
        prepared = await self._bridge.wait(self._quotas.prepare(model, instruction, caller))
        info = PreparedInfo(prepared.key, len(prepared.labels), is_cached, prepared.size_bytes)
        return write_prepared(info).SerializeToString()

    async def _feedback(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        try:
            message = parse(pb.FeedbackRequest, data)
            names = {stand.model.name for stand in self.find_stands()}
            # It may correct what is not served any more; then the default model's tasks count.
            stand = self.find_stand(message.model if message.model in names else "")
            caller.check_model(stand.model.name)
            feedback = read_feedback(message, stand.limits)
            caller.check_task(feedback.task)
            receipt = await self._bridge.wait(stand.model.keep(feedback))
        except InstructRecError:
            self._metrics.count_feedback("refused")
            raise
        is_new = receipt.outcome != "duplicate"
        self._metrics.count_feedback("accepted" if is_new else "duplicate")
        return write_receipt(receipt).SerializeToString()

    async def _status(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        request = parse(pb.GetModelStatusRequest, data)
        status = ModelStatus(models=self._served_models(caller))
        default = "" if self._shelf is None else self._shelf.default
        if self._shelf is not None and (request.model or (default and caller.opens(default))):
            stand = self.stand_for(request, caller)
            found = stand.model.status(
                stand.limits, is_ready=not self._refusal, with_labels=request.with_labels
            )
            status = replace(found, models=status.models)
        elif self._shelf is not None:
            status = replace(status, is_ready=not self._refusal)
        return write_status(status).SerializeToString()

    def _served_models(self, caller: Caller) -> tuple[ServedModel, ...]:
        """What serves and what is refused, as far as the caller may ask it."""
        models = [stand.model for stand in self.find_stands()]
        found = [ServedModel(model.name, model.version, model.release) for model in models]
        refused = self.operator.refused() if self.operator is not None else ()
        return tuple(one for one in (*found, *refused) if caller.opens(one.model))

    async def _swap(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        request = parse(pb.SwapModelRequest, data)
        if self.operator is None:
            raise Unavailable("this server swaps no models", hint="start it anew")
        change = await self.operator.swap(request.model, is_rollback=request.rollback)
        return write_change(change).SerializeToString()

"""The calls of `instructrec.v1.InstructRec`: bytes in, bytes out, every error mapped.

Handlers are registered for raw bytes and parse them here: left to itself, gRPC answers INTERNAL
for bytes that are no message or no UTF-8.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

import grpc

from instructrec_deploy.core.errors import (
    InstructRecError,
    RequestError,
    Unavailable,
)
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.status import ModelChange, ModelStatus, PreparedInfo, ServedModel
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.runtime.admission import OverloadSettings
from instructrec_deploy.server.access.callers import Caller
from instructrec_deploy.server.access.gate import Gate
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.bridge import Bridge
from instructrec_deploy.server.guarded import GuardedCalls, unary_handlers
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.quotas import Quotas
from instructrec_deploy.server.served import Model
from instructrec_deploy.server.settings import DoorSettings
from instructrec_deploy.server.shelf import Shelf, Stand
from instructrec_deploy.server.tracing.tracer import Tracer
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
Item = Future[Prediction] | InstructRecError  # of a batch


class Operator(Protocol):
    """Who changes what is served."""

    def refused(self) -> Sequence[ServedModel]:
        """What lies there and cannot be served."""

    async def swap(self, model: str, *, is_rollback: bool) -> ModelChange:
        """Serve the newest version that is there, or the one before.

        Raises:
            ModelUnknown, RollbackImpossible, BundleError: as their names say; nothing changes then.
        """


class InstructRecService(GuardedCalls):
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
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            metrics,
            gate or Gate(AccessSettings()),
            tracer or Tracer(),
            is_loopback=settings.is_loopback,
            clock=clock,
        )
        self._settings = settings
        self._quotas = quotas or Quotas(OverloadSettings(), metrics)
        self._bridge = Bridge(asyncio.get_running_loop())
        self._shelf: Shelf | None = None
        self.operator: Operator | None = None  # who swaps versions; None: nobody

    def open(self, models: Sequence[Model], *, default: str = "") -> None:
        """Answer with these models from now on; the newest version of a name stands last.

        `default`: who answers where a request names none; "": the only one.
        """
        self._shelf = Shelf(models, self._settings, default=default)
        if not self._is_closing:
            self._refusal = ""

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
        return unary_handlers(SERVICE, self.answers())

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

    def stand_for(self, caller: Caller, name: str = "", version: str = "") -> Stand:
        """Who answers a call, if the caller may ask that model.

        Raises:
            ModelUnknown, RequestError, Unavailable: as `find_stand`.
            Denied: it may not.
        """
        stand = self.find_stand(name, version)
        caller.check_model(stand.model.name)
        return stand

    async def _predict(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(pb.PredictRequest, data)
        stand = self.stand_for(caller, message.model, message.model_version)
        request = read_request(message, stand.limits, stand.memo.read)
        future = self._quotas.submit(stand.model, request, deadline, caller)
        prediction = await self._bridge.wait(future)
        self._metrics.count_predictions((prediction,))
        self._tracer.note(prediction)
        return write_prediction(prediction).SerializeToString()

    async def _predict_batch(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(pb.PredictBatchRequest, data)
        stand = self.stand_for(caller, message.model, message.model_version)
        items = self.submit_batch(stand, message, deadline, caller)
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
        return self.item_results(items)

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

    def item_results(
        self, items: Sequence[Item], method: str = "PredictBatch"
    ) -> list[Prediction | InstructRecError]:
        """What items that are done came to, in order; they are counted."""
        found = [self._item_result(item, method) for item in items]
        predictions = [one for one in found if isinstance(one, Prediction)]
        self._metrics.count_predictions(predictions)
        for prediction in predictions:
            self._tracer.note(prediction)
        return found

    def _item_result(self, item: Item, method: str) -> Prediction | InstructRecError:
        if isinstance(item, Future):
            try:
                return item.result(0)
            except Exception as error:  # noqa: BLE001 one bad item does not sink the others
                item = self._known_error(error, method)
        self._metrics.count_error(item)
        return item

    async def _prepare(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(pb.PrepareInstructionRequest, data)
        stand = self.stand_for(caller, message.model, message.model_version)
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
            stand = self.stand_for(caller, message.model if message.model in names else "")
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
            stand = self.stand_for(caller, request.model, request.model_version)
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

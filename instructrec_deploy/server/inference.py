"""The calls of `inference.GRPCInferenceService`, the Open Inference Protocol, on the same model.

Counting, access, errors and batches are those of `InstructRecService`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import grpc

from instructrec_deploy import __version__
from instructrec_deploy.core.errors import InstructRecError, ModelUnknown
from instructrec_deploy.core.failure import rebuild_error
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.inference import open_inference_pb2 as oip
from instructrec_deploy.server.access.callers import Caller
from instructrec_deploy.server.guarded import unary_handlers
from instructrec_deploy.server.health import Health
from instructrec_deploy.server.service import Handle, InstructRecService
from instructrec_deploy.wire.inference import (
    INFERENCE_SERVICE,
    PLATFORM,
    read_infer,
    write_config,
    write_infer,
    write_metadata,
)
from instructrec_deploy.wire.requests import parse

EXTENSIONS = ("parameters",)


class InferenceService:
    """Translates, and lets the service answer. All methods run on the event loop."""

    def __init__(self, service: InstructRecService, health: Health) -> None:
        self._service = service
        self._health = health

    def handlers(self) -> grpc.GenericRpcHandler:
        """What to register with the gRPC server."""
        told: dict[str, Handle] = {  # while loading and draining, too
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "RepositoryIndex": self._index,
        }
        guard = self._service.guard
        guarded = {name: guard(name, handle, needs_model=False) for name, handle in told.items()}
        guarded["ServerLive"] = guard("ServerLive", self._live, needs_model=False, is_open=True)
        guarded["ModelInfer"] = guard("ModelInfer", self._infer)
        return unary_handlers(INFERENCE_SERVICE, guarded)

    async def _infer(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(oip.ModelInferRequest, data)
        stand = self._service.stand_for(caller, message.model_name, message.model_version)
        infer = read_infer(message, stand.limits)
        items = self._service.submit_batch(stand, infer.batch, deadline, caller)
        try:
            _check_whole(items)
        except InstructRecError:
            for item in items:
                if isinstance(item, Future):
                    item.cancel()
            raise
        found = await self._service.wait_batch(items)
        _check_whole(found)
        predictions = [item for item in found if isinstance(item, Prediction)]
        return write_infer(infer, predictions).SerializeToString()

    async def _live(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        parse(oip.ServerLiveRequest, data)
        return oip.ServerLiveResponse(live=True).SerializeToString()

    async def _server_ready(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        parse(oip.ServerReadyRequest, data)
        return oip.ServerReadyResponse(
            ready=self._health.is_ready(INFERENCE_SERVICE)
        ).SerializeToString()

    async def _model_ready(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(oip.ModelReadyRequest, data)
        is_ready = self._health.is_ready(message.name)
        if is_ready:
            try:
                self._service.find_stand(message.name, message.version)
            except ModelUnknown:
                is_ready = False
        return oip.ModelReadyResponse(ready=is_ready).SerializeToString()

    async def _server_metadata(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        parse(oip.ServerMetadataRequest, data)
        message = oip.ServerMetadataResponse(
            name=PLATFORM, version=__version__, extensions=EXTENSIONS
        )
        return message.SerializeToString()

    async def _model_metadata(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(oip.ModelMetadataRequest, data)
        model = self._service.find_stand(message.name, message.version).model
        return write_metadata(model.name, model.version).SerializeToString()

    async def _model_config(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        message = parse(oip.ModelConfigRequest, data)
        stand = self._service.find_stand(message.name, message.version)
        return write_config(stand.model.name, stand.limits).SerializeToString()

    async def _index(self, data: bytes, deadline: float | None, caller: Caller) -> bytes:
        request = parse(oip.RepositoryIndexRequest, data)
        answer = oip.RepositoryIndexResponse()
        for stand in self._service.find_stands():
            model = stand.model
            is_ready = self._health.is_ready(model.name)
            if not caller.opens(model.name):
                continue
            if is_ready or not request.ready:
                state = "READY" if is_ready else "UNAVAILABLE"
                answer.models.add(name=model.name, version=model.version, state=state)
        return answer.SerializeToString()


def _check_whole(items: Sequence[object]) -> None:
    """There is no answer to a part of the texts.

    Raises:
        InstructRecError: the first error among the items, and which text it is about.
    """
    for i, error in enumerate(items):
        if isinstance(error, InstructRecError):
            raise rebuild_error(
                error.message if len(items) == 1 else f"text[{i}]: {error.message}",
                code=error.code,
                status=error.grpc_status,
                hint=error.hint,
                retry_after_ms=getattr(error, "retry_after_ms", 0),
            )

"""`grpc.health.v1`: whether the process lives, and, by name, whether it takes requests.

The name "" is liveness: SERVING for as long as the process answers at all, so that an orchestrator
does not kill a server that loads or drains. A service's and a model's name are readiness: SERVING
once the model is loaded and its golden pairs agree, until the server drains.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health_aio

from instructrec_deploy.core.errors import TextUndecodable
from instructrec_deploy.server.failures import describe_failure
from instructrec_deploy.wire.requests import parse

LIVENESS = ""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """What the health service answers. For one event loop."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services`: names of gRPC services, which are ready when any model is."""
        self._servicer = health_aio.HealthServicer()
        self._services = tuple(services)
        self._ready: set[str] = set()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What to register with the gRPC server.

        Messages are read here: left to itself, gRPC answers INTERNAL for bytes that are none.
        """
        write = health_pb2.HealthCheckResponse.SerializeToString
        check, watch = _reading(self._servicer.Check), _reading(self._servicer.Watch)
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(check, response_serializer=write),
            "Watch": grpc.unary_stream_rpc_method_handler(watch, response_serializer=write),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    def is_ready(self, name: str) -> bool:
        """Whether that service or model takes requests."""
        return name in self._ready

    async def start(self) -> None:
        """The process answers; nothing is ready."""
        await self._servicer.set(LIVENESS, SERVING)
        for name in self._services:
            await self._servicer.set(name, NOT_SERVING)

    async def open(self, models: Iterable[str]) -> None:
        """These models, and so the services, take requests; others that did are gone."""
        names = {*self._services, *models}
        gone, self._ready = self._ready - names, names
        for name in names:
            await self._servicer.set(name, SERVING)
        for name in gone:
            await self._servicer.set(name, NOT_SERVING)

    async def close(self) -> None:
        """Nothing takes requests any more; the process goes on."""
        names, self._ready = {*self._services, *self._ready}, set()
        for name in names:
            await self._servicer.set(name, NOT_SERVING)


def _reading(answer: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[bytes, Any], Any]:
    """A handler of bytes from one of messages."""

    async def read(data: bytes, context: Any) -> Any:
        try:
            message = parse(health_pb2.HealthCheckRequest, data)
        except TextUndecodable as error:
            failure = describe_failure(error)
            await context.abort(failure.status, failure.message, failure.metadata)
        return await answer(message, context)

    return read

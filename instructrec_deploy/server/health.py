"""`grpc.health.v1`: whether the process lives, and, by name, whether it takes requests.

The name "" is liveness: SERVING for as long as the process answers at all, so that an orchestrator
does not kill a server that loads or drains. A service's and a model's name are readiness: SERVING
once the model is loaded and its golden pairs agree, until the server drains.
"""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

LIVENESS = ""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """What the health service answers. `servicer` is what to register. For one event loop."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services`: names of gRPC services, which are ready when any model is."""
        self.servicer = health_aio.HealthServicer()
        self._services = tuple(services)
        self._ready: set[str] = set()

    def is_ready(self, name: str) -> bool:
        """Whether that service or model takes requests."""
        return name in self._ready

    async def start(self) -> None:
        """The process answers; nothing is ready."""
        await self.servicer.set(LIVENESS, SERVING)
        for name in self._services:
            await self.servicer.set(name, NOT_SERVING)

    async def open(self, models: Iterable[str]) -> None:
        """These models, and so the services, take requests; others that did are gone."""
        names = {*self._services, *models}
        gone, self._ready = self._ready - names, names
        for name in names:
            await self.servicer.set(name, SERVING)
        for name in gone:
            await self.servicer.set(name, NOT_SERVING)

    async def close(self) -> None:
        """Nothing takes requests any more; the process goes on."""
        names, self._ready = {*self._services, *self._ready}, set()
        for name in names:
            await self.servicer.set(name, NOT_SERVING)

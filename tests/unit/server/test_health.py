"""Liveness is the process's, readiness a service's and a model's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from instructrec_deploy.server.health import NOT_SERVING, SERVING, Health

UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
ONE, OTHER, MODEL = "a.One", "b.Other", "意图 model"


def play(scene: Callable[[Health, health_pb2_grpc.HealthStub], Awaitable[None]]) -> None:
    async def run() -> None:
        health = Health((ONE, OTHER))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((health.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await health.start()
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await scene(health, health_pb2_grpc.HealthStub(channel))
        await server.stop(0)

    asyncio.run(run())


async def statuses(stub: health_pb2_grpc.HealthStub, *names: str) -> list[int]:
    requests = [health_pb2.HealthCheckRequest(service=name) for name in names]
    return [(await stub.Check(request, timeout=5)).status for request in requests]


def test_loading_and_draining_servers_are_alive_and_not_ready() -> None:
    async def scene(health: Health, stub: health_pb2_grpc.HealthStub) -> None:
        assert await statuses(stub, "", ONE, OTHER) == [SERVING, NOT_SERVING, NOT_SERVING]
        await health.open((MODEL,))
        assert await statuses(stub, "", ONE, OTHER, MODEL) == [SERVING] * 4
        await health.close()
        assert await statuses(stub, "", ONE, OTHER, MODEL) == [SERVING] + [NOT_SERVING] * 3

    play(scene)


def test_a_watcher_sees_a_model_come_and_go() -> None:
    async def scene(health: Health, stub: health_pb2_grpc.HealthStub) -> None:
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=MODEL), timeout=5)
        seen = [(await watch.read()).status]
        await health.open((MODEL,))
        seen.append((await watch.read()).status)
        await health.close()
        seen.append((await watch.read()).status)
        assert seen == [UNKNOWN, SERVING, NOT_SERVING]

    play(scene)

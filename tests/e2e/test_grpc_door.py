"""The load's own gRPC client against grpcio's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from benchmarks.serving.grpc_door import MAX_PAYLOAD, CallFailed, GrpcDoor

SERVICE, METHOD = "test.Echo", "Call"
PATH = f"/{SERVICE}/{METHOD}"
Handler = Callable[[bytes, Any], Awaitable[bytes]]


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[tuple[grpc.aio.Server, GrpcDoor]]:
    """A server with one method, and a door to it."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    door = await GrpcDoor.open(address, PATH)
    try:
        yield server, door
    finally:
        door.close()
        await server.stop(0)


def test_messages_arrive_whole_also_more_of_them_than_the_window_holds() -> None:
    sent = [bytes([number]) * (MAX_PAYLOAD - number) for number in range(64)]
    got: list[bytes] = []

    async def take(data: bytes, context: Any) -> bytes:
        got.append(data)
        return data

    async def run() -> None:
        async with connected(take) as (_, door):
            await asyncio.wait_for(asyncio.gather(*map(door.call, sent)), 60)

    asyncio.run(run())
    assert sorted(got) == sorted(sent)


def test_a_status_other_than_ok_is_told_and_the_connection_goes_on() -> None:
    async def refuse(data: bytes, context: Any) -> bytes:
        if data == b"no":
            details = ("key", "value")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "没有位置", (details,))
        return b"yes"

    async def run() -> None:
        async with connected(refuse) as (_, door):
            for _ in range(2):
                with pytest.raises(CallFailed, match=r"^8$"):
                    await door.call(b"no")
                await door.call(b"yes")

    asyncio.run(run())


def test_a_deadline_is_sent_along() -> None:
    left_s: list[float] = []

    async def look(data: bytes, context: Any) -> bytes:
        left_s.append(context.time_remaining())
        return b""

    async def run() -> None:
        async with connected(look) as (_, door):
            await door.call(b"")

    asyncio.run(run())
    assert 0 < left_s[0] <= 30


def test_calls_fail_when_the_connection_is_gone() -> None:
    async def hang(data: bytes, context: Any) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return b""

    async def run() -> None:
        async with connected(hang) as (server, door):
            call = door.call(b"")
            await began.wait()
            await server.stop(0)
            with pytest.raises(CallFailed):
                await call
            with pytest.raises(CallFailed, match="not connected"):
                await door.call(b"")

    began = asyncio.Event()
    asyncio.run(run())


def test_what_needs_several_frames_is_refused() -> None:
    async def take(data: bytes, context: Any) -> bytes:
        return b""

    async def run() -> None:
        async with connected(take) as (_, door):
            with pytest.raises(ValueError, match="one frame"):
                door.call(bytes(MAX_PAYLOAD + 1))

    asyncio.run(run())

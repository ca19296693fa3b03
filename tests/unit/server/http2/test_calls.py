"""Calls of gRPC's own client, and of clients that break the rules, on a server of ours."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import hpack
import pytest

from instructrec_deploy.server.http2 import connection as connection_module
from instructrec_deploy.server.http2 import link as link_module
from instructrec_deploy.server.http2 import manners as manners_module
from instructrec_deploy.server.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header,
    number_frame,
    settings_frame,
)
from instructrec_deploy.server.http2.messages import packed
from instructrec_deploy.server.http2.server import Http2Server

MAX_BYTES = 3 << 20


class Service:
    """Methods of all four kinds; `cancelled` are those whose caller left."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.hold = asyncio.Event()

    async def echo(self, data: bytes, context: Any) -> bytes:
        if data == b"refuse":
            more = (("a-key", "a value"), ("a-bin", b"\x00\xff"))
            await context.abort(grpc.StatusCode.NOT_FOUND, "没有 100%", more)
        if data == b"break":
            raise ValueError("someone's text")
        if data == b"wait":
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.append("echo")
                raise
        if data == b"metadata":
            return repr(dict(context.invocation_metadata())["key"]).encode()
        if data == b"time":
            return repr(context.time_remaining()).encode()
        return data

    async def count(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(data)):
            yield str(number).encode()

    async def join(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([message async for message in messages])

    async def talk(self, messages: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            if message == b"refuse":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            await context.write(message)

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "t.T",
            {
                "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
                "Count": grpc.unary_stream_rpc_method_handler(self.count),
                "Join": grpc.stream_unary_rpc_method_handler(self.join),
                "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            },
        )


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Service, Http2Server, str]]:
    service = Service()
    server = Http2Server(max_bytes=MAX_BYTES, **options)
    server.add_generic_rpc_handlers((service.handlers(),))
    port = server.listen_on("127.0.0.1", 0)
    await server.start()
    try:
        yield service, server, f"127.0.0.1:{port}"
    finally:
        await server.stop(0.2)


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(in_time())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_all_four_kinds_of_methods() -> None:
    async def scene() -> None:
        async with serving() as (_, _, address), grpc.aio.insecure_channel(address) as channel:
            echo = channel.unary_unary("/t.T/Echo")
            for size in (0, 1, 16_379, 16_380, 70_000, MAX_BYTES):
                data = bytes(i % 251 for i in range(size))
                assert await echo(data) == data
            sent = [str(i).encode() for i in range(200)]
            assert [one async for one in channel.unary_stream("/t.T/Count")(b"200")] == sent
            assert await channel.stream_unary("/t.T/Join")(iter(sent)) == b"".join(sent)
            call = channel.stream_stream("/t.T/Talk")(iter(sent))
            assert [one async for one in call] == sent
            answers = await asyncio.gather(*(echo(str(i).encode()) for i in range(500)))
            assert answers == [str(i).encode() for i in range(500)]

    run(scene)


@pytest.mark.parametrize("word", ["gzip", "deflate", ""])
@pytest.mark.parametrize("asked", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
def test_compression_both_ways(word: str, asked: grpc.Compression) -> None:
    async def scene() -> None:
        async with (
            serving(compression=word) as (_, _, address),
            grpc.aio.insecure_channel(address, compression=asked) as channel,
        ):
            data = b"where is my card? " * 20_000
            assert await channel.unary_unary("/t.T/Echo")(data) == data

    run(scene)


def test_statuses_metadata_and_unknown_methods() -> None:
    async def scene() -> None:
        async with serving() as (_, _, address), grpc.aio.insecure_channel(address) as channel:
            echo = channel.unary_unary("/t.T/Echo")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(b"refuse")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "没有 100%"
            told = dict(caught.value.trailing_metadata() or ())
            assert (told["a-key"], told["a-bin"]) == ("a value", b"\x00\xff")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(b"break")
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            assert "text" not in str(caught.value.details())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/t.T/Gone")(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(bytes(MAX_BYTES + 1))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await echo(b"metadata", metadata=(("key", "v"),)) == b"'v'"
            assert await echo(b"time") == b"None"
            assert 20 < float(await echo(b"time", timeout=30)) < 31  # gRPC rounds up
            call = channel.stream_stream("/t.T/Talk")(iter([b"a", b"refuse", b"b", b"c"]))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [one async for one in call]
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(scene)


def test_callers_who_leave_and_deadlines_stop_the_work() -> None:
    async def scene() -> None:
        async with serving() as (service, server, address):
            async with grpc.aio.insecure_channel(address) as channel:
                echo = channel.unary_unary("/t.T/Echo")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await echo(b"wait", timeout=0.2)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                await until(lambda: len(service.cancelled) == 1)
                left = echo(b"wait")
                await asyncio.sleep(0.2)
                left.cancel()
                await until(lambda: len(service.cancelled) == 2)
                cut = asyncio.ensure_future(echo(b"wait"))
                await asyncio.sleep(0.2)
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await cut
            await until(lambda: len(service.cancelled) == 3)
            await until(lambda: server.n_calls == 0)

    run(scene)


def test_a_retired_connection_finishes_its_calls_and_callers_come_back() -> None:
    async def scene() -> None:
        async with (
            serving(max_age_s=0.1) as (_, _, address),
            grpc.aio.insecure_channel(address) as channel,
        ):
            echo = channel.unary_unary("/t.T/Echo")
            end = asyncio.get_running_loop().time() + 1.5
            n = 0
            while asyncio.get_running_loop().time() < end:
                found = await asyncio.gather(*(echo(b"x") for _ in range(8)))
                n += len(found)
            assert n > 16

    run(scene)


def test_a_stopped_server_lets_calls_end_and_refuses_none_it_took() -> None:
    async def scene() -> None:
        async with (
            serving() as (service, server, address),
            grpc.aio.insecure_channel(address) as channel,
        ):
            under_way = asyncio.ensure_future(channel.unary_unary("/t.T/Echo")(b"wait"))
            await until(lambda: server.n_calls == 1)
            stopping = asyncio.ensure_future(server.stop(20))
            await asyncio.sleep(0.1)
            service.hold.set()
            assert await under_way == b"wait"
            await stopping

    run(scene)


# --- by hand


class Raw:
    """A client that sends any bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address: str, *, preface: bytes = PREFACE + frame(SETTINGS, 0, 0)) -> Raw:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(preface)
        return cls(reader, writer)

    async def next(self, *kinds: int) -> tuple[int, int, int, bytes]:
        """The next frame of these kinds."""
        while True:
            head = await self.reader.readexactly(9)
            content = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] in kinds:
                return head[3], head[4], int.from_bytes(head[5:9], "big"), content

    async def goaway(self) -> int:
        """The error code of the end, behind which nothing comes."""
        *_, content = await self.next(GOAWAY)
        assert await self.reader.read() == b""
        return int(struct.unpack(">I", content[4:8])[0])


def ask(
    stream: int, message: bytes = b"", path: str = "/t.T/Echo", *more: tuple[str, str]
) -> bytes:
    """Headers and one message."""
    return headers(stream, path, *more) + frame(DATA, END_STREAM, stream, packed(message))


def block_of(path: str = "/t.T/Echo", *more: tuple[str, str]) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), ("te", "trailers")]
    fields += [("content-type", "application/grpc"), *more]
    return b"".join(header(name.encode(), value.encode()) for name, value in fields)


def headers(stream: int, path: str = "/t.T/Echo", *more: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block_of(path, *more))


BAD = {
    "no preface": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", PROTOCOL_ERROR),
    "too long a frame": (PREFACE + b"\xff\xff\xff\x00" + bytes(5), FRAME_SIZE_ERROR),
    "an even stream": (PREFACE + headers(2), PROTOCOL_ERROR),
    "data of no stream": (PREFACE + frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "data of the connection": (PREFACE + frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "a reset of no stream": (PREFACE + number_frame(RST_STREAM, 5, 0), PROTOCOL_ERROR),
    "a short ping": (PREFACE + frame(PING, 0, 0, b"1"), FRAME_SIZE_ERROR),
    "settings cut": (PREFACE + frame(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
    "no window step": (PREFACE + number_frame(WINDOW_UPDATE, 0, 0), FLOW_CONTROL_ERROR),
    "too wide a window": (
        PREFACE + 2 * number_frame(WINDOW_UPDATE, 0, 2**31 - 1),
        FLOW_CONTROL_ERROR,
    ),
    "headers cut by data": (
        PREFACE + frame(HEADERS, 0, 1, block_of()) + frame(DATA, 0, 1, b"x"),
        PROTOCOL_ERROR,
    ),
    "continuation of nothing": (PREFACE + frame(CONTINUATION, 0, 1, b"x"), PROTOCOL_ERROR),
    "headers without end": (
        PREFACE + frame(HEADERS, 0, 1, b"") + 9 * frame(CONTINUATION, 0, 1, bytes(16_384)),
        ENHANCE_YOUR_CALM,
    ),
    "a table bomb": (
        PREFACE
        + frame(
            HEADERS,
            END_HEADERS,
            1,
            b"\x40\x01a" + b"\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 12_000,
        ),
        ENHANCE_YOUR_CALM,
    ),
    "damaged headers": (PREFACE + frame(HEADERS, END_HEADERS, 1, b"\xff\xff"), 9),
    "resets without end": (
        PREFACE
        + b"".join(headers(n) + number_frame(RST_STREAM, n, 8) for n in range(1, 20_000, 2)),
        ENHANCE_YOUR_CALM,
    ),
    "settings without end": (PREFACE + 10_000 * frame(SETTINGS, 0, 0), ENHANCE_YOUR_CALM),
    "pings without end": (PREFACE + 9 * frame(PING, 0, 0, bytes(8)), ENHANCE_YOUR_CALM),
    "empty data without end": (
        PREFACE + headers(1) + 10_000 * frame(DATA, 0, 1),
        ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_connection_that_breaks_the_rules_ends_and_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manners_module, "IDLE_FRAMES_PER_S", 0)  # a busy machine is slow to count
    sent, code = BAD[name]

    async def scene() -> None:
        async with serving() as (_, server, address):
            other = await Raw.open(address)
            bad = await Raw.open(address, preface=sent)
            assert await bad.goaway() == code
            other.writer.write(ask(1, b"still there"))
            assert (await other.next(DATA))[3] == packed(b"still there")
            await until(lambda: server.n_calls == 0)

    run(scene)


def test_answers_wait_for_the_callers_windows() -> None:
    async def scene() -> None:
        async with serving() as (_, server, address):
            narrow = settings_frame([(INITIAL_WINDOW_SIZE, 10)])
            raw = await Raw.open(address, preface=PREFACE + narrow)
            raw.writer.write(ask(1, b"a" * 30) + ask(3, b"b"))
            frames = [await raw.next(DATA), await raw.next(DATA)]
            by_stream = {stream: content for _, _, stream, content in frames}
            assert by_stream == {1: packed(b"a" * 30)[:10], 3: packed(b"b")}
            raw.writer.write(number_frame(WINDOW_UPDATE, 1, 15))
            assert (await raw.next(DATA))[3] == packed(b"a" * 30)[10:25]
            raw.writer.write(settings_frame([(INITIAL_WINDOW_SIZE, 40)]))
            assert (await raw.next(DATA))[3] == packed(b"a" * 30)[25:]
            assert (await raw.next(HEADERS))[1] & END_STREAM
            await until(lambda: server.n_calls == 0)

    run(scene)


def test_a_caller_who_reads_nothing_is_not_answered_into_memory() -> None:
    async def scene() -> None:
        async with serving() as (_, server, address):
            raw = await Raw.open(address)
            for n in range(1, 401, 2):  # 200 answers of 16 kB, and a window for four of them
                raw.writer.write(ask(n, bytes(16_000)))
                await raw.writer.drain()
            await until(lambda: 190 < server.n_calls <= 200)
            raw.writer.close()
            await until(lambda: server.n_calls == 0)

    run(scene)


def test_what_no_handler_takes_is_kept_up_to_a_limit_and_from_all_callers_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "HELD_BYTES", 100_000)
    monkeypatch.setattr(connection_module, "HELD_MESSAGES", 0)
    whole = packed(bytes(60_000))
    begun = frame(DATA, 0, 1, whole[:16_000]) + frame(DATA, 0, 1, whole[16_000:30_000])

    def begin(stream: int) -> bytes:
        return headers(stream) + begun.replace(struct.pack(">I", 1), struct.pack(">I", stream))

    async def scene() -> None:
        async with serving() as (_, server, address):
            greedy, modest = await Raw.open(address), await Raw.open(address)
            decoder = hpack.Decoder()
            for stream in (1, 3, 5, 7):  # 120,000 bytes: the last one has no room
                greedy.writer.write(begin(stream))
            _, _, stream, block = await greedy.next(HEADERS)
            assert (stream, dict(decoder.decode(block))["grpc-status"]) == (7, "8")
            assert server._shared.held_bytes == 90_000
            short = packed(bytes(40_000))  # beyond the limit, but below this caller's share of it
            parts = [short[at : at + 16_000] for at in range(0, len(short), 16_000)]
            modest.writer.write(headers(1) + b"".join(frame(DATA, 0, 1, one) for one in parts))
            modest.writer.write(frame(DATA, END_STREAM, 1, b""))
            assert (await modest.next(HEADERS))[2] == 1
            assert (await modest.next(DATA))[2] == 1
            for stream in (1, 3):
                greedy.writer.write(number_frame(RST_STREAM, stream, 8))
            greedy.writer.write(ask(9, b"well"))
            assert (await greedy.next(DATA))[3] == packed(b"well")
            assert server._shared.held_bytes == 30_000
            greedy.writer.close()
            modest.writer.close()
            await until(lambda: server._shared.held_bytes == 0)

    run(scene)


def test_what_is_no_call_of_grpc_is_refused() -> None:
    async def scene() -> None:
        async with serving() as (_, _, address):
            raw = await Raw.open(address)
            decoder = hpack.Decoder()
            plain = header(b":method", b"GET") + header(b":path", b"/")
            raw.writer.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, plain))
            assert decoder.decode((await raw.next(HEADERS))[3]) == [(":status", "415")]
            for stream, more, status in (
                (3, ("grpc-encoding", "br"), "12"),
                (5, ("grpc-timeout", "soon"), "13"),
                (7, ("x-bin", "A"), "13"),
            ):
                raw.writer.write(ask(stream, b"", "/t.T/Echo", more))
                told = dict(decoder.decode((await raw.next(HEADERS))[3]))
                assert told["grpc-status"] == status
            raw.writer.write(headers(9) + frame(DATA, END_STREAM, 9, packed(b"a") + packed(b"b")))
            assert dict(decoder.decode((await raw.next(HEADERS))[3]))["grpc-status"] == "13"
            raw.writer.write(ask(11, b"well"))
            assert (await raw.next(DATA))[3] == packed(b"well")

    run(scene)


def test_silent_connections_are_pinged_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PING_TIMEOUT_S", 0.2)
    monkeypatch.setattr(link_module, "PREFACE_S", 0.3)

    async def scene() -> None:
        async with serving(keepalive_s=0.1) as (_, _, address):
            mute = await Raw.open(address, preface=b"PRI")
            silent = await Raw.open(address)
            alive = await Raw.open(address)
            for _ in range(3):
                _, _, _, content = await alive.next(PING)
                alive.writer.write(frame(PING, ACK, 0, content))
            for cut in (mute, silent):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await cut.next(GOAWAY)
            alive.writer.write(ask(1, b"here"))
            assert (await alive.next(DATA))[3] == packed(b"here")

    run(scene)


def test_a_retired_connection_says_so_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "AGE_JITTER", 0.0)

    async def scene() -> None:
        async with serving(max_age_s=0.2) as (service, _, address):
            raw = await Raw.open(address)
            raw.writer.write(ask(1, b"wait"))
            *_, first = await raw.next(GOAWAY)
            *_, content = await raw.next(PING)
            raw.writer.write(ask(3, b"late") + frame(PING, ACK, 0, content))
            *_, second = await raw.next(GOAWAY)
            assert (await raw.next(DATA))[3] == packed(b"late")
            last = [int.from_bytes(one[:4], "big") for one in (first, second)]
            assert last == [2**31 - 1, 3]
            raw.writer.write(ask(5, b"too late"))
            service.hold.set()
            assert (await raw.next(DATA))[2] == 1
            assert (await raw.next(HEADERS))[2] == 1
            assert await raw.reader.read() == b""

    run(scene)

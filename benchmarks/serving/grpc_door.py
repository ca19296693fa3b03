"""Unary gRPC calls over one connection, HTTP/2 written by hand, so that the load takes little.

gRPC's own client for Python takes four times the processor time of this one for a call, nearly what
an empty server takes: on cores that load and server share it would be measured along with the
server. Peers that speak HTTP are asked by a client of forty lines, too. Frames are RFC 9113, header
blocks RFC 7541 without a dynamic table, messages the gRPC protocol over HTTP/2. Answers are
not parsed beyond their status.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE = 1, 2, 4
MOST = 2**31 - 1
DEFAULT_WINDOW = 65_535  # octets of data that may be under way before the other side says more
MAX_PAYLOAD = 16_384 - 5  # one frame, as every server takes it
STATUS_NAME = b"grpc-status"
OK = 0


class CallFailed(Exception):
    """A call came to no answer. Its text: gRPC's status as a number, or what befell the stream."""


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """A frame with its head."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def header_block(authority: str, path: str, timeout_s: int, key: str = "") -> bytes:
    """The headers of a call: names by the static table where it has them, values as they are.

    No value may have more than 126 characters.
    """

    def text(words: str) -> bytes:
        data = words.encode()
        return bytes([len(data)]) + data

    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + text(path),
            b"\x01" + text(authority),
            b"\x00" + text("te") + text("trailers"),
            b"\x0f\x10" + text("application/grpc"),  # content-type
            b"\x00" + text("grpc-timeout") + text(f"{timeout_s}S"),
            b"\x00" + text("authorization") + text(f"Bearer {key}") if key else b"",
        )
    )


def read_status(block: bytes) -> int | None:
    """gRPC's status in a header block; None where it has none (those that come before the data).

    Raises:
        CallFailed: it has one, in a form that is not read here.
    """
    at = block.find(STATUS_NAME)
    if at < 0:
        return None
    length, *value = block[at + len(STATUS_NAME) :][:3]
    digits = bytes(value[:length])
    if length > 2 or not digits.isdigit():
        raise CallFailed("unreadable status")
    return int(digits)


class GrpcDoor(asyncio.Protocol):
    """Calls of one method. Calls made in one turn of the loop go out as one write."""

    def __init__(self, address: str, path: str, *, timeout_s: int = 30, key: str = "") -> None:
        self._block = header_block(address, path, timeout_s, key)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Future[None]] = {}
        self._next_stream = 1
        self._out: list[bytes] = []
        self._left = b""  # of a frame that has not come whole
        self._window = DEFAULT_WINDOW
        self._held: deque[tuple[int, bytes]] = deque()  # messages that wait for the window

    @classmethod
    async def open(cls, address: str, path: str, *, timeout_s: int = 30, key: str = "") -> GrpcDoor:
        """A door that is connected; `key` goes along with each call."""
        host, port = address.rsplit(":", 1)
        loop = asyncio.get_running_loop()
        _, door = await loop.create_connection(
            lambda: cls(address, path, timeout_s=timeout_s, key=key), host, int(port)
        )
        return door

    def call(self, payload: bytes) -> asyncio.Future[None]:
        """Send a message; done when its answer is whole.

        Raises (from the future):
            CallFailed: its status is not OK, or the connection is gone.
            ValueError: the message needs more than one frame.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"{len(payload)} bytes are more than one frame")
        if self._transport is None or self._transport.is_closing():
            done.set_exception(CallFailed("not connected"))
            return done
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._calls[stream] = done
        self._write(frame(HEADERS, END_HEADERS, stream, self._block))
        message = b"\x00" + struct.pack(">I", len(payload)) + payload
        self._held.append((stream, message))
        self._send_held()
        return done

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's
        wanted = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, MOST))
        settings = b"".join(struct.pack(">HI", *pair) for pair in wanted)
        more = struct.pack(">I", MOST - DEFAULT_WINDOW)
        self._write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        for stream in list(self._calls):
            self._end(stream, "connection lost")

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._left:
            data = self._left + data
        at, size = 0, len(data)
        while size - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind == HEADERS:
                self._on_headers(flags, stream, data[at + 9 : end])
            elif kind != DATA:
                self._on_control(kind, flags, stream, data[at + 9 : end])
            at = end
        self._left = data[at:]

    def _on_headers(self, flags: int, stream: int, block: bytes) -> None:
        if not flags & END_STREAM:
            return
        try:
            status = read_status(block)
        except CallFailed as error:
            self._end(stream, str(error))
            return
        self._end(stream, "" if status == OK else str(status))

    def _on_control(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, content))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(content, "big")
            self._send_held()
        elif kind == RST_STREAM:
            self._end(stream, f"stream reset ({int.from_bytes(content, 'big')})")
        elif kind == GOAWAY:
            self.close()

    def _end(self, stream: int, fault: str) -> None:
        done = self._calls.pop(stream, None)
        if done is None or done.done():
            return
        if fault:
            done.set_exception(CallFailed(fault))
        else:
            done.set_result(None)

    def _send_held(self) -> None:
        """Messages go out in order, as far as the connection's window reaches."""
        while self._held and len(self._held[0][1]) <= self._window:
            stream, message = self._held.popleft()
            self._window -= len(message)
            self._write(frame(DATA, END_STREAM, stream, message))

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

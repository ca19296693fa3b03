"""What a supervisor and a worker say to each other: frames of JSON over a socket pair.

A frame is four bytes of length (big-endian) and one JSON object; its "kind" says what it is. The
other side's end is the end of the stream: a worker whose supervisor is gone drains, a supervisor
learns so that a worker has died.

supervisor -> worker: plan, go (listen now), figures (tell them), retire (another took your place)
worker -> supervisor: loaded, ready, figures, failed (why it cannot serve)
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

Message = dict[str, Any]
LENGTH = struct.Struct(">I")


def pack(kind: str, **content: Any) -> bytes:
    """A frame."""
    data = json.dumps({"kind": kind, **content}).encode()
    return LENGTH.pack(len(data)) + data


def read_frame(sock: socket.socket) -> Message:
    """The next frame of a blocking socket.

    Raises:
        EOFError: the other side is gone.
    """
    (size,) = LENGTH.unpack(_read(sock, LENGTH.size))
    return _parse(_read(sock, size))


class Link:
    """One end, for a running event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Link:
        """Over a connected socket, which is closed with the link."""
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer)

    def send(self, kind: str, **content: Any) -> None:
        """Send a frame; nothing happens where the other side is gone."""
        if not self._writer.is_closing():
            self._writer.write(pack(kind, **content))

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        try:
            await self._writer.drain()
        except ConnectionError:  # it shows as the end of the stream, too
            return

    async def receive(self) -> Message | None:
        """The next frame; None where the other side is gone."""
        try:
            (size,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            return _parse(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """End it; what was sent still arrives."""
        self._writer.close()


def _parse(data: bytes) -> Message:
    message: Message = json.loads(data)
    return message


def _read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError("the other side is gone")
        data += part
    return bytes(data)

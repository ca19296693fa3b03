"""A connection below its calls: bytes to frames and back, whether it lives, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from instructrec_deploy.server.http2.frames import (
    FRAME_BYTES,
    FRAME_SIZE_ERROR,
    HEAD_BYTES,
    MAX_STREAM,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    ProtocolError,
    frame,
    goaway_frame,
)
from instructrec_deploy.server.http2.manners import Manners

PREFACE_S = 20.0  # for a connection to say that it speaks HTTP/2
PING_TIMEOUT_S = 20.0  # a ping without an answer for so long: the other side is gone
END_S = 5.0  # for the last frames to be taken
MAX_UNREAD = 64 << 20  # bytes that a caller leaves lying, answers apart: those wait for it


class Link(asyncio.Protocol):
    """Reads frames and keeps those to send until the turn of the loop ends.

    All methods run on the event loop. `keepalive_s`: silence after which the caller is pinged; 0:
    never.
    """

    def __init__(self, keepalive_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.manners = Manners(self.loop.time)
        self.last_stream = 0  # the highest that came
        self.is_closing = False
        self._keepalive_s = keepalive_s
        self._transport: asyncio.Transport | None = None
        self._left = b""  # of a frame that has not come whole
        self._has_preface = False
        self._out: list[bytes] = []
        self._is_paused = False
        self._has_heard = False  # since the last look of `_keep_alive`
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._identity: Mapping[str, list[bytes]] | None = None

    def read(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        """A frame that came.

        Raises:
            ProtocolError: it breaks the protocol; the connection ends.
        """
        raise NotImplementedError

    def has_room(self) -> None:
        """What is sent goes out again, after it did not."""

    # --- the transport's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's
        self.later("preface", PREFACE_S, self.abort)
        if self._keepalive_s:
            self.later("alive", self._keepalive_s, self._keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.is_closing = True
        for timer in self._timers.values():
            timer.cancel()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._is_paused = False
        self.has_room()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.is_closing:
            return
        self._has_heard = True
        if self._left:
            data = self._left + data
        try:
            at = 0 if self._has_preface else self._read_preface(data)
            size = len(data)
            while size - at >= HEAD_BYTES and self._has_preface:
                length = int.from_bytes(data[at : at + 3], "big")
                if length > FRAME_BYTES:
                    raise ProtocolError(FRAME_SIZE_ERROR, "a frame longer than was settled")
                end = at + HEAD_BYTES + length
                if end > size:
                    break
                stream = int.from_bytes(data[at + 5 : at + HEAD_BYTES], "big") & MAX_STREAM
                self.read(data[at + 3], data[at + 4], stream, data[at + HEAD_BYTES : end])
                at = end
            self._left = data[at:]
        except ProtocolError as error:
            self._left = b""
            self.close(error.code, str(error))

    def _read_preface(self, data: bytes) -> int:
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ProtocolError(PROTOCOL_ERROR, "this port speaks HTTP/2")
        if len(data) < len(PREFACE):
            return 0
        self._has_preface = True
        self._timers.pop("preface").cancel()
        return len(PREFACE)

    # --- what goes out

    @property
    def takes(self) -> bool:
        """Whether bytes go out, and are not merely kept."""
        return not self._is_paused

    def send(self, data: bytes) -> None:
        """Frames of an answer. Pings of a caller that gets something are no nuisance."""
        self.manners.answered()
        self.keep(data)

    def keep(self, data: bytes) -> None:
        """Any frames: those of one turn of the loop go out as one write."""
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if not data or self._transport is None or self.is_closing:
            return
        was_paused = self._is_paused
        self._transport.write(data)
        if was_paused and self._transport.get_write_buffer_size() > MAX_UNREAD + len(data):
            self.abort()  # it sends and sends, and reads nothing of what that costs

    # --- who it is

    @property
    def identity(self) -> Mapping[str, list[bytes]]:
        """As gRPC's authentication context."""
        if self._identity is None:
            self._identity = _identity(self._transport)
        return self._identity

    @property
    def peer(self) -> str:
        """The address of the caller."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unknown"

    # --- its life

    def close(self, code: int = NO_ERROR, reason: str = "") -> None:
        """Say why and end it: what is under way has no answer."""
        if not self.is_closing:
            self.keep(goaway_frame(self.last_stream, code, reason.encode()))
            self.end()

    def end(self) -> None:
        """End it when what was sent is taken."""
        self._flush()
        self.is_closing = True
        transport = self._transport
        if transport is None:
            return
        if not transport.can_write_eof():
            transport.close()
        elif not transport.is_closing():
            # Closed with something unread, TCP would take back what was sent: the caller, who reads
            # the end, closes first.
            transport.write_eof()
        self.later("end", END_S, self.abort)

    def abort(self) -> None:
        """End it without a word."""
        if self._transport is not None:
            self._transport.abort()

    def later(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        """Do something unless the connection is gone by then."""
        self._timers[name] = self.loop.call_later(seconds, act)

    def _keep_alive(self) -> None:
        """A connection that says nothing is pinged, and cut where no answer comes."""
        if self._has_heard:
            self._has_heard = False
            self.later("alive", self._keepalive_s, self._keep_alive)
            return
        self.keep(frame(PING, 0, 0, b"alive?\0\0"))
        self.later("alive", PING_TIMEOUT_S, self._cut_if_silent)

    def _cut_if_silent(self) -> None:
        if self._has_heard:
            self._keep_alive()
        else:
            self.abort()


def _identity(transport: asyncio.Transport | None) -> Mapping[str, list[bytes]]:
    """Who a client's certificate was made out to, under the names of gRPC's core."""
    secured = transport.get_extra_info("ssl_object") if transport is not None else None
    if secured is None:
        return {}
    found: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}
    certificate = secured.getpeercert() or {}
    for parts in certificate.get("subject", ()):
        for name, value in parts:
            if name == "commonName":
                found.setdefault("x509_common_name", []).append(value.encode())
    for _, value in certificate.get("subjectAltName", ()):
        found.setdefault("x509_subject_alternative_name", []).append(value.encode())
    return found

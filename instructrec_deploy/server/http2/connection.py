"""A caller's connection: frames to calls, answers to frames, and what it may not do.

Written on an event loop for the one thing it does, where gRPC's own core takes another thread's
wakeups for each call (docs/adr/0016-http2.md has the figures). Sources: RFC 9113, and of gRPC the
rules about pings (A8, "too_many_pings") and about leaving (GOAWAY twice).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from instructrec_deploy.core.failure import STATUS_NUMBERS
from instructrec_deploy.server.http2.call import Call
from instructrec_deploy.server.http2.frames import (
    ACCEPTED_ENCODINGS,
    ACK,
    ANSWER_BLOCK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_BYTES,
    FRAME_SIZE_ERROR,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_STREAM,
    MAX_WINDOW,
    NO_ERROR,
    PADDED,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    ProtocolError,
    frame,
    goaway_frame,
    header,
    header_frames,
    number_frame,
    read_metadata,
    read_timeout,
    settings_frame,
    status_block,
    unpadded,
)
from instructrec_deploy.server.http2.headers import HEADER_BYTES, HeaderReader, Headers
from instructrec_deploy.server.http2.link import Link

CALLS = 8192  # under way on a connection; a client keeps more to itself until some are done
CALL_WINDOW = 1 << 20  # bytes of a call that may be under way to us
OWN_WINDOW = 8 << 20  # and of all calls of a connection
HELD_BYTES = 64 << 20  # of messages that no handler has taken, all connections together
HELD_MESSAGES = 16  # of the longest kind: so many at least have room
LEAVE_S = 5.0  # between the two GOAWAYs, at most: until a ping is answered
AGE_JITTER = 0.1  # so that not all callers connect anew at one moment
_LEAVING = b"leaving!"  # of the ping between them


@dataclass
class Shared:
    """What all connections of a server have in common."""

    find: Callable[[str], Any]  # the handler of a path; None: there is none
    max_bytes: int
    keepalive_s: float = 0.0
    max_age_s: float = 0.0
    compression: str = ""
    connections: set[Connection] = field(default_factory=set)
    held_bytes: int = 0  # of messages that no handler has taken

    @property
    def max_held_bytes(self) -> int:
        """Past them, who holds more than an equal share is to hold no more."""
        return max(HELD_BYTES, HELD_MESSAGES * self.max_bytes)


class Connection(Link):
    """The calls of a connection, and the windows they share. See the module."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.keepalive_s)
        self.window = WINDOW_BYTES  # that the caller lets us send
        self._shared = shared
        self._calls: dict[int, Call] = {}
        self._waiting: dict[int, Call] = {}  # for room
        self._headers = HeaderReader()
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags: headers to go on
        self._is_leaving = False
        self._taken_to = MAX_STREAM  # streams beyond are not read any more
        self._call_window = WINDOW_BYTES  # of answers, for each new call
        self._held_bytes = 0  # of messages that no handler has taken
        self._owed = self._owed_back = 0  # bytes that came; of them, that may be allowed again

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._shared.connections.add(self)
        values = (
            (MAX_CONCURRENT_STREAMS, CALLS),
            (INITIAL_WINDOW_SIZE, CALL_WINDOW),
            (MAX_HEADER_LIST_SIZE, HEADER_BYTES),
        )
        self.keep(settings_frame(values))
        self.keep(number_frame(WINDOW_UPDATE, 0, OWN_WINDOW - WINDOW_BYTES))
        if age_s := self._shared.max_age_s:
            self.later("age", age_s * random.uniform(1, 1 + AGE_JITTER), self.retire)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._shared.connections.discard(self)
        for call in list(self._calls.values()):
            call.drop()

    # --- what came

    def read(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        """See `Link`."""
        if self._block is not None and (kind != CONTINUATION or stream != self._block[0]):
            raise ProtocolError(PROTOCOL_ERROR, "headers that do not go on")
        if kind == DATA:
            self._on_data(flags, stream, content)
        elif kind == HEADERS:
            block = unpadded(flags, content) if flags & (PADDED | HAS_PRIORITY) else content
            self._on_block(flags, stream, bytearray(block))
        elif kind == WINDOW_UPDATE:
            self._on_window(stream, content)
        elif kind == RST_STREAM:
            self._on_reset(stream)
        elif kind == PING:
            self._on_ping(flags, content)
        elif kind == SETTINGS:
            self._on_settings(flags, content)
        elif kind == CONTINUATION:
            self._on_continuation(flags, content)
        # Others say nothing: a caller that sends GOAWAY makes no new calls, and closes.

    def _on_data(self, flags: int, stream: int, content: bytes) -> None:
        self._owed += len(content)
        if self._owed > OWN_WINDOW:
            raise ProtocolError(FLOW_CONTROL_ERROR, "more data than was allowed")
        if not content and not flags & END_STREAM:
            self.manners.count()
        call = self._calls.get(stream)
        if call is None:
            if stream > self.last_stream or not stream:
                raise ProtocolError(PROTOCOL_ERROR, "data of a stream that was never opened")
            self.repay(0, len(content))
            return
        data = unpadded(flags & PADDED, content) if flags & PADDED else content
        if len(data) < len(content):
            self.repay(stream, len(content) - len(data))
        call.receive(data, ends=bool(flags & END_STREAM))

    def _on_block(self, flags: int, stream: int, block: bytearray) -> None:
        if not flags & END_HEADERS:
            self._block = (stream, flags, block)
            return
        headers = self._headers.read(bytes(block))
        if stream <= self.last_stream:
            self.manners.count()
            call = self._calls.get(stream)
            if call is not None and flags & END_STREAM:  # trailers of the caller's: it has ended
                call.receive(b"", ends=True)
            return
        if not stream % 2:
            raise ProtocolError(PROTOCOL_ERROR, "a stream that only a server opens")
        if stream > self._taken_to:
            return  # it was told that it would not be read
        self.last_stream = stream
        if len(self._calls) >= CALLS:
            self.manners.count()
            self.send(number_frame(RST_STREAM, stream, REFUSED_STREAM))
            return
        self._open(stream, headers, ends=bool(flags & END_STREAM))

    def _on_continuation(self, flags: int, content: bytes) -> None:
        if self._block is None:
            raise ProtocolError(PROTOCOL_ERROR, "headers that did not begin")
        stream, first, block = self._block
        block += content
        self.manners.count()
        if len(block) > HEADER_BYTES:
            raise ProtocolError(ENHANCE_YOUR_CALM, "headers too long")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(first | END_HEADERS, stream, block)

    def _open(self, stream: int, headers: Headers, *, ends: bool) -> None:
        """A new call."""
        fields = dict(headers)
        path = fields.get(b":path", b"")
        kind = fields.get(b"content-type", b"")
        if fields.get(b":method") != b"POST" or not kind.startswith(b"application/grpc"):
            block = header(b":status", b"415") if path else header(b":status", b"400")
            self.send(header_frames(stream, block, ends=True))
            self.manners.count()
            return
        encoding = fields.get(b"grpc-encoding", b"identity").decode("latin-1")
        if encoding not in ("identity", "gzip", "deflate"):
            accepted = header(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
            self._refuse(stream, "UNIMPLEMENTED", f"no such compression: {encoding}", accepted)
            return
        handler = self._shared.find(path.decode("latin-1"))
        if handler is None:
            self._refuse(stream, "UNIMPLEMENTED", "no such method")
            return
        try:
            raw_timeout = fields.get(b"grpc-timeout")
            timeout_s = None if raw_timeout is None else read_timeout(raw_timeout.decode("latin-1"))
            metadata = read_metadata(headers)
        except (ValueError, ProtocolError) as error:
            self._refuse(stream, "INTERNAL", str(error))
            return
        takes = fields.get(b"grpc-accept-encoding", b"").decode("latin-1")
        wanted = self._shared.compression
        call = self._calls[stream] = Call(
            self,
            stream,
            self._call_window,
            metadata,
            timeout_s=timeout_s,
            max_bytes=self._shared.max_bytes,
            encoding=encoding,
            answer_encoding=wanted if wanted and wanted in takes else "",
        )
        call.start(handler)
        if ends:
            call.receive(b"", ends=True)

    def _refuse(self, stream: int, status: str, message: str, more: bytes = b"") -> None:
        """End a call that never was one."""
        block = ANSWER_BLOCK + status_block(STATUS_NUMBERS[status], message) + more
        self.send(header_frames(stream, block, ends=True))
        self.manners.count()

    def _on_window(self, stream: int, content: bytes) -> None:
        if len(content) != 4:
            raise ProtocolError(FRAME_SIZE_ERROR, "WINDOW_UPDATE of another size")
        n_bytes = int.from_bytes(content, "big") & MAX_WINDOW
        if not stream:
            self.window += n_bytes
            if not n_bytes or self.window > MAX_WINDOW:
                raise ProtocolError(FLOW_CONTROL_ERROR, "a window too large, or no step")
            self.has_room()
        elif (call := self._calls.get(stream)) is not None:
            if not n_bytes or call.window + n_bytes > MAX_WINDOW:
                self.send(number_frame(RST_STREAM, stream, FLOW_CONTROL_ERROR))
                call.drop()
            else:
                call.widen(n_bytes)

    def _on_reset(self, stream: int) -> None:
        if not stream or stream > self.last_stream:
            raise ProtocolError(PROTOCOL_ERROR, "a reset of a stream that was never opened")
        self.manners.count()
        if (call := self._calls.get(stream)) is not None:
            call.drop()

    def _on_ping(self, flags: int, content: bytes) -> None:
        if len(content) != 8:
            raise ProtocolError(FRAME_SIZE_ERROR, "PING of another size")
        if flags & ACK:
            if content == _LEAVING:
                self._leave()
            return
        self.manners.count_ping()
        self.keep(frame(PING, ACK, 0, content))

    def _on_settings(self, flags: int, content: bytes) -> None:
        if flags & ACK:
            return
        if len(content) % 6:
            raise ProtocolError(FRAME_SIZE_ERROR, "SETTINGS of another size")
        self.manners.count()
        for at in range(0, len(content), 6):
            name = int.from_bytes(content[at : at + 2], "big")
            value = int.from_bytes(content[at + 2 : at + 6], "big")
            if name == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ProtocolError(FLOW_CONTROL_ERROR, "a window too large")
                step, self._call_window = value - self._call_window, value
                for call in list(self._calls.values()):
                    call.widen(step)
            elif name == MAX_FRAME_SIZE and value < FRAME_BYTES:
                raise ProtocolError(PROTOCOL_ERROR, "frames too short")
        self.keep(frame(SETTINGS, ACK, 0))

    # --- what calls ask

    def wait(self, call: Call) -> None:
        """See `Line`."""
        self._waiting[call.stream] = call

    def repay(self, stream: int, n_bytes: int) -> None:
        """See `Line`."""
        if stream and n_bytes:
            self.keep(number_frame(WINDOW_UPDATE, stream, n_bytes))
        self._owed_back += n_bytes
        if self._owed_back >= OWN_WINDOW // 4:
            self._owed -= self._owed_back
            self.keep(number_frame(WINDOW_UPDATE, 0, self._owed_back))
            self._owed_back = 0

    def hold(self, n_bytes: int) -> bool:
        """See `Line`."""
        shared = self._shared
        self._held_bytes += n_bytes
        shared.held_bytes += n_bytes
        if n_bytes <= 0 or shared.held_bytes <= shared.max_held_bytes:
            return True
        return self._held_bytes * len(shared.connections) <= shared.max_held_bytes

    def forget(self, call: Call) -> None:
        """See `Line`."""
        self._calls.pop(call.stream, None)
        self._waiting.pop(call.stream, None)
        if self._is_leaving and not self._calls and self._taken_to < MAX_STREAM:
            self.end()

    # --- its life

    def retire(self) -> None:
        """Tell the caller to connect anew; calls that are under way go on.

        Twice: first that it should begin no more calls here, then, when that has arrived, which of
        them were not read. So no call is lost between the two.
        """
        if self._is_leaving or self.is_closing:
            return
        self._is_leaving = True
        self.send(goaway_frame(MAX_STREAM, NO_ERROR) + frame(PING, 0, 0, _LEAVING))
        self.later("leave", LEAVE_S, self._leave)

    def _leave(self) -> None:
        if not self._is_leaving or self._taken_to < MAX_STREAM:
            return
        self._taken_to = self.last_stream
        self.send(goaway_frame(self.last_stream, NO_ERROR))
        if not self._calls:
            self.end()

    @property
    def n_calls(self) -> int:
        """How many are under way."""
        return len(self._calls)

    def has_room(self) -> None:
        """See `Link`."""
        while self._waiting and self.takes and self.window > 0:
            call = self._waiting.pop(next(iter(self._waiting)))
            call.pump()

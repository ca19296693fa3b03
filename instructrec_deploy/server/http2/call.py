"""One call on a connection: its messages, its deadline, its end; what handlers call the context."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn, Protocol

import grpc

from instructrec_deploy.core.failure import STATUS_NUMBERS
from instructrec_deploy.server.http2.frames import (
    ANSWER_BLOCK,
    DATA,
    FRAME_BYTES,
    OK_BLOCK,
    Metadata,
    answer_block,
    frame,
    header_frames,
    status_block,
)
from instructrec_deploy.server.http2.messages import MessageReader, MessageRefused, packed
from instructrec_deploy.server.logs import LOGGER

LINGER_S = 0.5  # that a status waits for a caller who is still sending
MAX_WAITING = 4  # messages that nobody has read: past them the caller is to send no more
log = logging.getLogger(f"{LOGGER}.server")


class Aborted(Exception):
    """A handler has ended its call: its status is on its way."""


class Line(Protocol):
    """What a call asks of its connection. Windows are in bytes."""

    loop: asyncio.AbstractEventLoop
    window: int

    @property
    def takes(self) -> bool:
        """Whether bytes go out, and are not merely kept."""

    def send(self, data: bytes) -> None:
        """Frames that go out in this turn of the loop."""

    def wait(self, call: Call) -> None:
        """Pump the call again as soon as the connection has room."""

    def repay(self, stream: int, n_bytes: int) -> None:
        """The caller may send so many more bytes on a stream."""

    def hold(self, n_bytes: int) -> bool:
        """So many more bytes are kept for handlers, or fewer; False: there is no room for them."""

    def forget(self, call: Call) -> None:
        """The call is over."""

    @property
    def identity(self) -> Mapping[str, list[bytes]]:
        """As gRPC's authentication context."""

    @property
    def peer(self) -> str:
        """The address of the caller."""


class Call:
    """A call, from its headers to its trailers. All methods run on the event loop.

    Args:
        line: its connection.
        stream: its number there.
        metadata: of the caller.
        timeout_s: the caller's; None: it waits.
        max_bytes: of a message.
        encoding: of the caller's compressed messages.
        answer_encoding: of ours; "": they are not compressed.
    """

    __slots__ = (
        *("_answer_encoding", "_drained", "_end_s", "_handler", "_has_begun", "_has_ended"),
        *("_held", "_last", "_line", "_lingers", "_messages", "_metadata", "_out", "_owed"),
        *("_reader", "_readers_turn", "_task", "_timer", "_unread", "is_over", "stream", "window"),
    )

    def __init__(
        self,
        line: Line,
        stream: int,
        window: int,
        metadata: tuple[tuple[str, str | bytes], ...],
        *,
        timeout_s: float | None,
        max_bytes: int,
        encoding: str = "",
        answer_encoding: str = "",
    ) -> None:
        self._line = line
        self.stream = stream
        self.window = window
        self._metadata = metadata
        self._answer_encoding = answer_encoding
        self._reader = MessageReader(max_bytes, encoding)
        self._handler: Any = None
        self._messages: deque[bytes] = deque()
        self._readers_turn: asyncio.Future[None] | None = None
        self._owed = 0  # bytes that came and were not allowed again
        self._unread = 0  # bytes of `_messages`
        self._held = 0  # bytes that came and no handler has taken, as its line was told
        self._out: deque[bytes] = deque()  # what the windows have not let pass
        self._drained: asyncio.Future[None] | None = None
        self._last: bytes | None = None  # the trailers, behind what has to go out before
        self._has_begun = self._has_ended = self.is_over = False
        self._task: asyncio.Task[None] | None = None
        self._end_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lingers: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            self._end_s = line.loop.time() + timeout_s
            self._timer = line.loop.call_later(timeout_s, self._expire)

    # --- what the connection tells

    def start(self, handler: Any) -> None:
        """Answer by this handler of gRPC's; one that takes one message waits for it."""
        self._handler = handler
        if handler.request_streaming:
            self._task = self._line.loop.create_task(self._answer(self._iterate()))

    def receive(self, data: bytes, *, ends: bool) -> None:
        """Data from the caller; `ends`: its last."""
        if self.is_over or self._last is not None:
            self._line.repay(0, len(data))
            if ends and not self.is_over:
                self._has_ended = True
                self._linger_no_more()
            return
        try:
            found = self._reader.feed(data)
        except MessageRefused as error:
            self._refuse(data, error.status, str(error))
            return
        self._messages += found
        self._unread += sum(map(len, found))
        if not ends and not self._hold():
            self._refuse(data, "RESOURCE_EXHAUSTED", "too much is being sent at once")
            return
        self._owed += len(data)
        if not ends:
            self._repay()
        else:
            self._forgive()
            self._end_of_messages()
        self._wake()

    def _refuse(self, data: bytes, status: str, reason: str) -> None:
        """End the call for what came; nothing of it is kept."""
        self._line.repay(0, len(data))
        self._drop_messages()
        self._stop()
        self.end(status, reason)

    def _drop_messages(self) -> None:
        self._messages.clear()
        self._reader.clear()
        self._unread = 0
        self._hold()

    def _hold(self) -> bool:
        """Tell the line what is kept here; False: it is too much."""
        held = self._reader.n_bytes + self._unread
        more, self._held = held - self._held, held
        return not more or self._line.hold(more)

    def _end_of_messages(self) -> None:
        self._has_ended = True
        if self._handler is None or self._handler.request_streaming or self._task is not None:
            return
        if len(self._messages) != 1 or self._reader.n_bytes:
            self.end("INTERNAL", "a call of one message has one, and all of it")
            return
        message: Any = self._messages.popleft()
        self._unread = 0
        self._hold()
        self._task = self._line.loop.create_task(self._answer(message))

    def _repay(self) -> None:
        """Let the caller send on, unless what came has not been read."""
        if len(self._messages) < MAX_WAITING and self._owed:
            self._line.repay(self.stream, self._owed)
            self._owed = 0

    def _forgive(self) -> None:
        """Others of the connection may send what this call will not."""
        self._line.repay(0, self._owed)
        self._owed = 0

    def drop(self) -> None:
        """The caller has left: nobody waits for the answer."""
        self._has_ended = True
        self._close()
        self._stop()

    def widen(self, n_bytes: int) -> None:
        """The caller takes so many more bytes."""
        self.window += n_bytes
        if self._out:
            self.pump()

    def pump(self) -> None:
        """Send what the windows let pass."""
        if self.is_over:
            return
        line, out = self._line, self._out
        while out:
            if not line.takes or line.window <= 0:
                line.wait(self)
                return
            if self.window <= 0:
                return
            data = out[0]
            n = min(len(data), self.window, line.window, FRAME_BYTES)
            self.window -= n
            line.window -= n
            line.send(frame(DATA, 0, self.stream, data[:n]))
            if n < len(data):
                out[0] = data[n:]
            else:
                out.popleft()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._last is None or self._lingers is not None:
            return
        if line.takes:
            self._send_last(self._last)
        else:
            line.wait(self)

    # --- what handlers ask

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The caller's metadata, names in small letters."""
        return self._metadata

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Who the caller's certificate was made out to."""
        return self._line.identity

    def peer(self) -> str:
        """The caller's address."""
        return self._line.peer

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        return None if self._end_s is None else max(0.0, self._end_s - self._line.loop.time())

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call.

        Raises:
            Aborted: always.
        """
        self.end(code.name, details, trailing_metadata)
        raise Aborted

    async def read(self) -> Any:
        """The caller's next message; `grpc.aio.EOF` behind the last."""
        while not self._messages:
            if self._has_ended:
                return grpc.aio.EOF
            self._readers_turn = self._line.loop.create_future()
            await self._readers_turn
        message = self._messages.popleft()
        self._unread -= len(message)
        self._hold()
        self._repay()
        return message

    async def write(self, message: Any) -> None:
        """Send a message, and wait while the caller does not take it."""
        if self.is_over or self._last is not None:
            return
        self._begin()
        write = self._handler.response_serializer
        data = message if write is None else write(message)
        self._out.append(packed(data, self._answer_encoding))
        self.pump()
        if self._out:
            self._drained = self._line.loop.create_future()
            await self._drained

    # --- the answer

    def _begin(self) -> None:
        """The headers before the first message."""
        if not self._has_begun:
            self._has_begun = True
            self._line.send(header_frames(self.stream, answer_block(self._answer_encoding)))

    def end(self, status: str, message: str = "", metadata: Metadata = ()) -> None:
        """The call's status, behind the messages before it; the first one counts."""
        if self.is_over or self._last is not None:
            return
        block = status_block(STATUS_NUMBERS[status], message, metadata)
        if not self._has_begun and not self._out:
            block = ANSWER_BLOCK + block
        self._last = block
        if status != "OK" and not self._has_ended and self._handler.request_streaming:
            # gRPC's Python client takes a message it could not send for an error of its own, and
            # does not read the status that says why: it is given a moment to have sent all.
            self._lingers = self._line.loop.call_later(LINGER_S, self._linger_no_more)
        self.pump()

    def _linger_no_more(self) -> None:
        if self._lingers is not None:
            self._lingers.cancel()
            self._lingers = None
        self.pump()

    def _send_last(self, block: bytes) -> None:
        # No reset follows where the caller has not sent all: it would race with the status, which
        # some clients then do not read. They stop by themselves, or at the end of their window.
        self._line.send(header_frames(self.stream, block, ends=True))
        self._close()

    def _close(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._out.clear()
        self._forgive()
        self._drop_messages()
        for timer in (self._timer, self._lingers):
            if timer is not None:
                timer.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._line.forget(self)

    async def _answer(self, given: Any) -> None:
        handler = self._handler
        try:
            if handler.request_deserializer is not None and not handler.request_streaming:
                given = handler.request_deserializer(given)
            if handler.response_streaming:
                begin = handler.stream_stream or handler.unary_stream
                made = begin(given, self)
                if hasattr(made, "__aiter__"):
                    async for message in made:
                        await self.write(message)
                else:
                    await made
                self.end("OK")
            else:
                begin = handler.stream_unary if handler.request_streaming else handler.unary_unary
                message = await begin(given, self)
                write = handler.response_serializer
                self._reply(message if write is None else write(message))
        except Aborted:
            pass
        except asyncio.CancelledError:
            self.end("CANCELLED", "the call was cancelled")
        except Exception as error:
            log.error("stray exception", exc_info=error)
            self.end("UNKNOWN", f"unexpected {type(error).__name__}")

    def _reply(self, message: bytes) -> None:
        """The one message of an answer, and the end of the call."""
        if self.is_over or self._last is not None:
            return
        data = packed(message, self._answer_encoding)
        self._begin()
        self._out.append(data)
        self._last = OK_BLOCK
        self.pump()

    async def _iterate(self) -> AsyncIterator[Any]:
        """The caller's messages, for handlers that take them so."""
        read = self._handler.request_deserializer
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message if read is None else read(message)

    def _expire(self) -> None:
        self._stop()
        self.end("DEADLINE_EXCEEDED", "Deadline Exceeded")

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._readers_turn is not None and not self._readers_turn.done():
            self._readers_turn.set_result(None)

"""PredictStream: requests are read while there is room, answers written as they are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc

from instructrec_deploy.core.errors import InstructRecError, Unavailable
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.server.access.callers import Caller
from instructrec_deploy.server.bridge import Bridge
from instructrec_deploy.server.guarded import Call
from instructrec_deploy.server.service import InstructRecService, Item
from instructrec_deploy.server.settings import DoorSettings
from instructrec_deploy.wire.answers import write_stream
from instructrec_deploy.wire.requests import SERVICE, check_items, parse

METHOD = "PredictStream"
MAX_WRITTEN = 64  # answers of one message: other people's clients take 4 MiB


class StreamService:
    """The call `PredictStream` of `InstructRecService`."""

    def __init__(self, service: InstructRecService, settings: DoorSettings) -> None:
        self._service = service
        self._limits = settings.limits()
        self._max_open = settings.max_stream_items
        self._bridge = Bridge(asyncio.get_running_loop())

    def handlers(self) -> grpc.GenericRpcHandler:
        """What to register with the gRPC server, beside the service's own."""
        guarded = self._service.guard(METHOD, self._talk, is_stream=True)
        wrapped: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            METHOD: grpc.stream_stream_rpc_method_handler(guarded)
        }
        return grpc.method_handlers_generic_handler(SERVICE, wrapped)

    async def _talk(self, context: Call, deadline: float | None, caller: Caller) -> None:
        service = self._service

        def submit(data: bytes) -> list[Item]:
            message = parse(pb.PredictStreamRequest, data)
            check_items(len(message.requests), self._limits)
            try:
                stand = service.stand_for(caller, message.model, message.model_version)
                return [*service.submit_batch(stand, message, deadline, caller)]
            except InstructRecError as error:  # of what the texts of this message share
                return [error] * len(message.requests)

        stream = Stream(
            context,
            submit=submit,
            results=partial(service.item_results, method=METHOD),
            bridge=self._bridge,
            max_open=self._max_open,
        )
        service.closers.add(stream.close)
        try:
            await stream.run()
        finally:
            service.closers.discard(stream.close)


class Stream:
    """Reads and writes side by side. All methods run on the event loop.

    An item is open from when it is read until its answer is written, so a caller that does not
    take its answers is not read from either.
    """

    def __init__(
        self,
        context: Call,
        *,
        submit: Callable[[bytes], list[Item]],
        results: Callable[[Sequence[Item]], list[Prediction | InstructRecError]],
        bridge: Bridge,
        max_open: int,
    ) -> None:
        """Nothing is read yet.

        Args:
            context: the call.
            submit: queues the requests of a message, an item for each; what it raises ends the
                stream.
            results: what items that are done came to.
            bridge: of the running loop.
            max_open: items that are open before no further message is read.
        """
        self._context = context
        self._submit = submit
        self._results = results
        self._bridge = bridge
        self._max_open = max_open
        self._n_read = 0
        self._n_open = 0
        self._waiting: dict[int, Future[Prediction]] = {}  # by number
        self._done: list[tuple[int, Item]] = []
        self._wake = asyncio.Event()  # something is done, or there is nothing more to read
        self._room = asyncio.Event()
        self._room.set()
        self._reader: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Read no more; what was read is answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def run(self) -> None:
        """Until the caller has sent all and has all answers.

        Raises:
            Unavailable: it was closed before; what was read is answered.
            InstructRecError: a message is unusable; those before it are answered.
        """
        reader = self._reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while self._n_open or not reader.done():
                await self._wake.wait()
                self._wake.clear()
                await self._write()
        finally:
            reader.cancel()
            for future in tuple(self._waiting.values()):
                future.cancel()
        if reader.cancelled():
            raise Unavailable(
                "the server is shutting down",
                hint="what has no answer was not read: send it again, or to another server",
            )
        reader.result()

    async def _read(self) -> None:
        while True:
            await self._room.wait()
            data: Any = await self._context.read()
            if data is grpc.aio.EOF:
                return
            items = self._submit(data)
            self._n_open += len(items)
            if self._n_open >= self._max_open:
                self._room.clear()
            for item in items:
                number, self._n_read = self._n_read, self._n_read + 1
                if isinstance(item, Future):
                    self._waiting[number] = item
                    self._bridge.watch(item, partial(self._arrive, number))
                else:
                    self._add(number, item)

    def _arrive(self, number: int) -> None:
        self._add(number, self._waiting.pop(number))

    def _add(self, number: int, item: Item) -> None:
        self._done.append((number, item))
        self._wake.set()

    async def _write(self) -> None:
        while self._done:
            ready, self._done = self._done[:MAX_WRITTEN], self._done[MAX_WRITTEN:]
            results = self._results([item for _, item in ready])
            numbers = [number for number, _ in ready]
            message = write_stream(zip(numbers, results, strict=True))
            await self._context.write(message.SerializeToString())
            self._n_open -= len(ready)
            if self._n_open < self._max_open:
                self._room.set()

"""A stream reads while there is room and writes what is done; a fake call stands for gRPC's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

import grpc
import pytest

from instructrec_deploy.core.errors import InstructRecError, RequestError, TextEmpty, Unavailable
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.server.bridge import Bridge
from instructrec_deploy.server.stream import MAX_WRITTEN, Stream
from instructrec_deploy.wire.answers import read_stream_results

Item = Future[Prediction] | InstructRecError
Outcome = Prediction | InstructRecError


class FakeCall:
    """What the caller sends and takes; `may_write` unset: it takes nothing."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.taken: list[tuple[int, Outcome]] = []
        self.n_messages = 0
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def read(self) -> Any:
        return await self.sent.get()

    async def write(self, data: bytes) -> None:
        await self.may_write.wait()
        self.n_messages += 1
        self.taken += read_stream_results(pb.PredictStreamResponse.FromString(data))


class Setting:
    """A running stream. A message is a list of words: "bad" is refused, others wait."""

    def __init__(self, max_open: int) -> None:
        self.call = FakeCall()
        self.futures: list[Future[Prediction]] = []
        self.stream = Stream(
            self.call,  # type: ignore[arg-type]
            submit=self.submit,
            results=self.results,
            bridge=Bridge(asyncio.get_running_loop()),
            max_open=max_open,
        )
        self.running = asyncio.create_task(self.stream.run())

    def submit(self, data: bytes) -> list[Item]:
        items: list[Item] = []
        for word in data.decode().split():
            if word == "stop":
                raise RequestError("no message")
            future: Future[Prediction] = Future()
            items.append(TextEmpty("bad") if word == "bad" else future)
            if word != "bad":
                self.futures.append(future)
        return items

    def results(self, items: Sequence[Item]) -> list[Outcome]:
        return [item.result(0) if isinstance(item, Future) else item for item in items]

    def send(self, words: str | Any) -> None:
        self.call.sent.put_nowait(words.encode() if isinstance(words, str) else words)

    def answer(self, *places: int) -> None:
        for place in places:
            self.futures[place].set_result(Prediction((), id=str(place)))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def play(scene: Callable[[Setting], Awaitable[None]], *, max_open: int = 8) -> None:
    async def run() -> None:
        setting = Setting(max_open)
        async with asyncio.timeout(5):
            await scene(setting)
        setting.running.cancel()

    asyncio.run(run())


def test_answers_come_as_they_are_done_with_the_numbers_of_their_requests() -> None:
    async def scene(setting: Setting) -> None:
        setting.send("a b")
        setting.send("bad c")
        await setting.settle()
        setting.answer(2, 0)
        await setting.settle()
        setting.answer(1)
        setting.send(grpc.aio.EOF)
        await setting.running
        numbers = [number for number, _ in setting.call.taken]
        assert (numbers[0], sorted(numbers), numbers[-1]) == (2, [0, 1, 2, 3], 1)
        ids = {number: getattr(one, "id", "-") for number, one in setting.call.taken}
        assert ids == {0: "0", 1: "1", 2: "-", 3: "2"}

    play(scene)


def test_past_the_bound_nothing_more_is_read_until_answers_are_written() -> None:
    async def scene(setting: Setting) -> None:
        for word in "abcd":
            setting.send(word)
        await setting.settle()
        assert len(setting.futures) == 2
        setting.answer(0)
        await setting.settle()
        assert len(setting.futures) == 3
        setting.call.may_write.clear()  # the caller takes no answers
        setting.answer(1, 2)
        await setting.settle()
        assert len(setting.futures) == 3
        setting.call.may_write.set()
        await setting.settle()
        assert len(setting.futures) == 4

    play(scene, max_open=2)


def test_many_answers_at_once_are_written_in_messages_that_fit() -> None:
    async def scene(setting: Setting) -> None:
        setting.send("bad " * (MAX_WRITTEN + 1))
        setting.send(grpc.aio.EOF)
        await setting.running
        assert setting.call.n_messages == 2
        assert len(setting.call.taken) == MAX_WRITTEN + 1

    play(scene)


def test_a_closed_stream_answers_what_was_read_and_says_that_it_was_closed() -> None:
    async def scene(setting: Setting) -> None:
        setting.send("a b")
        await setting.settle()
        setting.stream.close()
        setting.send("c")
        await setting.settle()
        setting.answer(0, 1)
        with pytest.raises(Unavailable, match="shutting down"):
            await setting.running
        assert len(setting.call.taken) == len(setting.futures) == 2

    play(scene)


def test_closing_after_the_last_request_changes_nothing() -> None:
    async def scene(setting: Setting) -> None:
        setting.send("a")
        setting.send(grpc.aio.EOF)
        await setting.settle()
        setting.stream.close()
        setting.answer(0)
        await setting.running

    play(scene)


def test_an_unusable_message_ends_the_stream_behind_the_answers_before_it() -> None:
    async def scene(setting: Setting) -> None:
        setting.send("a")
        setting.send("stop")
        await setting.settle()
        setting.answer(0)
        with pytest.raises(RequestError, match="no message"):
            await setting.running
        assert len(setting.call.taken) == 1

    play(scene)


def test_a_cancelled_call_drops_what_waits() -> None:
    async def scene(setting: Setting) -> None:
        setting.send("a b")
        await setting.settle()
        setting.running.cancel()
        await setting.settle()
        assert all(future.cancelled() for future in setting.futures)

    play(scene)

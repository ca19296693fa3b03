"""PredictStream against a real server process: order, faults, cancelling, draining, access."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.client.calls import RetryPolicy
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import (
    ModelUnknown,
    TaskUnknown,
    TextEmpty,
    TextUndecodable,
    Unavailable,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.answers import read_stream_results
from instructrec_deploy.wire.requests import method_path, write_stream_request
from tests.serving import ServerProcess, running_server

TEXTS = [f"{'card ' * (i % 30 + 1)}余额 {i} 😀" for i in range(300)]


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tiny_bundle, tmp_path_factory.mktemp("server")) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as found:
        yield found


def stream(channel: grpc.Channel, messages: Iterator[bytes]) -> Any:
    return channel.stream_stream(method_path("PredictStream"))(messages, timeout=60)


def messages(requests: list[Request], *, together: int = 1) -> Iterator[bytes]:
    for at in range(0, len(requests), together):
        yield write_stream_request(requests[at : at + together]).SerializeToString()


def results(call: Any, found: dict[int, Any] | None = None) -> dict[int, Any]:
    """Outcomes by number, put into `found`, which holds them also where the call fails."""
    found = {} if found is None else found
    for data in call:
        for number, outcome in read_stream_results(pb.PredictStreamResponse.FromString(data)):
            assert number not in found
            found[number] = outcome
    return found


@pytest.mark.parametrize("together", [1, 16])
def test_every_request_is_answered_under_its_number(
    channel: grpc.Channel, server: ServerProcess, together: int
) -> None:
    requests = [Request(text, id=f"号 {i}") for i, text in enumerate(TEXTS)]
    found = results(stream(channel, messages(requests, together=together)))
    assert {i: found[i].id for i in found} == {i: r.id for i, r in enumerate(requests)}
    with Client(server.address) as client:
        for i in (0, 29, 299):
            assert found[i].label == client.predict(TEXTS[i]).label


def test_a_bad_request_has_an_error_of_its_own(channel: grpc.Channel) -> None:
    requests = [Request("fine"), Request(" "), Request("x", (Question(task="no"),)), Request("so")]
    for together in (1, 4):
        found = results(stream(channel, messages(requests, together=together)))
        kinds = [type(found[i]) for i in range(4)]
        assert kinds == [Prediction, TextEmpty, TaskUnknown, Prediction]


def test_a_message_that_is_none_ends_the_call_behind_its_answers(channel: grpc.Channel) -> None:
    def broken() -> Iterator[bytes]:
        yield from messages([Request("fine")])
        yield b"\xff" * 9

    call = stream(channel, broken())
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
        results(call)
    assert dict(caught.value.trailing_metadata())["instructrec-code"] == TextUndecodable.code


def test_a_caller_who_leaves_in_the_middle_harms_nobody(
    channel: grpc.Channel, server: ServerProcess
) -> None:
    call = stream(channel, messages([Request(text) for text in TEXTS]))
    next(call)
    call.cancel()
    with Client(server.address) as client:
        assert client.predict("I lost my card").label == "card lost"
    assert not [row for row in server.events() if row["event"] == "unexpected error"]


def test_a_caller_who_takes_no_answers_is_not_read_from(tiny_bundle: Path, tmp_path: Path) -> None:
    n_taken = 0
    lock = threading.Lock()

    def endless() -> Iterator[bytes]:
        nonlocal n_taken
        while True:
            with lock:
                n_taken += 1
            # Its answer holds the masked text: some fill what the transport keeps for the caller.
            yield from messages([Request("card " * 2_000 + "13812345678", top_k=0)])

    with (
        running_server(tiny_bundle, tmp_path, max_stream_items=4) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.stream_stream(method_path("PredictStream"))(endless())
        seen = -1
        with Client(server.address, timeout_s=20) as client:
            while n_taken != seen:  # as long as somebody reads
                seen = n_taken
                for _ in range(20):
                    client.predict("I lost my card")
        call.cancel()
        assert server.stop() == 0
    assert n_taken < 2_000


def test_a_draining_server_answers_what_it_read_and_ends_the_stream(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    slow = [
        Request(f"t {n}", (Question(instruction=Instruction.of("which?", [f"{n} a", f"{n} b"])),))
        for n in range(40)
    ]
    goes_on = threading.Event()

    def open_ended() -> Iterator[bytes]:
        yield from messages(slow)
        goes_on.wait(30)

    with (
        running_server(tiny_bundle, tmp_path) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = stream(channel, open_ended())
        first = next(call)
        server.process.send_signal(signal.SIGTERM)
        found = dict(read_stream_results(pb.PredictStreamResponse.FromString(first)))
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE") as caught:
            results(call, found)
        goes_on.set()
        assert server.process.wait(30) == 0
    assert all(isinstance(one, Prediction) for one in found.values())
    assert sorted(found) == list(range(len(found)))  # what was read is answered, and no more
    assert dict(caught.value.trailing_metadata())["instructrec-code"] == Unavailable.code
    assert server.event("drained")["n_lost"] == 0


def gather(client: AsyncClient, texts: Any, **more: Any) -> Any:
    async def run() -> dict[int, Any]:
        return {number: one async for number, one in client.predict_stream(texts, **more)}

    return run()


@pytest.mark.parametrize("is_list", [True, False])
def test_both_clients_stream_texts_of_a_list_and_of_a_source(
    server: ServerProcess, is_list: bool
) -> None:
    def source() -> Any:
        return TEXTS[:60] if is_list else iter(TEXTS[:60])

    async def one_by_one() -> AsyncIterator[str]:
        for text in TEXTS[:60]:
            yield text

    async def ask() -> tuple[dict[int, Any], dict[int, Any]]:
        async with AsyncClient(server.address) as found:
            return (
                await gather(found, source(), task="sentiment"),
                await gather(found, one_by_one(), task="sentiment"),
            )

    with Client(server.address) as client:
        sync = dict(client.predict_stream(source(), task="sentiment"))
        wanted = client.predict_batch(TEXTS[:60], task="sentiment")
    labels = [one.label for one in wanted if isinstance(one, Prediction)]
    for found in (sync, *asyncio.run(ask())):
        assert [found[i].label for i in range(60)] == labels


def test_a_client_may_stop_listening(server: ServerProcess) -> None:
    async def first() -> int:
        async with AsyncClient(server.address) as found:
            stream = found.predict_stream(itertools.repeat("card"))
            async for number, _ in stream:
                await stream.aclose()  # type: ignore[attr-defined]
                return number
        return -1

    with Client(server.address) as client:
        number, _ = next(client.predict_stream(itertools.repeat("card")))
        assert number >= 0  # whichever is done first
        assert client.predict("I lost my card").label == "card lost"
    assert asyncio.run(first()) >= 0


def test_an_error_of_the_callers_own_texts_is_raised_behind_the_answers(
    server: ServerProcess,
) -> None:
    def broken() -> Iterator[str]:
        yield "card"
        raise KeyError("mine")

    async def ask() -> None:
        async with AsyncClient(server.address) as found:
            stream = found.predict_stream(broken())
            assert (await anext(stream))[0] == 0
            with pytest.raises(KeyError, match="mine"):
                await anext(stream)

    asyncio.run(ask())
    with Client(server.address) as client:
        stream = client.predict_stream(broken())
        assert next(stream)[0] == 0
        with pytest.raises(KeyError, match="mine"):
            next(stream)


def test_a_refused_stream_is_an_error_of_its_class(server: ServerProcess) -> None:
    with Client(server.address, model="other") as client:
        assert [type(one) for _, one in client.predict_stream(["a", "b"])] == [ModelUnknown] * 2
    retry = RetryPolicy(max_attempts=1)
    with Client("127.0.0.1:1", retry=retry) as client, pytest.raises(Unavailable):
        next(client.predict_stream(["a"]))

"""Messages gone wrong end no server, and are nobody's fault but the sender's."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.server.app import Ready, StopSignals, serve
from instructrec_deploy.server.settings import load_settings
from tests.mutations import STREAM, Mutant, mutant

AT_ONCE = 32
TIMEOUT_S = 300  # no mutant asks for much; one that hangs is a fault
RIGHT = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",  # SwapModel: there is no version to go back to
    "RESOURCE_EXHAUSTED",  # the queue, for a stream of many texts
}
INTERNAL = grpc.StatusCode.INTERNAL.value[0]
Found = Counter[tuple[str, str]]


def item_faults(method: str, answer: bytes) -> int:
    """Items of a batch or a stream that failed by a fault of ours."""
    kinds = {"PredictBatch": pb.PredictBatchResponse, "PredictStream": pb.PredictStreamResponse}
    kind = kinds.get(method.rsplit("/", 1)[1])
    if kind is None:
        return 0
    items = kind.FromString(answer).items
    return sum(i.error.code == InternalError.code or i.error.status == INTERNAL for i in items)


async def send(channel: grpc.aio.Channel, sent: Mutant) -> str:
    """The status of the call; INTERNAL also where that of an item is."""
    answers: list[bytes] = []
    try:
        if sent.method == STREAM:
            call = channel.stream_stream(sent.method)(iter(sent.messages), timeout=TIMEOUT_S)
            answers += [answer async for answer in call]
        else:
            answers.append(
                await channel.unary_unary(sent.method)(sent.messages[0], timeout=TIMEOUT_S)
            )
    except grpc.RpcError as error:
        if error.details() == "Internal error from Core":
            return "NOT_SENT"  # the client's own word for a message it could not send any more
        return str(error.code().name)
    return "INTERNAL" if any(item_faults(sent.method, one) for one in answers) else "OK"


async def send_all(address: str, numbers: range) -> tuple[Found, list[int]]:
    """How many calls of each method ended how, and the numbers of those that ended wrong."""
    found: Found = Counter()
    wrong: list[int] = []
    left = iter(numbers)

    async def caller(channel: grpc.aio.Channel) -> None:
        for number in left:
            sent = mutant(number)
            status = await send(channel, sent)
            # By gRPC's client, where a busy machine left a call alone for long.
            if status in ("CANCELLED", "NOT_SENT"):
                status = await send(channel, sent)
            found[sent.method, status] += 1
            if status not in RIGHT:
                wrong.append(number)

    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*[caller(channel) for _ in range(AT_ONCE)])
    return found, wrong


async def fuzz(bundle: Path, folder: Path, numbers: range) -> tuple[Found, list[int]]:
    overrides = {
        "server": {"port": 0},
        "engine": {"n_lanes": 2, "threads_per_lane": 1},
        "feedback": {"file": str(folder / "feedback.db")},
    }
    settings = load_settings(overrides=overrides, environ={}).settings
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    signals = StopSignals()
    serving = asyncio.create_task(
        serve(bundle, settings, on_ready=ready.set_result, signals=signals)
    )
    try:
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        address = (await ready).address
        async with AsyncClient(address) as client:
            before = await client.predict("I lost my card", top_k=0)
            found = await send_all(address, numbers)
            after = await client.predict("I lost my card", top_k=0)
        assert after.answers == before.answers
        return found
    finally:
        signals.receive()
        await serving


def check(bundle: Path, folder: Path, numbers: range) -> Found:
    found, wrong = asyncio.run(fuzz(bundle, folder, numbers))
    assert not wrong, f"mutant({wrong[0]}) and {len(wrong) - 1} more: {found}"
    assert found.total() == len(numbers)
    return found


def test_two_thousand_mutated_messages_are_refused_or_answered(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    found = check(tiny_bundle, tmp_path, range(2_000))
    assert len({method for method, _ in found}) == 16
    by_status = Counter[str]()
    for (_, status), n_calls in found.items():
        by_status[status] += n_calls
    assert min(by_status["OK"], by_status["INVALID_ARGUMENT"]) > 300  # neither all noise nor tame


@pytest.mark.slow
def test_a_hundred_thousand_mutated_messages_are_refused_or_answered(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    print(sorted(check(tiny_bundle, tmp_path, range(100_000)).items()))

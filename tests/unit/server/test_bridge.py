"""Futures of other threads reach the event loop, in few wake-ups, and are cancelled with it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from instructrec_deploy.server.bridge import Bridge


def test_result_of_another_thread_arrives() -> None:
    async def run() -> int:
        bridge = Bridge(asyncio.get_running_loop())
        future: Future[int] = Future()
        threading.Thread(target=future.set_result, args=(3,)).start()
        return await bridge.wait(future)

    assert asyncio.run(run()) == 3


def test_error_of_another_thread_arrives() -> None:
    async def run() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        future: Future[int] = Future()
        threading.Thread(target=future.set_exception, args=(KeyError("x"),)).start()
        await bridge.wait(future)

    with pytest.raises(KeyError):
        asyncio.run(run())


def test_future_done_before_it_is_waited_for_needs_no_wake_up() -> None:
    async def run() -> int:
        bridge = Bridge(asyncio.get_running_loop())
        future: Future[int] = Future()
        future.set_result(4)
        return await bridge.wait(future)

    assert asyncio.run(run()) == 4


def test_whole_batch_wakes_the_loop_once() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        n_wakes = 0
        wake = loop.call_soon_threadsafe

        def counting(*args: object, **more: object) -> asyncio.Handle:
            nonlocal n_wakes
            n_wakes += 1
            return wake(*args, **more)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
        bridge = Bridge(loop)
        futures: list[Future[int]] = [Future() for _ in range(50)]
        waiting = [asyncio.create_task(bridge.wait(future)) for future in futures]
        await asyncio.sleep(0)
        for index, future in enumerate(futures):  # the loop does not turn meanwhile
            future.set_result(index)
        assert await asyncio.gather(*waiting) == list(range(50))
        return n_wakes

    assert asyncio.run(run()) == 1


def test_cancelled_waiter_cancels_every_future() -> None:
    async def run() -> list[bool]:
        bridge = Bridge(asyncio.get_running_loop())
        futures: list[Future[int]] = [Future() for _ in range(3)]
        task = asyncio.create_task(bridge.wait_all(futures))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [future.cancelled() for future in futures]

    assert asyncio.run(run()) == [True, True, True]


def test_waiting_for_nothing_returns() -> None:
    async def run() -> None:
        await Bridge(asyncio.get_running_loop()).wait_all([])

    asyncio.run(run())

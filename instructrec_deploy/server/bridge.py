"""From inference threads back to the event loop: a whole batch of answers wakes it once.

`asyncio.wrap_future` wakes the loop for every future by itself, each a system call and a turn of
the loop; the answers of one batch come together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Bridge:
    """Lets coroutines of one loop wait for futures that other threads finish."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[Callable[[], None]] = deque()
        self._is_woken = False

    async def wait(self, future: Future[ResultT]) -> ResultT:
        """The future's result. A cancelled waiter cancels the future, so its work is dropped.

        Raises:
            Exception: what the future was finished with.
        """
        if not future.done():
            waiter: asyncio.Future[None] = self._loop.create_future()
            self.watch(future, partial(_wake, waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                future.cancel()
                raise
        return future.result(0)

    async def wait_all(self, futures: Sequence[Future[Any]]) -> None:
        """Return when all are done, however each ended. A cancelled waiter cancels them all."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        n_left = len(futures)
        if not n_left:
            return

        def count() -> None:
            nonlocal n_left
            n_left -= 1
            if not n_left and not waiter.done():
                waiter.set_result(None)

        for future in futures:
            self.watch(future, count)
        try:
            await waiter
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise

    def watch(self, future: Future[Any], callback: Callable[[], None]) -> None:
        """Call back on the loop when the future is done, however it ended."""
        future.add_done_callback(partial(self._hand_over, callback))

    def _hand_over(self, callback: Callable[[], None], _: Future[Any]) -> None:
        """Any thread. The flag may be set twice by two threads at once, which is harmless."""
        self._done.append(callback)
        if self._is_woken:
            return
        self._is_woken = True
        try:
            self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._done.clear()

    def _run(self) -> None:
        self._is_woken = False  # first, so that what comes from here on wakes the loop again
        while self._done:
            self._done.popleft()()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

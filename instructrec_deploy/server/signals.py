"""The signals that a server process answers to."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


class StopSignals:
    """`first`: stop when all accepted calls are answered. `second`: stop now.

    `reload`: look for a new version of what is served (SIGHUP).
    """

    def __init__(self) -> None:
        self.reload = asyncio.Event()
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def receive(self) -> None:
        """Take one signal."""
        (self.second if self.first.is_set() else self.first).set()


@contextlib.contextmanager
def process_signals() -> Iterator[StopSignals]:
    """SIGTERM, SIGINT and SIGHUP as events of the running loop."""
    loop = asyncio.get_running_loop()
    signals = StopSignals()
    handlers = {signal.SIGTERM: signals.receive, signal.SIGINT: signals.receive}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        handlers[signal.SIGHUP] = signals.reload.set
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield signals
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)

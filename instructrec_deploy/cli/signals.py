"""Signals that come at a bad moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back(number: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """A signal that comes meanwhile is raised at the end: a process being started gets known first.

    In another thread than the main one, where no handler runs, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if before is None else before)
        if came:
            signal.raise_signal(number)

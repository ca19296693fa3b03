"""A signal that comes while a process is being started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from instructrec_deploy.cli.signals import held_back


class Stopped(Exception):
    """What the handler of these tests raises."""


@pytest.fixture(autouse=True)
def handled() -> Iterator[None]:
    def leave(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_waits_until_the_block_ends() -> None:
    done = []

    def start() -> None:
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            done.append("started")

    with pytest.raises(Stopped):
        start()
    assert done == ["started"]
    with pytest.raises(Stopped):  # and the handler is there again
        signal.raise_signal(signal.SIGTERM)


def test_without_a_signal_nothing_is_raised_and_an_error_passes() -> None:
    with held_back():
        pass
    with pytest.raises(OSError, match="no such program"), held_back():
        raise OSError("no such program")


def test_another_thread_is_left_alone() -> None:
    done = []

    def start() -> None:
        with held_back():
            done.append("started")

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert done == ["started"]

"""Who began to wait last is woken first, and nobody is lost."""

from __future__ import annotations

import threading
import time

from instructrec_deploy.runtime.last_in import LastInFirstOut

PATIENCE_S = 20.0


class Sleepers:
    """Threads that wait one after another and tell who was woken."""

    def __init__(self, n: int) -> None:
        self.changed = LastInFirstOut(threading.Lock())
        self.woken: list[int] = []
        self._n_waiting = 0
        self._told = threading.Semaphore(0)
        self.threads = []
        for name in range(n):
            thread = threading.Thread(target=self._sleep, args=(name,), daemon=True)
            thread.start()
            self.threads.append(thread)
            self._until_waiting(name + 1)

    def _until_waiting(self, n: int) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            with self.changed:  # it is let go of by nobody but those who wait
                if self._n_waiting == n:
                    return
            time.sleep(0.001)
        raise AssertionError("the threads do not come to wait")

    def _sleep(self, name: int) -> None:
        with self.changed:
            self._n_waiting += 1
            self.changed.wait()
            self.woken.append(name)
        self._told.release()

    def wake(self, n: int) -> list[int]:
        """Wake so many; who they were, in no order."""
        before = len(self.woken)
        with self.changed:
            self.changed.notify(n)
        for _ in range(n):
            assert self._told.acquire(timeout=PATIENCE_S)
        return self.woken[before:]


def test_the_last_who_came_is_woken_first() -> None:
    sleepers = Sleepers(4)
    assert [sleepers.wake(1) for _ in range(4)] == [[3], [2], [1], [0]]


def test_several_and_all_are_woken_once() -> None:
    sleepers = Sleepers(5)
    assert sorted(sleepers.wake(2)) == [3, 4]
    with sleepers.changed:
        sleepers.changed.notify_all()
        sleepers.changed.notify()  # nobody is left: nothing happens
    for thread in sleepers.threads:
        thread.join(PATIENCE_S)
    assert sorted(sleepers.woken) == [0, 1, 2, 3, 4]


def test_who_waited_long_enough_goes_on_and_is_not_woken_later() -> None:
    changed = LastInFirstOut(threading.Lock())
    with changed:
        changed.wait(0.001)
        changed.notify()  # nobody waits
        begun = time.monotonic()
        changed.wait(0.01)  # the wake before it was not kept
        assert time.monotonic() - begun >= 0.01

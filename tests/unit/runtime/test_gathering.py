"""A free worker waits a moment for callers that were just answered, and no longer."""

from __future__ import annotations

import pytest

from instructrec_deploy.runtime.gathering import MOST, Gathering
from tests.fake_clock import FakeClock

WAIT_S = 0.001


@pytest.fixture
def gathering(clock: FakeClock) -> Gathering:
    return Gathering(WAIT_S, clock=clock)


def test_nobody_is_waited_for_who_was_not_answered(gathering: Gathering) -> None:
    gathering.come(is_first=True)
    assert gathering.wait_s(1, 1) == 0.0


def test_one_caller_is_begun_at_once(gathering: Gathering) -> None:
    gathering.leave(1)
    gathering.come(is_first=True)
    assert gathering.wait_s(1, 1) == 0.0


def test_the_first_of_four_waits_for_the_others(gathering: Gathering, clock: FakeClock) -> None:
    gathering.leave(4)
    for n_here in range(1, 4):
        clock.now += WAIT_S / 2
        gathering.come(is_first=n_here == 1)
        assert 0 < gathering.wait_s(n_here, 1) <= 2 * WAIT_S
    gathering.come(is_first=False)
    assert gathering.wait_s(4, 1) == 0.0


def test_two_free_workers_share_those_who_are_expected(gathering: Gathering) -> None:
    gathering.leave(4)
    gathering.come(is_first=True)
    assert gathering.wait_s(1, 2) > 0
    gathering.come(is_first=False)
    assert gathering.wait_s(2, 2) == 0.0


def test_who_does_not_come_back_is_given_up(gathering: Gathering, clock: FakeClock) -> None:
    gathering.leave(4)
    gathering.come(is_first=True)
    clock.now += gathering.wait_s(1, 1)
    assert gathering.wait_s(1, 1) == 0.0
    assert gathering.n_away == 0


def test_a_stranger_long_after_is_nobody_who_came_back(
    gathering: Gathering, clock: FakeClock
) -> None:
    gathering.leave(4)
    clock.now += 1.0
    gathering.come(is_first=True)
    assert gathering.wait_s(1, 1) == 0.0


def test_the_first_waits_no_longer_than_the_limit(gathering: Gathering, clock: FakeClock) -> None:
    gathering.leave(1000)
    gathering.come(is_first=True)
    began = clock.now
    while gathering.wait_s(1, 1) > 0:
        clock.now += WAIT_S / 2
        gathering.come(is_first=False)
    assert clock.now - began <= (MOST + 1) * WAIT_S


def test_a_text_that_is_due_soon_is_begun(gathering: Gathering, clock: FakeClock) -> None:
    gathering.leave(4)
    gathering.come(is_first=True, deadline_s=clock.now + 5 * WAIT_S)
    assert gathering.wait_s(1, 1) == 0.0


def test_without_a_wait_nobody_is_waited_for(clock: FakeClock) -> None:
    gathering = Gathering(0.0, clock=clock)
    gathering.leave(4)
    gathering.come(is_first=True)
    assert gathering.wait_s(1, 1) == 0.0

"""How fast the workers are, learned from batches."""

from __future__ import annotations

import math

import pytest

from instructrec_deploy.runtime.pace import Pace


def test_nothing_is_known_before_the_first_batch() -> None:
    pace = Pace()
    assert (pace.token_s, pace.wait_s(1000), pace.batch_s(10)) == (0.0, 0.0, 0.0)
    assert pace.tokens_in(0.1) == math.inf


def test_workers_share_what_waits_and_a_batch_has_one() -> None:
    pace = Pace(n_workers=2)
    pace.note(100, 1.0)
    assert pace.wait_s(100) == pytest.approx(0.5)
    assert pace.batch_s(100) == pytest.approx(1.0)
    assert pace.tokens_in(0.5) == pytest.approx(50)


def test_lone_requests_say_what_a_full_batch_takes() -> None:
    pace = Pace(call_tokens=2000, batch_tokens=8000)
    for _ in range(50):
        pace.note(20, 0.0202)  # nearly all of it is the call
    assert pace.batch_s(8000) == pytest.approx(0.1)
    assert pace.wait_s(8001) == pytest.approx(0.12, rel=0.01)  # two calls
    assert pace.tokens_in(0.01) == 0.0


def test_a_change_is_known_after_some_batches() -> None:
    pace = Pace()
    for _ in range(50):
        pace.note(100, 0.1)
    for _ in range(30):
        pace.note(100, 0.2)
    assert pace.token_s == pytest.approx(0.002, rel=0.05)

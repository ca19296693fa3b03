"""Ladders from scores to actions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.safety.steps import ACTIONS, STRENGTH, Step, always, step_at, strictest


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Step, ...]:
    thresholds = sorted(draw(st.sets(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=1)))
    n = len(thresholds)
    actions = sorted(
        draw(st.lists(st.sampled_from(ACTIONS), min_size=n, max_size=n)), key=STRENGTH.__getitem__
    )
    return tuple(Step(action=a, threshold=t) for a, t in zip(actions, thresholds, strict=True))


def strength(steps: tuple[Step, ...], score: float) -> int:
    step = step_at(steps, score)
    return STRENGTH[step.action] if step else 0


def test_the_highest_threshold_that_is_reached_counts() -> None:
    steps = (Step(action="flag", threshold=0.5), Step(action="block", threshold=0.9))
    assert [strength(steps, score) for score in (0.49, 0.5, 0.89, 0.9, 1.0)] == [0, 1, 1, 3, 3]


def test_what_is_allowed_leads_to_nothing() -> None:
    assert step_at(always("allow"), 1.0) is None


@given(ladders(), ladders(), st.floats(0, 1))
def test_the_strictest_of_two_does_at_every_score_what_the_stricter_does(
    one: tuple[Step, ...], other: tuple[Step, ...], score: float
) -> None:
    merged = strictest(one, other)
    assert strength(merged, score) == max(strength(one, score), strength(other, score))

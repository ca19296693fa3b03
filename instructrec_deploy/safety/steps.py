"""From a score to an action: what a policy says about one category.

A word is one step ("mask"); a table is one that begins at a score; a list is a ladder of them:

PHONE = "mask"
harassment = {action = "flag", threshold = 0.5}
hate = [{action = "flag", threshold = 0.4}, {action = "block", threshold = 0.9, review = true}]
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from instructrec_deploy.core.manifest import Probability, Strict

Action = Literal["allow", "flag", "mask", "block"]
ACTIONS: tuple[Action, ...] = ("allow", "flag", "mask", "block")  # weakest first
STRENGTH: dict[str, int] = {action: rank for rank, action in enumerate(ACTIONS)}
REGENERATE = "regenerate"  # of texts that a model wrote


def _known_action(action: object) -> object:
    if action == REGENERATE:
        raise ValueError("this version writes no texts, so none can be written again: use block")
    if action not in ACTIONS:
        raise ValueError(f"not an action ({', '.join(ACTIONS)})")
    return action


class Step(Strict):
    """An action from a score on. `review`: a case of it waits for a person, too."""

    action: Annotated[Action, BeforeValidator(_known_action)]
    threshold: Probability = 0.0
    review: bool = False


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return [{"action": _known_action(value)}]
    return [value] if isinstance(value, dict) else value


def _climbing(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    if not steps:
        raise ValueError("no steps: leave the category out, or name an action")
    if any(step.review for step in steps if step.action == "allow"):
        raise ValueError("what is allowed is not looked for, so nobody can review it: use flag")
    ordered = tuple(sorted(steps, key=lambda step: step.threshold))
    for low, high in pairwise(ordered):
        if low.threshold == high.threshold:
            raise ValueError(f"two steps begin at {low.threshold}")
        if STRENGTH[low.action] > STRENGTH[high.action]:
            raise ValueError(f"{high.action} at {high.threshold} is weaker than {low.action} below")
    return ordered


# Sorted by threshold; a score below the first of them leads to nothing.
Steps = Annotated[tuple[Step, ...], BeforeValidator(_as_list), AfterValidator(_climbing)]


def always(action: Action) -> tuple[Step, ...]:
    """One step, whatever the score."""
    return (Step(action=action),)


def step_at(steps: tuple[Step, ...], score: float) -> Step | None:
    """The step that a score reaches; None where it reaches none, or one that allows."""
    reached = None
    for step in steps:
        if step.threshold > score:
            break
        reached = step
    return reached if reached is not None and reached.action != "allow" else None


def strictest(first: tuple[Step, ...], second: tuple[Step, ...]) -> tuple[Step, ...]:
    """A ladder that acts at every score as the stricter of two does; either one's review stays."""
    if first == second:
        return first
    steps = []
    for threshold in sorted({step.threshold for step in (*first, *second)}):
        found = [step for step in (step_at(first, threshold), step_at(second, threshold)) if step]
        action = max((step.action for step in found), key=STRENGTH.__getitem__, default="allow")
        review = any(step.review for step in found)
        steps.append(Step(action=action, threshold=threshold, review=review))
    return tuple(steps)

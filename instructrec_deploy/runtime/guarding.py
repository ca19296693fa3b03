"""The safety filter that a bundle is served with."""

from __future__ import annotations

from instructrec_deploy.core.bundle import SAFETY_FILE, Bundle, read_text
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.runtime.jobs import GuardLike
from instructrec_deploy.runtime.judging import check_heads
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.safety.keys import load_keys
from instructrec_deploy.safety.policy import Policy, parse_policy


def open_guard(
    bundle: Bundle, guard: bool | GuardLike, *, judge: Bundle | None = None
) -> GuardLike | None:
    """The bundle's own filter (True), none (False), or the one that is given, held against it.

    Args:
        judge: whom the policy's heads ask in the bundle's place. To the bundle's own filter the
            heads and entities of that one's policy are added.

    Raises:
        BundleError: the policy names tasks or labels that the bundle does not have.
    """
    if guard is not True:
        if isinstance(guard, PolicyGuards):
            check_heads(guard.policy, judge or bundle, where="the safety policy")
            if judge is not None:
                _asked_at_all(guard.policy)
        return guard or None
    path = bundle.path(SAFETY_FILE)
    guards = PolicyGuards.from_toml(read_text(path), where=str(path), keys=load_keys())
    if unknown := sorted(set(guards.policy.tasks) - set(bundle.tasks.tasks)):
        raise BundleError(
            f"{path} has words for tasks that the bundle does not have: {', '.join(unknown)}",
            hint=f"its tasks: {', '.join(sorted(bundle.tasks.tasks)) or 'none'}",
        )
    if judge is not None:
        theirs = judge.path(SAFETY_FILE)
        asked = parse_policy(read_text(theirs), where=str(theirs)).input
        own = guards.policy.input
        changed = own.model_copy(
            update={
                "heads": {**own.heads, **asked.heads},
                "entities": {**own.entities, **asked.entities},
            }
        )
        guards.replace(guards.policy.model_copy(update={"input": changed}))
        _asked_at_all(guards.policy)
    check_heads(guards.policy, judge or bundle, where=str(path))
    return guards


def _asked_at_all(policy: Policy) -> None:
    if not any(part.input.asks_model for part in policy.parts()):
        raise BundleError(
            "no head of the safety policy asks the safety bundle",
            hint="write [input.heads.NAME] or [input.entities.TASK] into the policy, or into the "
            "safety bundle's: docs/safety.md",
        )

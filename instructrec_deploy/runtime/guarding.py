"""The safety filter that a bundle is served with."""

from __future__ import annotations

from instructrec_deploy.core.bundle import SAFETY_FILE, Bundle, read_text
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.runtime.jobs import GuardLike
from instructrec_deploy.runtime.judging import check_heads
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.safety.keys import load_keys


def open_guard(bundle: Bundle, guard: bool | GuardLike) -> GuardLike | None:
    """The bundle's own filter (True), none (False), or the one that is given, held against it.

    Raises:
        BundleError: the policy names tasks or labels that the bundle does not have.
    """
    if guard is not True:
        if isinstance(guard, PolicyGuards):
            check_heads(guard.policy, bundle, where="the safety policy")
        return guard or None
    path = bundle.path(SAFETY_FILE)
    guards = PolicyGuards.from_toml(read_text(path), where=str(path), keys=load_keys())
    if unknown := sorted(set(guards.policy.tasks) - set(bundle.tasks.tasks)):
        raise BundleError(
            f"{path} has words for tasks that the bundle does not have: {', '.join(unknown)}",
            hint=f"its tasks: {', '.join(sorted(bundle.tasks.tasks)) or 'none'}",
        )
    check_heads(guards.policy, bundle, where=str(path))
    return guards

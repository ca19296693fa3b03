"""Guards by a policy's text."""

from __future__ import annotations

from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.keys import SafetyKeys
from instructrec_deploy.safety.policy import parse_policy


def guard_of(policy: str, *, keys: SafetyKeys | None = None) -> Guard:
    """The guard of a `safety.toml` with this content."""
    return Guard(parse_policy(policy, where="safety.toml"), keys=keys)

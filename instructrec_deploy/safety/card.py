"""What a bundle's card says about its safety policy."""

from __future__ import annotations

from instructrec_deploy.safety.policy import MODEL_TYPES, DirectionPolicy, Policy
from instructrec_deploy.safety.steps import ACTIONS, Step


def policy_section(policy: Policy) -> str:
    """The section in Markdown: what is done about what, going in and out, and for whom not."""
    parts = [
        "## Safety",
        f"Policy `{policy.version}` (`safety.toml`), by rules and a word list, which see plain "
        "wordings only; how well they do is measured in the project, not for this bundle.",
        *_direction("Texts going in", policy.input),
        *_direction("Answers going out", policy.output),
    ]
    if policy.input.heads:
        heads = ", ".join(f"`{task}`" for task in policy.input.heads)
        parts.append(f"Texts are also scored by the bundle's own tasks: {heads}.")
    if policy.input.entities:
        finders = ", ".join(
            f"`{task}` ({', '.join(sorted(set(finder.types.values())))})"
            for task, finder in policy.input.entities.items()
        )
        parts.append(f"Names are found by the bundle's own tasks: {finders}.")
    if policy.tasks or policy.tenants:
        parts.append(
            f"The policy has other words for {len(policy.tasks)} tasks and "
            f"{len(policy.tenants)} callers."
        )
    return "\n\n".join(parts)


def _direction(name: str, policy: DirectionPolicy) -> list[str]:
    by_action: dict[str, list[str]] = {action: [] for action in reversed(ACTIONS)}
    for category, steps in policy.steps().items():
        if category in MODEL_TYPES and category not in policy.asked_types:  # nobody looks for it
            continue
        by_action[steps[-1].action].append(category + _score(steps[-1]))
    said = [f"- {action}: {', '.join(names)}" for action, names in by_action.items() if names]
    fails = "blocks" if policy.fail == "closed" else "lets pass with a flag"
    tried = "; a dry run: nothing of it is done" if policy.dry_run else ""
    return [f"{name} (a check that breaks {fails}{tried}):", "\n".join(said)]


def _score(step: Step) -> str:
    return f" (from {step.threshold:g} on)" if step.threshold else ""

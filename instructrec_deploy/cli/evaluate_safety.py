"""`instructrec evaluate --safety`: figures of the safety filter on labelled files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.core.example import Example
    from instructrec_deploy.core.result import Finding
    from instructrec_deploy.evaluation.figures import Figures
    from instructrec_deploy.evaluation.safety import Check, Checked, SafetyEvaluation
    from instructrec_deploy.safety.guard import Guard
    from instructrec_deploy.safety.guards import PolicyGuards

NOT_ABUSE = frozenset(("self_harm", "injection"))  # attacks on nobody
PARTS = {  # of the report for people, in this order
    "personal_data": "personal data",
    "hard_negatives": "texts without personal data",
    "content": "content",
}
WORDS = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "leaked": "leaked values",
    "hit": "hit all the same",
    "macro_f1": "macro F1",
    "auc": "AUC",
    "abuse_found": "abuse flagged",
    "benign_flagged": "benign flagged",
    "benign_blocked": "benign blocked",
}


def measure_safety(
    examples: Sequence[Example],
    *,
    bundle: Path | None,
    policy: Path | None,
    task: str,
    renamed: Sequence[str],
    abuse_labels: Sequence[str],
    seed: int,
) -> tuple[SafetyEvaluation, dict[str, Any]]:
    """What the filter finds in the rows' texts, and by which policy.

    A dry run is measured as if it were in force.

    Args:
        examples: rows of personal data, of labels, or both.
        bundle: whose policy, and whose model for the policy's heads; None: the filter alone.
        policy: in place of the bundle's or the default one.
        task: whose overrides count.
        renamed: TYPE=NAME, the rows' own word and ours.
        abuse_labels: what the rows call abuse.
        seed: of the intervals.

    Raises:
        InstructRecError: the policy, the bundle or a row is wrong.
    """
    from instructrec_deploy.cli.guard import open_guards
    from instructrec_deploy.evaluation.safety import evaluate_safety
    from instructrec_deploy.safety.policy import PERSONAL_TYPES

    guards = open_guards(policy or bundle)
    guard = guards.keeping(task)
    with ExitStack() as stack:
        check = _checker(guards, guard, bundle, stack)
        result = evaluate_safety(
            examples,
            check,
            public_types=PERSONAL_TYPES,
            renamed=_pairs(renamed),
            abuse_labels=abuse_labels,
            seed=seed,
        )
    asked = sorted({*guard.policy.input.heads, *guard.policy.input.entities})
    facts = {
        "policy_version": guard.policy.version,
        "heads": asked if bundle else [],
        "heads_not_asked": [] if bundle else asked,
    }
    return result, facts


def print_safety(result: SafetyEvaluation, facts: dict[str, Any], *, as_json: bool) -> None:
    """The figures, as one JSON object or for people."""
    if as_json:
        typer.echo(json.dumps({**facts, **result.to_dict()}, ensure_ascii=False))
        return
    for name, words in PARTS.items():
        figures = getattr(result, name)
        if figures is not None:
            _print_part(words, figures)
    typer.echo(f"policy {facts['policy_version']}")
    if facts["heads_not_asked"]:
        typer.echo("note: the policy's heads and entities are not asked without a bundle")


def _print_part(words: str, figures: Figures) -> None:
    typer.echo(f"{words}: {figures.n} rows")
    for name, value in figures.values.items():
        typer.echo(
            f"  {WORDS[name]:18} {value.value:7.2%}   95 % interval {value.low:.2%} to "
            f"{value.high:.2%}"
        )
    for name, of_type in figures.facts.get("per_type", {}).items():
        typer.echo(
            f"  {name:18} {of_type['f1']:7.2%}   precision {of_type['precision']:.2%}, recall "
            f"{of_type['recall']:.2%}, leaked {of_type['leaked']:.2%} ({of_type['n_gold']} values)"
        )
    if left_out := figures.facts.get("left_out_types"):
        typer.echo(f"  left out, name them by --rename: {', '.join(left_out)}")


def _checker(guards: PolicyGuards, guard: Guard, bundle: Path | None, stack: ExitStack) -> Check:
    """The filter as a function; with a bundle its model is asked what the policy asks."""
    from instructrec_deploy.safety.guard import Guard
    from instructrec_deploy.safety.keys import load_keys

    heads = guard.policy.input.heads
    if bundle is None or not guard.policy.input.asks_model:
        return lambda text: _checked(guard.check_input(text).verdict.findings)
    from instructrec_deploy.core.bundle import open_bundle
    from instructrec_deploy.runtime.pipeline import Pipeline
    from instructrec_deploy.safety.steps import always

    model = Pipeline.open(open_bundle(bundle), guard=guards)
    stack.callback(model.close)
    # The same policy, but each head tells its score, however low: that is what an AUC is made of.
    telling = {
        name: head.model_copy(update={"act": always("flag")}) for name, head in heads.items()
    }
    direction = guard.policy.input.model_copy(update={"heads": telling})
    teller = Guard(guard.policy.model_copy(update={"input": direction}), keys=load_keys())
    named = {head.rule(name): (name, head) for name, head in heads.items()}

    def check(text: str) -> Checked:
        if not text:
            return _checked(guard.check_input(text).verdict.findings, 0.0 if heads else None)
        told = model.guarded(text, teller).verdict
        judged = []
        for finding in told.findings:
            if finding.rule in named:
                name, head = named[finding.rule]
                acted = head.finding(name, finding.score)
                judged += [acted] if acted else []
            else:
                judged.append(finding)
        if not heads:
            return _checked(judged)
        scores = [f.score for f in told.findings if f.category in _abuse()]
        return _checked(judged, 1.0 if told.action == "block" else max(scores, default=0.0))

    return check


def _checked(findings: Sequence[Finding], score: float | None = None) -> Checked:
    from instructrec_deploy.evaluation.safety import Checked
    from instructrec_deploy.safety.policy import PERSONAL_TYPES

    return Checked(
        tuple((f.category, f.start, f.end) for f in findings if f.category in PERSONAL_TYPES),
        is_flagged=any(f.category in _abuse() for f in findings),
        is_blocked=any(f.action == "block" for f in findings),
        score=score,
    )


def _abuse() -> frozenset[str]:
    from instructrec_deploy.safety.policy import CONTENT_CATEGORIES

    return CONTENT_CATEGORIES - NOT_ABUSE


def _pairs(renamed: Sequence[str]) -> dict[str, str]:
    """TYPE=NAME, split at the last sign of equality."""
    from instructrec_deploy.core.errors import ConfigError

    pairs = {}
    for one in renamed:
        foreign, _, name = one.rpartition("=")
        if not foreign or not name:
            raise ConfigError(
                f"--rename {one!r} is no pair", hint='--rename "credit card=CREDIT_CARD"'
            )
        pairs[foreign.strip()] = name.strip()
    return pairs

"""Labels on their way out: remembered as clean under one policy, looked at under another."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.result import Answer, LabelScore
from instructrec_deploy.runtime import outgoing
from instructrec_deploy.runtime.outgoing import OutgoingCheck
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.safety.policy import parse_policy

POLICY = """
[tasks.open.output.content]
profanity = "allow"
[tasks.strict.output.content]
profanity = "block"
"""


def test_a_label_clean_for_one_task_is_looked_at_for_another() -> None:
    guards, check = PolicyGuards.from_toml(POLICY, where="safety.toml"), OutgoingCheck()
    answer = Answer("t", "shit happens", 1.0, (LabelScore("shit happens", 1.0),))
    labels = [
        check.check(guards.of((task,)), answer)[0].label
        for task in ("open", "strict", "open", "strict")
    ]
    assert labels == ["shit happens", "", "shit happens", ""]


def test_a_label_is_looked_at_again_after_the_policy_was_replaced() -> None:
    guards, check = PolicyGuards.from_toml("", where="safety.toml"), OutgoingCheck()
    answer = Answer("t", "ask the fucking bank", 1.0, ())
    allowing = '[output.content]\nprofanity = "allow"'
    guards.replace(parse_policy(allowing, where="safety.toml"))
    assert check.check(guards.of(()), answer) == (answer, None)
    guards.replace(parse_policy("", where="safety.toml"))
    assert check.check(guards.of(()), answer)[1] is not None


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_CLEAN_LABELS", 10)
    guards, check = PolicyGuards.from_toml("", where="safety.toml"), OutgoingCheck()
    for number in range(100):
        check.check(guards.of(()), Answer("t", f"label {number}", 1.0, ()))
    assert check.n_labels <= 11

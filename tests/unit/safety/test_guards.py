"""Which guard is asked: by task, by caller, in a dry run, after the policy was replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import ConfigError, FileMissing, SafetyKeyMissing
from instructrec_deploy.core.result import Answer
from instructrec_deploy.safety import guard as guard_module
from instructrec_deploy.safety.guards import PolicyGuards, read_policy
from instructrec_deploy.safety.match import Match
from instructrec_deploy.safety.policy import Policy, parse_policy

THREAT = "I will kill you, call 13812345678"


def guards_of(text: str) -> PolicyGuards:
    return PolicyGuards.from_toml(text, where="safety.toml")


def policy_of(text: str) -> Policy:
    return parse_policy(text, where="safety.toml")


def test_a_policy_that_names_nobody_has_one_guard() -> None:
    guards = guards_of("")
    assert guards.of(("a",), "b") is guards.of(("c", ""), "")


def test_tasks_and_callers_have_guards_of_their_own() -> None:
    guards = guards_of(
        '[tasks.triage.input.content]\nthreat = "flag"\n'
        '[tenants.bank.input.personal_data]\nPHONE = "block"'
    )
    assert guards.of(("triage",)).check_input(THREAT).text == "I will kill you, call [PHONE]"
    assert guards.of(("triage",), "bank").check_input("打13812345678").is_blocked
    assert guards.of(("triage", "")).check_input(THREAT).is_blocked  # the strictest
    assert guards.of(("other",), "shop").check_input("打13812345678").text == "打[PHONE]"
    assert guards.of(("other",), "shop") is guards.of((), "nobody")


def test_a_dry_run_changes_nothing_and_says_what_it_would_have_done() -> None:
    guards = guards_of("[input]\ndry_run = true\n[output]\ndry_run = true")
    guarded = guards.check_input(THREAT)
    assert guarded.text is THREAT
    assert not guarded.is_blocked
    assert (guarded.verdict.action, guarded.verdict.dry_run_action) == ("flag", "block")
    assert [(f.action, f.dry_run_action) for f in guarded.verdict.findings] == [
        ("flag", "block"),
        ("flag", "mask"),
    ]
    answer = Answer("t", "ask bob@mail.example.com", 1.0, ())
    assert guards.check_output(answer)[0] is answer


def test_what_is_kept_is_masked_in_a_dry_run_too() -> None:
    guards = guards_of("[input]\ndry_run = true\n[tasks.a.input.personal_data]\nPHONE = 'block'")
    assert guards.keeping().check_input("打13812345678").text == "打[PHONE]"
    assert guards.keeping("a").check_input("打13812345678").is_blocked
    assert guards.of(()).check_input("打13812345678").text == "打13812345678"


def test_a_check_that_breaks_blocks_nothing_in_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[object]:
        raise ValueError

    monkeypatch.setattr(guard_module, "find_personal_data", broken)
    verdict = guards_of("[input]\ndry_run = true").check_input("x").verdict
    assert (verdict.action, verdict.dry_run_action) == ("flag", "block")


def test_a_score_below_the_threshold_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    guards = guards_of('[input.personal_data]\nPHONE = {action = "mask", threshold = 0.75}')
    for score, text in ((0.5, "打13812345678"), (0.75, "打[PHONE]")):
        hit = Match("PHONE", "r", 1, 12, score=score)
        monkeypatch.setattr(guard_module, "find_personal_data", lambda *_, hit=hit: [hit])
        guarded = guards.check_input("打13812345678")
        assert guarded.text == text
        assert [f.score for f in guarded.verdict.findings] == [score] * (score > 0.7)


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        ("", False),
        ('[input]\nreview = ["mask"]', True),
        ('[input]\nreview = ["block"]', False),
        ('[input.personal_data]\nPHONE = {action = "flag", review = true}', True),
        ('[input.content]\nthreat = {action = "block", review = true}', False),
    ],
)
def test_the_policy_says_which_cases_wait_for_a_person(policy: str, waits: bool) -> None:
    assert guards_of(policy).check_input("打13812345678").verdict.review is waits


def test_a_replaced_policy_counts_at_once_and_a_bad_one_leaves_the_old() -> None:
    guards = guards_of('version = "1"')
    before = guards.of(())
    guards.replace(policy_of('version = "2"\n[input.content]\nthreat = "allow"'))
    assert guards.check_input(THREAT).verdict.policy_version == "2"
    assert before.check_input(THREAT).verdict.policy_version == "1"
    needy = policy_of('version = "3"\n[tenants.a.input.operators]\nPHONE = "hash"')
    with pytest.raises(SafetyKeyMissing):
        guards.replace(needy)
    assert guards.policy.version == "2"


def test_a_policy_file_is_read_or_its_faults_are_told(tmp_path: Path) -> None:
    file = tmp_path / "safety.toml"
    with pytest.raises(FileMissing):
        read_policy(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_policy(file)
    file.write_text('[tasks.a.input]\nfial = "x"')
    with pytest.raises(ConfigError, match=r"tasks\.a\.input\.fial"):
        read_policy(file)

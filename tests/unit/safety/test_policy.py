"""`safety.toml`: defaults, and faults that are all named at once."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.errors import BundleError, ConfigError
from instructrec_deploy.safety.policy import default_policy, default_policy_text, parse_policy
from instructrec_deploy.safety.steps import Step, always

OVERRIDES = """
[input.content]
threat = "flag"
[input.operators]
default = "replace"
[tasks.triage.input.content]
threat = "allow"
profanity = "block"
[tasks.triage.input.operators]
PHONE = "keep"
[tasks.trial.input]
dry_run = true
[tasks.trial.input.content]
threat = "block"
[tenants."小店".input.content]
threat = "mask"
"""


def test_the_text_written_into_a_bundle_is_the_default_policy() -> None:
    assert parse_policy(default_policy_text(), where="safety.toml") == default_policy()


@pytest.mark.parametrize("text", ["", 'version = "default-1"', "[input]"])
def test_what_a_policy_leaves_out_has_its_default(text: str) -> None:
    assert parse_policy(text, where="safety.toml") == default_policy()


def test_one_action_may_be_changed_alone() -> None:
    policy = parse_policy('[input.personal_data]\nPHONE = "block"', where="safety.toml")
    tables = (policy.input.personal_data, policy.output.personal_data)
    assert [table.PHONE for table in tables] == [always("block"), always("mask")]
    assert [table.EMAIL for table in tables] == [always("mask"), always("mask")]


def test_all_faults_are_named_at_once_with_what_is_valid() -> None:
    text = """
        [input]
        fial = "open"
        [input.content]
        threat = "deny"
        [output.personal_data]
        FAX = "mask"
    """
    with pytest.raises(BundleError) as caught:
        parse_policy(text, where="safety.toml")
    for path in ("safety.toml", "input.fial", "input.content.threat", "output.personal_data.FAX"):
        assert path in caught.value.message
    assert "PHONE" in caught.value.hint


def test_a_policy_that_is_no_toml_is_refused_as_the_caller_wishes() -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse_policy("[input", where="safety.toml", error=ConfigError)


def test_a_task_then_a_caller_changes_what_it_names_and_nothing_else() -> None:
    policy = parse_policy(OVERRIDES, where="safety.toml")
    plain = policy.resolved(("other",), "other")
    assert plain.input == policy.input
    triage = policy.resolved(("triage",))
    assert triage.input.content.threat == always("allow")
    assert triage.input.content.harassment == always("flag")
    assert (triage.input.operator("PHONE"), triage.input.operator("EMAIL")) == ("keep", "replace")
    assert triage.output == policy.output
    both = policy.resolved(("triage",), "小店").input.content
    assert (both.threat, both.profanity) == (always("mask"), always("block"))
    assert (triage.version, triage.tasks, triage.tenants) == (policy.version, {}, {})


def test_of_several_tasks_the_strictest_counts() -> None:
    policy = parse_policy(OVERRIDES, where="safety.toml")
    both = policy.resolved(("triage", "other")).input
    assert (both.content.threat, both.content.profanity) == (always("flag"), always("block"))
    assert both.operator("PHONE") == "replace"


def test_a_task_that_is_only_tried_out_is_not_in_force_for_others() -> None:
    policy = parse_policy(OVERRIDES, where="safety.toml")
    assert policy.resolved(("trial",)).input.dry_run
    both = policy.resolved(("trial", "other")).input
    assert (both.dry_run, both.content.threat) == (False, always("flag"))
    assert not policy.resolved(("trial",)).enforced().input.dry_run


def test_steps_are_a_word_a_table_or_a_ladder() -> None:
    text = """
        [input.content]
        threat = {action = "flag", threshold = 0.25, review = true}
        harassment = [{action = "block", threshold = 0.9}, {action = "flag", threshold = 0.5}]
    """
    content = parse_policy(text, where="safety.toml").input.content
    assert content.threat == (Step(action="flag", threshold=0.25, review=True),)
    assert [step.threshold for step in content.harassment] == [0.5, 0.9]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ('"regenerate"', "writes no texts"),
        ('{action = "regenerate"}', "writes no texts"),
        ("[]", "no steps"),
        ('{action = "flag", threshold = 1.5}', "less than or equal to 1"),
        ('[{action = "flag"}, {action = "block"}]', "two steps begin at 0"),
        ('[{action = "block"}, {action = "flag", threshold = 0.5}]', "weaker"),
        ('{action = "allow", review = true}', "nobody can review"),
        ('{action = "flag", treshold = 0.5}', "input.content.threat.0.treshold"),
        ("3", "input.content.threat"),
    ],
)
def test_steps_that_make_no_sense_are_refused(steps: str, told: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_policy(f"[input.content]\nthreat = {steps}", where="safety.toml")
    assert told in caught.value.message

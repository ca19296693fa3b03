"""`safety.toml`: defaults, and faults that are all named at once."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.errors import BundleError, ConfigError
from instructrec_deploy.safety.policy import default_policy, default_policy_text, parse_policy


def test_the_text_written_into_a_bundle_is_the_default_policy() -> None:
    assert parse_policy(default_policy_text(), where="safety.toml") == default_policy()


@pytest.mark.parametrize("text", ["", 'version = "default-1"', "[input]"])
def test_what_a_policy_leaves_out_has_its_default(text: str) -> None:
    assert parse_policy(text, where="safety.toml") == default_policy()


def test_one_action_may_be_changed_alone() -> None:
    policy = parse_policy('[input.personal_data]\nPHONE = "block"', where="safety.toml")
    assert policy.input.personal_data.PHONE == "block"
    assert policy.input.personal_data.EMAIL == "mask"
    assert policy.output.personal_data.PHONE == "mask"


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

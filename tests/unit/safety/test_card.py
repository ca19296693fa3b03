"""The card's section about the policy: what is done about what."""

from __future__ import annotations

from instructrec_deploy.safety.card import policy_section
from instructrec_deploy.safety.policy import default_policy, parse_policy


def test_the_section_names_each_category_under_what_is_done_about_it() -> None:
    text = policy_section(default_policy())
    assert text.startswith("## Safety\n\nPolicy `default-1`")
    lines = text.splitlines()
    assert lines.count("- block: threat") == 2
    assert sum("PHONE" in line for line in lines if line.startswith("- mask: ")) == 2
    assert not any(line.startswith("- allow") for line in lines)


def test_the_section_tells_thresholds_dry_runs_and_exceptions() -> None:
    policy = parse_policy(
        """
        [input]
        dry_run = true
        fail = "open"
        [input.content]
        profanity = "allow"
        threat = {action = "block", threshold = 0.9}
        [tasks.a.input]
        [tenants.b.input]
        """,
        where="safety.toml",
    )
    text = policy_section(policy)
    assert "threat (from 0.9 on)" in text
    assert "lets pass with a flag; a dry run" in text
    assert "- allow: profanity" in text
    assert "1 tasks and 1 callers" in text

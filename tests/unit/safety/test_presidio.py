"""Recognizers of Presidio: asked where a policy says so, treated as our own."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from instructrec_deploy.core.errors import BundleError, ConfigError, MissingExtra
from instructrec_deploy.safety import guard as guard_module
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.policy import parse_policy
from instructrec_deploy.safety.presidio import PresidioPolicy, PresidioRecognizers, open_presidio
from instructrec_deploy.safety.streaming import StreamGuard

POLICY = '[input.presidio]\ntypes = { BADGE = "OTHER_ID" }\n'


class Badges:
    """A recognizer as Presidio's are; `BADGE` and, unasked, `COLOUR`."""

    name = "badges"
    supported_entities = ("BADGE", "COLOUR")

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def analyze(self, text: str, entities: Any, nlp_artifacts: Any = None) -> Sequence[Any]:
        self.asked.append(entities)
        return [
            SimpleNamespace(entity_type=kind, start=m.start(), end=m.end(), score=0.4)
            for kind, pattern in (("BADGE", r"badge \d+"), ("COLOUR", "red"))
            for m in re.finditer(pattern, text)
        ]


@pytest.fixture
def badges(monkeypatch: pytest.MonkeyPatch) -> Badges:
    """In place of Presidio's own recognizers."""
    found = Badges()

    def opened(policy: PresidioPolicy) -> PresidioRecognizers:
        return PresidioRecognizers([found], policy.types)

    monkeypatch.setattr(guard_module, "open_presidio", opened)
    return found


def make_guard(toml: str = POLICY) -> Guard:
    return Guard(parse_policy(toml, where="safety.toml"))


def test_what_they_find_is_masked_and_what_nobody_asked_for_is_not(badges: Badges) -> None:
    found = make_guard().check_input("a red coat, badge １２, mail a.b@example.org")
    assert found.text == "a red coat, [OTHER_ID], mail [EMAIL]"
    first = found.verdict.findings[0]
    assert (first.category, first.rule, first.score) == ("OTHER_ID", "presidio BADGE", 0.4)
    assert badges.asked == [["BADGE"]]


def test_a_step_asks_for_a_score(badges: Badges) -> None:
    steps = '[input.personal_data]\nOTHER_ID = {action = "mask", threshold = 0.5}\n'
    assert not make_guard(steps + POLICY).check_input("badge 12").verdict.findings


def test_one_direction_asks_and_the_other_does_not(badges: Badges) -> None:
    guard = make_guard(POLICY.replace("input", "output"))
    assert not guard.check_input("badge 12").verdict.findings
    assert guard.check_text("badge 12", "output").text == "[OTHER_ID]"


def test_a_text_in_pieces_cannot_be_shown_to_them(badges: Badges) -> None:
    with pytest.raises(ConfigError, match=r"input\.presidio"):
        StreamGuard(make_guard(), direction="input")
    assert StreamGuard(make_guard(), direction="output").finish()[0] == ""


def test_of_two_tasks_policies_both_are_asked_for() -> None:
    toml = (
        '[tasks.a.input.presidio]\ntypes = { BADGE = "OTHER_ID" }\n'
        '[tasks.b.input.presidio]\ntypes = { CARD = "OTHER_ID" }\nlanguages = ["es"]\n'
    )
    asked = parse_policy(toml, where="x").resolved(("a", "b")).input.presidio
    assert asked is not None
    assert set(asked.types) == {"BADGE", "CARD"}
    assert set(asked.languages) == {"en", "es"}


def test_a_type_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(BundleError, match="KING"):
        parse_policy('[input.presidio]\ntypes = { BADGE = "KING" }\n', where="safety.toml")


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra, match="Presidio"):
        make_guard()


def test_presidio_s_own_recognizers() -> None:
    pytest.importorskip("presidio_analyzer")
    guard = make_guard('[input.presidio]\ntypes = { MEDICAL_LICENSE = "OTHER_ID" }\n')
    assert guard.check_input("DEA number BB1388568 on file").text == "DEA number [OTHER_ID] on file"
    with pytest.raises(ConfigError, match="NO_SUCH"):
        open_presidio(PresidioPolicy(types={"NO_SUCH": "OTHER_ID"}))

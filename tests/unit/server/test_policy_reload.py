"""A policy file that changes: taken over, or told and left out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.safety.policy import Policy
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.safety.reload import PolicyReload, watch_policy
from instructrec_deploy.server.safety.settings import SafetySettings

INFO = "instructrec_safety_policy_info"
RELOADS = "instructrec_safety_policy_reloads_total"


class Model:
    """What the metrics show of a model that has these guards."""

    tasks: frozenset[str] = frozenset()
    info = ("shop", "v1", "instruction-encoder", "int8")

    def __init__(self, guards: PolicyGuards) -> None:
        self._guards = guards

    @property
    def policy_version(self) -> str:
        return self._guards.policy.version

    def figures(self) -> dict[str, float]:
        return {}


def only_known_heads(policy: Policy) -> None:
    if unknown := policy.input.heads.keys() - {"offensive"}:
        raise BundleError(f"no tasks {sorted(unknown)}", hint="its tasks: offensive")


class Setting:
    """A policy file with its guards, metrics and reload, looked at by hand."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.write('version = "1"')
        self.guards = PolicyGuards.open(file)
        self.metrics = Metrics()
        self.metrics.show_models([Model(self.guards)])
        self.reload = PolicyReload(
            file, self.guards, self.metrics, interval_s=60.0, check=only_known_heads
        )

    def write(self, text: str) -> None:
        part = self.file.with_suffix(".part")  # another inode: seen however coarse the clock is
        part.write_text(text)
        part.replace(self.file)

    def look(self) -> None:
        self.reload.look()
        self.reload.look()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "safety.toml")


def test_a_changed_policy_is_in_force_and_told(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    setting.write('version = "2"\n[input.personal_data]\nPHONE = "block"')
    setting.look()
    assert setting.guards.check_input("打13812345678").verdict.policy_version == "2"
    assert setting.guards.check_input("打13812345678").is_blocked
    assert (setting.value(INFO, version="1"), setting.value(INFO, version="2")) == (None, 1.0)
    assert setting.value(RELOADS, outcome="done") == 1.0
    assert "safety policy reloaded" in caplog.text


@pytest.mark.parametrize(
    "text", ["[input", '[input]\nfial = "open"', '[input.operators]\nPHONE = "hash"']
)
def test_a_broken_policy_leaves_the_old_one_and_is_told_once(
    setting: Setting, text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.write(text)
    for _ in range(3):
        setting.look()
    assert setting.guards.policy.version == "1"
    assert setting.value(RELOADS, outcome="failed") == 1.0
    assert setting.value(INFO, version="1") == 1.0
    assert caplog.text.count("safety policy not reloaded") == 1
    setting.write('version = "2"')
    setting.look()
    assert setting.guards.policy.version == "2"


def test_a_policy_that_does_not_go_with_the_model_leaves_the_old_one(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.write('version = "2"\n[input.heads.hate]\nlabel = "hateful"')
    setting.look()
    assert setting.guards.policy.version == "1"
    assert setting.value(RELOADS, outcome="failed") == 1.0
    (told,) = [r for r in caplog.records if r.getMessage() == "safety policy not reloaded"]
    assert told.__dict__["reason"] == "no tasks ['hate'] (its tasks: offensive)"
    setting.write('version = "3"\n[input.heads.offensive]\nlabel = "offensive"')
    setting.look()
    assert setting.guards.policy.version == "3"


def test_a_policy_file_that_goes_away_leaves_the_old_one(setting: Setting) -> None:
    setting.file.unlink()
    setting.look()
    assert setting.guards.policy.version == "1"
    assert setting.value(RELOADS, outcome="failed") == 1.0


def test_a_file_that_is_still_being_written_is_not_taken(setting: Setting) -> None:
    for half in ("", "version", 'version = "2"'):
        setting.write(half)
        setting.reload.look()
        assert setting.guards.policy.version == "1"
    setting.reload.look()
    assert setting.guards.policy.version == "2"


def test_a_change_under_the_same_version_is_told(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.write('version = "1"\n[input]\nfail = "open"')
    setting.look()
    assert "its version did not" in caplog.text
    assert setting.guards.policy.input.fail == "open"


def test_a_policy_that_changed_before_the_first_look_is_taken(tmp_path: Path) -> None:
    setting = Setting(tmp_path / "safety.toml")
    setting.write('version = "2"')
    PolicyReload(setting.file, setting.guards, setting.metrics, interval_s=60.0)
    assert setting.guards.policy.version == "2"


def test_unknown_tasks_of_a_policy_are_told(caplog: pytest.LogCaptureFixture) -> None:
    guards = PolicyGuards.from_toml('version = "x"\n[tasks.other.input]', where="safety.toml")
    tasks = frozenset(("intent",))
    assert watch_policy(SafetySettings(), guards, Metrics(), tasks=tasks) is None
    assert "tasks that are not here" in caplog.text
    assert watch_policy(SafetySettings(), Guard(), Metrics(), tasks=frozenset()) is None


def test_the_policies_of_the_models_that_answer_are_shown() -> None:
    metrics = Metrics()
    one, two = (
        Model(PolicyGuards.from_toml(f'version = "{version}"', where="safety.toml"))
        for version in "12"
    )
    for shown in ([one], [one, two], [two], []):
        metrics.show_models(shown)
        value = metrics.registry.get_sample_value
        found = {v for v in "12" if value(INFO, {"version": v}) is not None}
        assert found == {model.policy_version for model in shown}

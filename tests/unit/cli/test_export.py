"""`instructrec export`: options that go together, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--plan", "x.toml", "--target", "edge"], "--target: a plan says this itself"),
        (["--target", "cpu", "--precision", "fp32"], "--precision: a plan says this itself"),
        (["--target", "cpu", "--vocabulary-size", "9"], "--vocabulary-size: a plan says"),
        (["--calibration", "t.jsonl", "--precision", "fp32"], "--calibration has no effect here"),
        (["--vocabulary-size", "9"], "--vocabulary-size has no effect here"),
        (["--work", "w", "--data-root", "d"], "--data-root, --work has no effect here"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, tmp_path: Path, options: list[str], words: str
) -> None:
    done = run("export", tmp_path / "run", "--out", tmp_path / "bundle", *options)
    assert done.code == 2
    assert words in done.err


def test_a_plan_that_is_stopped_says_how_it_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("instructrec_deploy.export.plan_inputs.read_inputs", lambda *_, **__: None)
    monkeypatch.setattr("instructrec_deploy.export.by_plan.export_plan", stopped)
    done = run("export", tmp_path / "run", "--out", tmp_path / "bundle", "--target", "cpu")
    assert done.code == 130
    assert f"the same command goes on with what lies in {tmp_path / 'bundle.stages'}" in done.err


def test_an_unknown_plan_names_those_there_are(run: Run, tmp_path: Path) -> None:
    done = run("export", tmp_path / "run", "--out", tmp_path / "bundle", "--plan", "phone")
    assert done.code == 3
    assert "cpu, edge, gpu" in done.err


def test_a_bundle_that_will_be_replaced_is_told_before_the_work(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    done = run("export", tmp_path / "run", "--out", tmp_path / "bundle")
    assert "will replace" not in done.err
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    done = run("export", tmp_path / "run", "--out", tmp_path / "bundle")
    assert f"{tmp_path / 'bundle'} holds a bundle, which the new one will replace" in done.err

"""`instructrec bundle` and `instructrec models`."""

from __future__ import annotations

import shutil
from pathlib import Path

from instructrec_deploy.models.presets import PRESETS
from tests.unit.cli.conftest import Run


def test_show_says_what_a_bundle_is(run: Run, tiny_bundle: Path) -> None:
    (facts,) = run("bundle", "show", tiny_bundle, "--json").rows
    assert facts["default_task"] == "intent"
    assert "余额" in facts["tasks"]["intent"]["labels"]
    assert "intent (default)" in run("bundle", "show", tiny_bundle).out


def test_verify_accepts_an_intact_bundle_and_names_a_damaged_file(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert run("bundle", "verify", tiny_bundle, "--json").rows[0]["ok"] is True
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    with (copy / "tasks.toml").open("a") as stream:
        stream.write("# edited\n")
    done = run("bundle", "verify", copy)
    assert done.code == 6
    assert "tasks.toml is damaged" in done.err


def test_models_are_listed_with_where_they_are(run: Run, tmp_path: Path) -> None:
    (facts,) = run("models", "list", "--to", tmp_path, "--json").rows
    assert set(facts) == set(PRESETS)
    assert facts["e5-enzh"]["languages"] == ["en", "zh"]
    assert facts["minilm"]["path"] is None
    assert "instructrec models get minilm" in run("models", "list", "--to", tmp_path).out


def test_an_unknown_model_is_refused_before_anything_is_fetched(run: Run, tmp_path: Path) -> None:
    done = run("models", "get", "minilm", "gpt-9", "--to", tmp_path)
    assert done.code == 2
    assert list(tmp_path.iterdir()) == []

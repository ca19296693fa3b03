"""`instructrec bundle` and `instructrec models`."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from instructrec_deploy.core import bundle as bundle_module
from instructrec_deploy.models.presets import PRESETS
from tests.tiny import seal
from tests.unit.cli.conftest import Run


def test_show_says_what_a_bundle_is(run: Run, tiny_bundle: Path) -> None:
    (facts,) = run("bundle", "show", tiny_bundle, "--json").rows
    assert facts["default_task"] == "intent"
    assert "余额" in facts["tasks"]["intent"]["labels"]
    assert "intent (default)" in run("bundle", "show", tiny_bundle).out


def test_show_says_how_good_a_bundle_is(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "measured"
    shutil.copytree(tiny_bundle, bundle)
    measured = {
        "split": {"意图": "test"},
        "before": {"意图": {"n": 84, "accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}},
        "after": {
            "意图": {
                "n": 84,
                "accuracy": 0.75,
                "accuracy_interval": [0.65, 0.8125],
                "macro_f1": 0.7,
                "macro_f1_interval": [0.6, 0.8],
            }
        },
        "export": {
            "parity": {
                "n_texts": 64,
                "agreement": 0.984375,
                "max_difference": 0.09,
                "mean_difference": 0.0125,
                "batch_difference": 0.0,
            }
        },
    }
    (bundle / "evaluation.json").write_text(json.dumps(measured), encoding="utf-8")
    seal(bundle)
    (facts,) = run("bundle", "show", bundle, "--json").rows
    assert facts["evaluation"]["意图"]["after"] == measured["after"]["意图"]
    assert facts["evaluation"]["意图"]["split"] == "test"
    assert facts["parity"] == measured["export"]["parity"]
    out = run("bundle", "show", bundle).out
    assert "意图: of the checkpoint, test split, 84 rows" in out
    assert "accuracy 0.750 [0.650, 0.812], untuned 0.500 [0.400, 0.600]" in out
    assert "macro F1 0.700 [0.600, 0.800]\n" in out
    assert "label for 98.4% of 64 texts; probabilities moved by 0.0125 on average" in out


def test_show_says_when_nothing_was_measured(run: Run, tiny_bundle: Path) -> None:
    (facts,) = run("bundle", "show", tiny_bundle, "--json").rows
    assert (facts["evaluation"], facts["parity"]) == ({}, {})
    assert "not measured" in run("bundle", "show", tiny_bundle).out


def test_figures_that_are_no_json_are_told(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "broken"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / "evaluation.json").write_text("[1]")
    seal(bundle)
    done = run("bundle", "show", bundle)
    assert (done.code, "IR-1500" in done.err) == (6, True)


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


def test_a_file_that_may_not_be_read_is_named(
    run: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(bundle_module, "hash_file", refuse)
    done = run("bundle", "verify", tiny_bundle)
    assert done.code == 6
    assert " cannot be read (Permission denied)" in done.err


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

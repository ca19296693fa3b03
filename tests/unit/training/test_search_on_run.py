"""`instructrec instructions search RUN`: a run is searched as it will be served, and left alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instructrec_deploy.cli.main import main
from instructrec_training.recipe import Recipe
from instructrec_training.run import train


def test_a_run_is_searched_like_a_bundle(
    make_recipe: Callable[..., Recipe],
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    train(make_recipe(epochs=1), run, data_root=data_root, is_quiet=True)
    before = sorted(run.rglob("*"))
    words = ["instructions", "search", str(run), "-d", str(data_root / "intents.jsonl")]
    words += ["--split", "train", "--budget", "10", "--lang", "zh", "--json"]
    monkeypatch.setattr(sys, "argv", ["instructrec", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    facts = json.loads(capsys.readouterr().out)
    assert (facts["task"], facts["n_rows"], facts["n_tried"]) == ("intent", 24, 10)
    assert facts["default"]["instruction"] == "Which intent?"
    assert sorted(run.rglob("*")) == before

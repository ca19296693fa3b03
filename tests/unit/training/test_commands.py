"""The `train` verb."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from instructrec_deploy.cli.main import main
from instructrec_training import run
from instructrec_training.recipe import Recipe


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    monkeypatch.setattr(sys, "argv", ["instructrec", "train", "demo-en", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (130, "")
    assert "--resume goes on" in captured.err


def test_keys_of_a_recipe_are_replaced_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[Recipe] = []

    def begin(recipe: Recipe, *_: object, **__: object) -> None:
        begun.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", begin)
    values = ("training.epochs=1", "training.keep=last", "data.limit=32", "model.max_tokens=64")
    words = [word for value in values for word in ("--set", value)]
    line = ["instructrec", "train", "demo-en", "--seed", "7", *words, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit):
        main()
    (recipe,) = begun
    assert (recipe.training.epochs, recipe.training.keep, recipe.training.seed) == (1, "last", 7)
    assert recipe.model.max_tokens == 64
    assert {part.limit for part in recipe.data} == {32}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("training.epochs", "--set takes KEY=VALUE"),
        ("training.epoch=1", "training.epoch: unknown key"),
        ("training.epochs=many", "training.epochs"),
        ("tasks.intent.lang=zh", "'tasks.intent.lang' cannot be changed from outside"),
        ("epochs=1", "'epochs' cannot be changed from outside"),
    ],
)
def test_a_value_that_fits_no_key_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    value: str,
    words: str,
) -> None:
    line = ["instructrec", "train", "demo-en", "--set", value, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit):
        main()
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""A search on a tiny model: it finds, it goes on, it never reads test rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from instructrec_deploy.cli.main import app
from instructrec_deploy.core.errors import FileMissing, SearchInvalid
from instructrec_training import search as search_module
from instructrec_training.recipe import Recipe, read_recipe
from instructrec_training.run import RunReport
from instructrec_training.search import Range, read_space, search

pytest.importorskip("optuna")
MakeRecipe = Callable[..., Recipe]
SPACE = {
    "learning_rate": Range(low=1e-5, high=1e-2, log=True),
    "batch_size": Range(choices=(4, 8)),
    "model.dropout": Range(low=0.0, high=0.3),
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that were tried; a trial is the better the nearer its rate lies to 1e-3."""
    seen: list[Recipe] = []

    def fake(recipe: Recipe, out: Path, **_: object) -> RunReport:
        seen.append(recipe)
        out.mkdir(parents=True)
        (out / "recipe.json").write_text(recipe.model_dump_json())
        score = 1.0 / (1.0 + abs(recipe.training.learning_rate / 1e-3 - 1.0))
        return RunReport(out, {}, {}, 0.0, 0.0, "cpu", validation=score)

    monkeypatch.setattr(search_module, "train", fake)
    return seen


def test_the_best_trial_becomes_a_recipe(
    make_recipe: MakeRecipe, measured: list[Recipe], tmp_path: Path
) -> None:
    report = search(make_recipe(), SPACE, tmp_path / "s", data_root=tmp_path, n_trials=12)
    best = max(r.training.learning_rate for r in measured if _score(r) == report.validation)
    found = read_recipe(report.recipe)
    assert found.training.learning_rate == pytest.approx(best)
    assert found.data[0].test_split == "test"  # only the trials were blind
    kept = Recipe.model_validate_json((tmp_path / "s/best/recipe.json").read_text())
    assert kept.training == found.training
    assert not list((tmp_path / "s").glob("trial-*"))


def _score(recipe: Recipe) -> float:
    return 1.0 / (1.0 + abs(recipe.training.learning_rate / 1e-3 - 1.0))


def test_no_trial_reads_test_rows(
    make_recipe: MakeRecipe, measured: list[Recipe], tmp_path: Path
) -> None:
    search(make_recipe(), SPACE, tmp_path / "s", data_root=tmp_path, n_trials=2)
    assert [part.test_split for r in measured for part in r.data] == ["", ""]


def test_a_search_goes_on_where_it_stopped(
    make_recipe: MakeRecipe,
    measured: list[Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = search_module.train

    def killed(recipe: Recipe, out: Path, **rest: object) -> RunReport:
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(recipe, out, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        search(make_recipe(), SPACE, tmp_path / "s", data_root=tmp_path, n_trials=5)
    monkeypatch.setattr(search_module, "train", real)
    report = search(make_recipe(), SPACE, tmp_path / "s", data_root=tmp_path, n_trials=5)
    assert report.n_trials == len(measured) == 5


def test_another_space_is_not_mixed_in(
    make_recipe: MakeRecipe, measured: list[Recipe], tmp_path: Path
) -> None:
    search(make_recipe(), SPACE, tmp_path / "s", data_root=tmp_path, n_trials=1)
    other = {"seed": Range(low=1, high=9)}
    with pytest.raises(SearchInvalid, match="another recipe or space"):
        search(make_recipe(), other, tmp_path / "s", data_root=tmp_path, n_trials=1)


def test_unknown_keys_are_named_before_anything_runs(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    space = {"learning_rat": Range(choices=(1.0, 2.0)), "data.limit": Range(low=1, high=2)}
    with pytest.raises(SearchInvalid, match=r"learning_rat, data\.limit"):
        search(make_recipe(), space, tmp_path / "s", data_root=tmp_path, n_trials=1)


def test_a_search_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[search.epochs]\nlow = 1\nhigh = 4\n[search.probe]\nchoices = [true, false]\n")
    assert read_space(file) == {
        "epochs": Range(low=1, high=4),
        "probe": Range(choices=(True, False)),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[search.a]\nlow = 1\n", "give low and high, or choices"),
        ("[search.a]\nlow = 2\nhigh = 1\n", "low must lie below high"),
        ("[search.a]\nlow = 0\nhigh = 1\nlog = true\n", "log wants low above 0"),
        ("[search]\n", "search"),
        ("[search", "not valid TOML"),
    ],
)
def test_a_wrong_search_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(SearchInvalid) as caught:
        read_space(file)
    assert words in caught.value.message


def test_a_missing_search_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no search file"):
        read_space(tmp_path / "none.toml")


@pytest.mark.slow
def test_trials_train_for_real(make_recipe: MakeRecipe, data_root: Path, tmp_path: Path) -> None:
    space = {"head_learning_rate": Range(low=1e-4, high=1e-2, log=True)}
    report = search(
        make_recipe(epochs=1), space, tmp_path / "s", data_root=data_root, n_trials=2, is_quiet=True
    )
    kept = json.loads((tmp_path / "s/best/evaluation.json").read_text())
    assert kept["validation"] == pytest.approx(report.validation, abs=1e-6)
    assert kept["split"] == {"intent": "validation"}


def test_the_command_line_searches_and_says_what_is_best(
    measured: list[Recipe], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    space, out, file = tmp_path / "s.toml", tmp_path / "s", tmp_path / "r.toml"
    space.write_text("[search.learning_rate]\nlow = 1e-5\nhigh = 1e-2\nlog = true\n")
    content = make_recipe().model_dump(mode="json", exclude_none=True)
    file.write_text(tomli_w.dumps(content), encoding="utf-8")
    options = ["--out", str(out), "--search", str(space), "--trials", "3", "--json"]
    found = CliRunner().invoke(app, ["train", str(file), *options])
    assert found.exit_code == 0
    figures = json.loads(found.stdout)
    assert figures["trials"] == len(measured) == 3
    assert read_recipe(out / "best.toml").training.learning_rate == pytest.approx(
        figures["best"]["learning_rate"]
    )

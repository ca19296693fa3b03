"""Search for better settings: optuna over ranges that a TOML file declares.

    [search.learning_rate]          a key of [training]; "model.dropout" names another part's
    low = 1e-5
    high = 5e-4
    log = true

    [search.batch_size]
    choices = [16, 32, 64]

OUT/journal.log     every trial; a search that was stopped goes on from it
OUT/best/           the run folder of the best trial so far
OUT/best.toml       the recipe with the best values: `instructrec train OUT/best.toml`
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from accelerate import PartialState
from pydantic import Field, ValidationError, model_validator

from instructrec_deploy.core.errors import FileMissing, MissingExtra, SearchInvalid
from instructrec_deploy.core.manifest import Strict
from instructrec_training.recipe import Recipe, explain_faults, with_values
from instructrec_training.run import RunReport, train

JOURNAL_FILE = "journal.log"
SPACE_FILE = "space.json"
BEST_FOLDER = "best"
BEST_RECIPE = "best.toml"
PARTS = ("training", "model")


class Range(Strict):
    """The values one key may take: numbers from low to high, or one of several choices."""

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[bool | int | float | str, ...] = ()

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Range:
        has_bounds = self.low is not None and self.high is not None
        if has_bounds == bool(self.choices):
            raise ValueError("give low and high, or choices")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must lie below high")
        if self.log and ((self.low or 0) <= 0 or self.step is not None):
            raise ValueError("log wants low above 0 and no step")
        return self

    def draw(self, trial: Any, name: str) -> Any:
        """A value for this trial."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


class Space(Strict):
    """A search file."""

    search: dict[str, Range] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search found so far."""

    values: dict[str, Any]  # of the best trial
    validation: float  # its headline on validation rows
    n_trials: int  # finished, earlier sittings included
    recipe: Path  # best.toml


def read_space(file: Path) -> dict[str, Range]:
    """Read a search file.

    Raises:
        FileMissing: no such file.
        SearchInvalid: not TOML, or a range is wrong; all faults at once.
    """
    if not file.is_file():
        raise FileMissing(f"no search file {str(file)!r}", hint="write [search.KEY] tables")
    try:
        return Space.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).search
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SearchInvalid(f"{file}: not valid TOML: {error}", hint="mend the syntax") from error
    except ValidationError as error:
        faults, _ = explain_faults(error)
        raise SearchInvalid(
            f"{file}: {faults}",
            hint="a range is {low = .., high = .., log = true} or {choices = [..]}",
        ) from error


def search(
    recipe: Recipe,
    space: dict[str, Range],
    out: Path,
    *,
    data_root: Path,
    n_trials: int,
    is_quiet: bool = False,
    say: Callable[[str], None] = lambda _words: None,
) -> SearchReport:
    """Try settings until `n_trials` are finished, earlier sittings counted in.

    A trial is judged by validation rows alone; test rows are not read.

    Raises:
        MissingExtra: optuna is not installed.
        SearchInvalid: an unknown key, several processes, or OUT holds a search of another recipe
            or space.
        ConfigError: values of a trial do not fit the recipe.
    """
    optuna = _optuna()
    _check(recipe, space)
    _claim(out, recipe, space)
    blind = _without_test(recipe)
    study = _open_study(optuna, out, seed=recipe.training.seed)
    while (n_done := _n_finished(optuna, study)) < n_trials:
        trial = study.ask()
        try:
            drawn = {key: found.draw(trial, key) for key, found in space.items()}
            plan = with_values(blind, _full(drawn))
            report = _run(plan, out / f"trial-{trial.number}", data_root, is_quiet=is_quiet)
        except BaseException:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        is_best = n_done == 0 or report.validation > study.best_value
        study.tell(trial, report.validation)
        _keep(report.folder, out / BEST_FOLDER, is_best=is_best)
        say(f"trial {n_done + 1}/{n_trials}: validation {report.validation:.4f} {trial.params}")
    best = study.best_trial
    content = with_values(recipe, _full(best.params)).model_dump(mode="json", exclude_none=True)
    (out / BEST_RECIPE).write_text(tomli_w.dumps(content), encoding="utf-8")
    return SearchReport(best.params, best.value, _n_finished(optuna, study), out / BEST_RECIPE)


def _place(key: str) -> tuple[str, str]:
    part, dot, name = key.partition(".")
    return (part, name) if dot else ("training", key)


def _full(values: dict[str, Any]) -> dict[str, Any]:
    """Values by the full path of their keys."""
    return {".".join(_place(key)): value for key, value in values.items()}


def _check(recipe: Recipe, space: dict[str, Range]) -> None:
    if PartialState().num_processes > 1:
        raise SearchInvalid("search: several processes", hint="start a search in one process")
    unknown = []
    for key in space:
        part, name = _place(key)
        if part not in PARTS or name not in type(getattr(recipe, part)).model_fields:
            unknown.append(key)
    if unknown:
        raise SearchInvalid(
            f"search: unknown keys: {', '.join(unknown)}",
            hint='name keys of [training], or "model.KEY"',
        )


def _claim(out: Path, recipe: Recipe, space: dict[str, Range]) -> None:
    ranges = {key: found.model_dump(mode="json") for key, found in space.items()}
    content = json.dumps({"recipe": recipe.model_dump(mode="json"), "search": ranges}, indent=2)
    known = out / SPACE_FILE
    if known.is_file():
        if known.read_text(encoding="utf-8") != content:
            raise SearchInvalid(
                f"{out} holds a search of another recipe or space",
                hint="go on with the files it was begun with, or name another folder",
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SearchInvalid(f"{out} is not empty and holds no search", hint="name another folder")
    out.mkdir(parents=True, exist_ok=True)
    known.write_text(content, encoding="utf-8")


def _without_test(recipe: Recipe) -> Recipe:
    data = tuple(part.model_copy(update={"test_split": ""}) for part in recipe.data)
    return recipe.model_copy(update={"data": data})


def _run(plan: Recipe, folder: Path, data_root: Path, *, is_quiet: bool) -> RunReport:
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    return train(plan, folder, data_root=data_root, is_quiet=is_quiet)


def _keep(folder: Path, best: Path, *, is_best: bool) -> None:
    """One run folder is kept: a checkpoint is too large to keep them all."""
    if is_best:
        shutil.rmtree(best, ignore_errors=True)
        folder.replace(best)
    else:
        shutil.rmtree(folder)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra(
            "a search needs optuna", hint="pip install 'instructrec-deploy[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_study(optuna: Any, out: Path, *, seed: int) -> Any:
    """The study of a folder; trials that were cut off are marked as failed."""
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(out / JOURNAL_FILE)))
    study = optuna.create_study(
        storage=storage, study_name="search", direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # a sampler goes on from the trials it sees; the seed moves so that it repeats no draw
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _n_finished(optuna: Any, study: Any) -> int:
    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))

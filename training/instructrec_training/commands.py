"""The `train` verb of the command line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_training.continual import Retuned
    from instructrec_training.recipe import Recipe


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="Where relative data paths start [INSTRUCTREC_DATA]."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Replaces the recipe's seed.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replaces one of the recipe; repeatable.",
        ),
    ] = None,
    base: Annotated[
        str,
        typer.Option("--base", metavar="MODEL", help="Replaces the recipe's: a run's, a folder's."),
    ] = "",
    probe_only: Annotated[
        bool,
        typer.Option(
            "--probe-only", help="Logistic regression on frozen vectors and no tuning: seconds."
        ),
    ] = False,
    search: Annotated[
        Path | None,
        typer.Option("--search", help="TOML with [search.KEY] ranges: try settings, write best."),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="With --search: finished trials to reach.")
    ] = 20,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")
    ] = False,
    from_feedback: Annotated[
        Path | None,
        typer.Option("--from-feedback", metavar="STORE", help="Retune on corrected answers."),
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option("--from-run", metavar="RUN", help="The run to go on from (--from-feedback)."),
    ] = None,
    replay_share: Annotated[
        float, typer.Option("--replay-share", help="Least share of old rows in an epoch.")
    ] = 0.5,
    max_loss: Annotated[
        float, typer.Option("--max-loss", help="Points an old test may lose.")
    ] = 0.5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with the figures.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Tune a model by a recipe: before and after figures, checkpoint, evaluation.

    With --from-feedback and --from-run: go on from a run's weights with corrected answers and
    replayed rows; a model that lost on the old tests is kept, but not promoted.
    """
    from instructrec_training.data import data_root as find_root
    from instructrec_training.recipe import read_recipe, with_values
    from instructrec_training.run import train as run_training

    feedback = from_feedback is not None or from_run is not None
    _refuse_together({"--probe-only": probe_only, "--from-feedback": feedback})
    _refuse_together({"--search": search is not None, "--from-feedback": feedback})
    plan = read_recipe(recipe)
    _refuse_together({"--base": bool(base), "--from-feedback": feedback})
    changes = _parse_values(setting or [])
    if seed is not None:
        changes["training.seed"] = seed
    if base:
        changes["model.base"] = base
    if probe_only:
        changes |= {"training.epochs": 0, "training.probe": True}
        changes |= {"training.probe_again": False, "training.average_with_base": 0.0}
    plan = with_values(plan, changes)
    root = find_root(data_root)
    if search is not None:
        _search(plan, search, out, root, trials, as_json=as_json, quiet=quiet)
        return
    retuned = None
    try:
        if from_feedback is not None or from_run is not None:
            retuned = _retune(
                plan,
                out,
                (from_run, from_feedback),
                (replay_share, max_loss),
                data_root=root,
                resume=resume,
                is_quiet=quiet,
            )
            report = retuned.report
        else:
            report = run_training(plan, out, data_root=root, resume=resume, is_quiet=quiet)
    except KeyboardInterrupt:
        if not quiet:
            typer.echo("stopped; the same command with --resume goes on", err=True)
        raise
    if as_json:
        figures = {
            "run": str(report.folder),
            "before": report.before,
            "after": report.after,
            "seconds": round(report.seconds, 1),
            "device": report.device,
            "probe_s": report.probe_s,
        } | ({"promotion": retuned.facts} if retuned else {})
        typer.echo(json.dumps(figures))
    if retuned is not None:
        from instructrec_training.continual import refuse_lost

        refuse_lost(retuned)
    if not (as_json or quiet):
        typer.echo(
            f"trained in {report.seconds:.0f} s; next: instructrec export {out} --out BUNDLE"
        )


def _parse_values(words: Sequence[str]) -> dict[str, Any]:
    """`["training.epochs=1"]` as key -> value; what is no TOML value is a string.

    Raises:
        ConfigError: a word has another form.
    """
    from instructrec_deploy.core.errors import ConfigError

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError("--set takes KEY=VALUE", hint="--set training.epochs=1")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def _refuse_together(options: dict[str, bool]) -> None:
    """Ways to train that exclude each other.

    Raises:
        ConfigError: more than one is asked for.
    """
    from instructrec_deploy.core.errors import ConfigError

    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} do not go together", hint="give one of them")


def _retune(
    plan: Recipe,
    out: Path,
    sources: tuple[Path | None, Path | None],
    numbers: tuple[float, float],
    **how: Any,
) -> Retuned:
    """Retune and say what became of the tests.

    Raises:
        ConfigError: only one of run and store is named.
    """
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_training.continual import Retuning, retune

    run, store = sources
    if run is None or store is None:
        raise ConfigError(
            "--from-feedback and --from-run go together",
            hint="instructrec train RECIPE --from-feedback STORE --from-run RUN --out NEWRUN",
        )
    retuned = retune(plan, Retuning(run, store, *numbers), out, **how)
    if not how["is_quiet"]:
        for line in retuned.promotion.lines():
            say(line)
    return retuned


def _search(
    plan: Recipe, file: Path, out: Path, root: Path, trials: int, *, as_json: bool, quiet: bool
) -> None:
    from instructrec_training.search import read_space, search

    def say(words: str) -> None:
        if not quiet:
            typer.echo(words, err=True)

    space = read_space(file)
    found = search(plan, space, out, data_root=root, n_trials=trials, is_quiet=True, say=say)
    if as_json:
        figures = {
            "best": found.values,
            "validation": found.validation,
            "trials": found.n_trials,
            "recipe": str(found.recipe),
        }
        typer.echo(json.dumps(figures))
        return
    for key, value in found.values.items():
        typer.echo(f"{key} = {json.dumps(value)}")
    typer.echo(
        f"validation {found.validation:.4f}, best of {found.n_trials} trials; "
        f"next: instructrec train {found.recipe} --out RUN"
    )

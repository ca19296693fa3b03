"""The `train` verb of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="Where relative data paths start [INSTRUCTREC_DATA]."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Replaces the recipe's seed.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with the figures.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
) -> None:
    """Tune a model by a recipe: before and after figures, checkpoint, evaluation."""
    from instructrec_training.data import data_root as find_root
    from instructrec_training.recipe import read_recipe
    from instructrec_training.run import train as run_training

    plan = read_recipe(recipe)
    if seed is not None:
        plan = plan.model_copy(update={"training": plan.training.model_copy(update={"seed": seed})})
    report = run_training(plan, out, data_root=find_root(data_root), resume=resume, is_quiet=quiet)
    if as_json:
        figures = {
            "run": str(report.folder),
            "before": report.before,
            "after": report.after,
            "seconds": round(report.seconds, 1),
            "device": report.device,
        }
        typer.echo(json.dumps(figures))
    elif not quiet:
        typer.echo(
            f"trained in {report.seconds:.0f} s; next: instructrec export {out} --out BUNDLE"
        )

"""The `prune` verb of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of `instructrec train`.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    ffn: Annotated[float, typer.Option(help="Share of feed-forward neurons that stays.")] = 1.0,
    heads: Annotated[float, typer.Option(help="Share of attention heads that stays.")] = 1.0,
    layers: Annotated[int, typer.Option(min=0, help="Layers that stay; 0: all.")] = 0,
    rows: Annotated[int, typer.Option(min=16, help="Training rows that say what matters.")] = 512,
    epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Of the distillation; left out: the run's.", show_default=False),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, help="Of the distillation; 0: the run's.")
    ] = 0.0,
    max_minutes: Annotated[
        float, typer.Option(min=0.0, help="Of the distillation; 0: no limit.")
    ] = 0.0,
    use_refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Fit what is left before the distillation.")
    ] = True,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="Where relative data paths start [INSTRUCTREC_DATA]."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run cut off.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Take out layers, heads and neurons that matter least; distil the run's model into the rest.

    What matters is measured on training rows. The new run is exported like any other.
    """
    from instructrec_training.data import data_root as find_root
    from instructrec_training.pruning import Pruning, prune_run

    def say(words: str) -> None:
        if not quiet:
            typer.echo(words, err=True)

    pruning = Pruning(ffn, heads, layers, rows, epochs, learning_rate, max_minutes, use_refit)
    root = find_root(data_root)
    pruned = prune_run(run, pruning, out, data_root=root, resume=resume, is_quiet=quiet, say=say)
    if as_json:
        report = pruned.report
        figures = {"before": report.before, "after": report.after, "pruning": pruned.facts}
        typer.echo(json.dumps({"run": str(out), **figures}))
    elif not quiet:
        facts = pruned.facts
        typer.echo(
            f"{facts['unpruned']['n_parameters'] / 1e6:.1f} -> {facts['n_parameters'] / 1e6:.1f} "
            f"million weights; next: instructrec export {out} --out BUNDLE"
        )

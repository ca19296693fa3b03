"""`instructrec tune-engine`: which runtime, layout and batch limit is fastest on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from instructrec_deploy.runtime.tuning import Tuning


def tune_engine(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Texts of this data file, not the shipped ones.")
    ] = "",
    n_rounds: Annotated[int, typer.Option("--rounds", min=3, help="Rounds over all.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure runtimes, layouts and batch limits for a bundle, and keep what is fastest.

    It is kept in the user's cache, for this bundle on this machine, and used where the setting
    engine.runtime is "auto". `instructrec serve BUNDLE --set engine.runtime=auto --print-config`
    explains it. What the program takes by itself stays unless another choice is faster beyond the
    noise.
    """
    from datetime import UTC, datetime

    from instructrec_deploy.cli.benchmark.layouts import tune
    from instructrec_deploy.cli.benchmark.texts import load_texts
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.core.bundle import open_bundle
    from instructrec_deploy.runtime.tuning import Machine, Tuning, bundle_hash, write_tuning

    opened = open_bundle(bundle)
    machine = Machine.here()
    choice, tried = tune(
        opened, load_texts(data), n_cores=machine.n_cores, n_rounds=n_rounds, say=say
    )
    tuning = Tuning(
        name=opened.manifest.name,
        version=opened.manifest.version,
        bundle_sha256=bundle_hash(opened),
        machine=machine,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        choice=choice,
        tried=tuple(tried),
    )
    path = write_tuning(tuning, opened)
    if as_json:
        typer.echo(tuning.model_dump_json())
    else:
        print_tuning(tuning)
    say(f"kept in {path}; used with --set engine.runtime=auto")


def print_tuning(tuning: Tuning) -> None:
    """One table; the choice is marked."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or a pipe: nothing is cut off
        console = Console(width=120)
    table = Table("", "runtime", "lanes", "threads", "batch tokens", "texts/s", "x", "one alone ms")
    for one in tuning.tried:
        choice = one.choice
        low, high = one.interval
        table.add_row(
            "*" if choice == tuning.choice else "",
            choice.runtime,
            str(choice.n_lanes),
            str(choice.threads_per_lane),
            str(choice.max_batch_tokens),
            f"{one.texts_per_s:.0f}",
            f"{one.ratio:.2f} [{low:.2f}, {high:.2f}]",
            f"{one.single_ms:.1f}",
        )
    console.print(table)
    console.print("*: chosen; x: multiples of the first row's throughput, 95 % interval.")
    console.print(
        "Other batch limits are measured in rounds of their own, beside the best layout once more: "
        "compare their x, not their texts/s, with the rows above."
    )

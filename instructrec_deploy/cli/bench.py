"""`instructrec bench`: throughput, latency, start and memory of bundles, side by side."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

POINT_S = 3.0
TITLES = {
    "unary_1": "1 caller",
    "unary_8": "8 callers",
    "unary_64": "64 callers",
    "batch_16": "batches of 16",
}


def bench(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundle folders.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Texts of this data file, not the shipped ones.")
    ] = "",
    n_rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds over all.")] = 3,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="Of each point in a round. [3; with --compare 0.1]"),
    ] = None,
    n_starts: Annotated[int, typer.Option("--cold-starts", min=1, help="Of each bundle.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    is_comparison: Annotated[
        bool,
        typer.Option("--compare", help="The bundles as compressed variants of one model."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="With --compare: PyTorch, too, with this run's weights."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="With --compare: whose labels are chosen from. [the default task]")
    ] = "",
    split: Annotated[str, typer.Option(help="With --compare: rows of this split.")] = "test",
    limit: Annotated[
        int, typer.Option(min=0, help="With --compare: only the first N rows; 0: all.")
    ] = 0,
    threads: Annotated[
        str, typer.Option(help="With --compare: threads inside an operator. [1,2]")
    ] = "",
    batches: Annotated[str, typer.Option(help="With --compare: texts of a call.")] = "1,8,32",
    lengths: Annotated[
        str, typer.Option(help="With --compare: tokens of a text, beside the rows' own lengths.")
    ] = "16,32,64,128,256",
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --compare: an earlier figures file; exit code 8 where worse."
        ),
    ] = None,
    has_plot: Annotated[
        bool,
        typer.Option("--plot", help="With --compare and --out: speed by quality, PNG and SVG."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.NAME=VALUE", help="For the servers; repeatable."),
    ] = None,
) -> None:
    """Measure bundles: the engine in process, then a real server over gRPC.

    The bound is the engine alone (pre-tokenized, sorted by length, batches of 32, one session and
    thread a core); "mixed" is what of it is left where the same batches come in any order, so that
    lengths differ. The load is closed-loop, from a process of its own on the same machine.

    With --compare no server is started: bundles of one run are compared with each runtime that is
    installed, with ONNX Runtime's own dynamic int8 (made from the fp32 bundle, where one is named)
    and with PyTorch (--checkpoint), by speed, quality, size, memory and start.
    """
    if is_comparison:
        from instructrec_deploy.cli.benchmark.comparison import Asked, compare

        asked = Asked(
            bundles=bundles,
            data=data,
            checkpoint=checkpoint,
            task=task,
            split=split,
            limit=limit,
            threads=threads,
            batches=batches,
            lengths=lengths,
            n_rounds=n_rounds,
            seconds=seconds,
            n_starts=n_starts,
            settings=setting or [],
        )
        compare(asked, out=out, against=against, has_plot=has_plot, as_json=as_json)
        return
    loose = {"--checkpoint": checkpoint, "--task": task, "--limit": limit, "--threads": threads}
    refuse_without_comparison(loose | {"--against": against, "--plot": has_plot})
    from instructrec_deploy.cli.benchmark.measure import BenchPlan, run_bench
    from instructrec_deploy.cli.benchmark.texts import load_texts
    from instructrec_deploy.cli.report import check_writable, say

    check_writable(out)
    options = [word for one in setting or [] for word in ("--set", one)]
    plan = BenchPlan(bundles, load_texts(data), n_rounds, seconds or POINT_S, n_starts, options)
    with tempfile.TemporaryDirectory(prefix="instructrec-bench-") as logs:
        result = run_bench(plan, Path(logs), say=say)
    result["settings"]["data"] = Path(data).name if data else "shipped texts"
    if out is not None:
        out.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        say(f"figures written to {out}")
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        print_tables(result)


def refuse_without_comparison(options: Mapping[str, object]) -> None:
    """Options that only --compare knows.

    Raises:
        ConfigError: one was given.
    """
    from instructrec_deploy.core.errors import ConfigError

    given = [name for name, value in options.items() if value]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: of use with --compare alone",
            hint="add --compare, or leave it out",
        )


def print_tables(result: dict[str, Any]) -> None:
    """One table of bundles, one of load points."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or a pipe: nothing is cut off
        console = Console(width=120)
    machine = result["machine"]
    console.print(f"{machine['cpu']}, {machine['n_cores']} cores, Python {machine['python']}")
    table = Table("bundle", "MB", "candidates", "bound texts/s", "mixed", "cold start s", "idle MB")
    for one in result["bundles"]:
        table.add_row(
            f"{one['name']} {one['precision']}",
            f"{one['size_mb']:.0f}",
            str(one["n_candidates"]),
            _with_spread(one["bound_texts_per_s"]),
            f"{one['mixed_of_bound']['median']:.2f}",
            f"{one['cold_start_s']['median']:.2f}",
            f"{one['idle_memory_mb']['median']:.0f}",
        )
    console.print(table)
    names = ("bundle", "gRPC load", "texts/s", "of bound", "p50 ms", "p95 ms", "p99 ms", "errors")
    table = Table(*names)
    for one in result["bundles"]:
        for name, point in one["points"].items():
            table.add_row(
                f"{one['name']} {one['precision']}",
                TITLES[name],
                _with_spread(point["texts_per_s"]),
                f"{point['of_bound']['median']:.2f}",
                *(f"{point[f'p{percent}_ms']:.1f}" for percent in (50, 95, 99)),
                str(point["n_errors"]),
            )
    console.print(table)
    console.print("medians of the rounds, least to greatest in brackets; ms of a whole call")


def _with_spread(figure: dict[str, Any]) -> str:
    return f"{figure['median']:.0f} ({figure['min']:.0f}-{figure['max']:.0f})"

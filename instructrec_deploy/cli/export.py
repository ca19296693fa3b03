"""`instructrec export`: a tuned run becomes a bundle."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Precision(StrEnum):
    """Of weights and activations."""

    FP32 = "fp32"
    INT8 = "int8"


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder of `instructrec train`.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle folder to write.")],
    precision: Annotated[
        Precision, typer.Option(help="int8 answers do not depend on batch neighbours either.")
    ] = Precision.INT8,
    name: Annotated[str, typer.Option(help="Of the bundle; empty: the run's.")] = "",
    calibration: Annotated[
        str, typer.Option(metavar="FILE", help="Data file for int8; empty: the run's samples.")
    ] = "",
    trim_vocabulary: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Data file of texts like those it will read: pieces they do not need are left "
            "out. A run's own words stay.",
        ),
    ] = "",
    vocabulary_size: Annotated[
        int,
        typer.Option(min=0, help="With --trim-vocabulary: keep frequent pieces up to so many."),
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Also a run that was refused promotion.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Export a run to ONNX, compare its answers with the checkpoint's, pack a bundle."""
    from instructrec_deploy.cli.report import need_extra, say
    from instructrec_deploy.cli.shipped import find_data
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.evaluation.reader import read_examples
    from instructrec_deploy.evaluation.requests import request_of

    with need_extra("export", "train"):
        from instructrec_deploy.export.run import export_run
        from instructrec_deploy.export.trim import Trimming, corpus_texts

    rows = read_examples(find_data(calibration)) if calibration else []
    if vocabulary_size and not trim_vocabulary:
        raise ConfigError(
            "--vocabulary-size says how far --trim-vocabulary goes, which is not given",
            hint="name a data file of texts like those it will read",
        )
    trimming = None
    if trim_vocabulary:
        corpus = corpus_texts(read_examples(find_data(trim_vocabulary)))
        trimming = Trimming(corpus, vocabulary_size)
    report = export_run(
        run,
        out,
        precision=precision.value,
        name=name,
        calibration=[request_of(row) for row in rows],
        trimming=trimming,
        force=force,
        progress=lambda stage: say(f"export: {stage}"),
    )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
        return
    typer.echo(
        f"{report.name} {report.version}, {report.precision}, {report.size_bytes / 1e6:.1f} MB, "
        f"{report.n_golden} golden pairs, in {sum(report.seconds.values()):.1f} s: {report.out}"
    )
    typer.echo(f"next: instructrec serve {report.out}")

"""`instructrec export`: a tuned run becomes a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.core.manifest import GeneratorKind
    from instructrec_deploy.core.request import Request
    from instructrec_deploy.export.by_plan import PlanReport
    from instructrec_deploy.export.run import ExportReport

STAGE_GROUP = "instructrec.stages"  # entry points; `training` knows how to prune and read a run


class Precision(StrEnum):
    """Of weights and activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT8_WEIGHTS = "int8-weights"
    INT4_WEIGHTS = "int4-weights"


class Target(StrEnum):
    """Plans that come with the package."""

    CPU = "cpu"
    EDGE = "edge"
    GPU = "gpu"


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run of `instructrec train`, hf:FOLDER or hf:ORG/NAME."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle folder to write.")],
    plan: Annotated[
        str, typer.Option(metavar="FILE", help="Stages and what each may lose (docs/export.md).")
    ] = "",
    target: Annotated[
        Target | None, typer.Option(help="A plan that comes along.", show_default=False)
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="With a plan: where the run's data paths start."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With a plan: keeps the stages; else OUT.stages."),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="int8, the default: answers do not depend on batch neighbours either. Of a "
            "model that writes: fp32.",
            show_default=False,
        ),
    ] = None,
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
    """Export a run to ONNX, compare its answers with the checkpoint's, pack a bundle.

    With a plan: prune, distil, trim and quantize in stages, each measured, each with a limit.
    """
    from instructrec_deploy.cli.report import need_extra

    plan_name = plan or (target.value if target else "")
    if plan_name:
        given = {
            "--target": bool(plan and target),
            "--precision": precision is not None,
            "--calibration": bool(calibration),
            "--trim-vocabulary": bool(trim_vocabulary),
            "--vocabulary-size": bool(vocabulary_size),
        }
    else:
        given = {
            "--data-root": data_root is not None,
            "--work": work is not None,
            "--calibration": bool(calibration and precision not in (None, Precision.INT8)),
            "--vocabulary-size": bool(vocabulary_size and not trim_vocabulary),
        }
    _check_options(given, by_plan=bool(plan_name))
    _tell_of_replacement(out)
    with need_extra("export", "train"):
        model = _model_folder(str(run))
        if model and (kind := _generator_kind(model)):
            given = {
                "--plan or --target": bool(plan_name),
                "--calibration": bool(calibration) and precision is not Precision.INT8,
                "--trim-vocabulary": bool(trim_vocabulary),
            }
            _check_generator_options(given)
            _generator(model, out, kind, precision, name, calibration, as_json=as_json)
            return
    with need_extra("export", "train"), _source(run, model) as source:
        if plan_name:
            _check_has_weights(model)
            folder = work or out.with_name(f"{out.name}.stages")
            _by_plan(source, out, plan_name, data_root, folder, name, force=force, as_json=as_json)
        else:
            trimming = (trim_vocabulary, vocabulary_size)
            level = precision or Precision.INT8
            _at_once(source, out, level, calibration, trimming, name, force=force, as_json=as_json)


def _tell_of_replacement(out: Path) -> None:
    """Say before the work that a bundle will go."""
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.core.bundle import MANIFEST_FILE

    if (out / MANIFEST_FILE).is_file():
        say(f"export: {out} holds a bundle, which the new one will replace once it is done")


def _model_folder(run: str) -> Path | None:
    """The folder of `hf:FOLDER`, of a preset or of `hf:ORG/NAME`, fetched; None of a run."""
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.export.imports import SCHEME
    from instructrec_deploy.models.hub import fetch_from_hub, is_hub_id
    from instructrec_deploy.models.presets import PRESETS, resolve_model

    if not run.startswith(SCHEME):
        return None
    name = run.removeprefix(SCHEME)
    if name in PRESETS:
        return Path(resolve_model(name, say=say))
    return fetch_from_hub(name) if is_hub_id(name) else Path(name).expanduser()


def _generator_kind(model: Path) -> GeneratorKind | None:
    """How the model of a folder writes text; None where it does not."""
    from instructrec_deploy.export.imports import generator_kind

    return generator_kind(model)


def _check_has_weights(model: Path | None) -> None:
    """A plan prunes and distils, which a graph that was imported does not bear.

    Raises:
        ConfigError: there is only a graph.
    """
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.export.onnx_import import is_onnx_folder

    if model and is_onnx_folder(model):
        raise ConfigError(
            f"{model}: there is a graph and no weights, and a plan works on weights",
            hint="leave out --plan or --target, or import the weights that it was exported from",
        )


def _check_generator_options(given: dict[str, bool]) -> None:
    """Options that a model that writes has no use for.

    Raises:
        ConfigError: one is given.
    """
    from instructrec_deploy.core.errors import ConfigError

    if named := ", ".join(option for option, is_given in given.items() if is_given):
        raise ConfigError(
            f"{named} has no effect on a model that writes text",
            hint="of such a model --precision, --name, --out and --json are read, and "
            "--calibration with --precision int8",
        )


def _generator(
    model: Path,
    out: Path,
    kind: GeneratorKind,
    precision: Precision | None,
    name: str,
    calibration: str,
    *,
    as_json: bool,
) -> None:
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.export.generator_run import export_generator

    report = export_generator(
        model,
        out,
        kind=kind,
        precision=(precision or Precision.FP32).value,
        name=name,
        calibration=[request.text for request in _requests(calibration)],
        progress=lambda stage: say(f"export: {stage}"),
    )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
        return
    typer.echo(
        f"{report.name} {report.version}, {report.precision}, {report.size_bytes / 1e6:.1f} MB, "
        f"in {sum(report.seconds.values()):.1f} s: {report.out}"
    )
    typer.echo(f"next: instructrec bundle verify {report.out}; {report.out}/CARD.md says more")


@contextmanager
def _source(run: Path, model: Path | None) -> Iterator[Path]:
    """The run folder; of a model's folder a temporary one that is made from it."""
    from instructrec_deploy.export.imports import import_folder

    if model is None:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="instructrec-import-") as work:
        yield import_folder(model, Path(work) / model.resolve().name)


def _check_options(given: dict[str, bool], *, by_plan: bool) -> None:
    """Options that a plan says itself, or that only go with one.

    Raises:
        ConfigError: one is given.
    """
    from instructrec_deploy.core.errors import ConfigError

    named = ", ".join(option for option, is_given in given.items() if is_given)
    if named and by_plan:
        raise ConfigError(f"{named}: a plan says this itself", hint="write it into the plan")
    if named:
        raise ConfigError(
            f"{named} has no effect here",
            hint="--data-root and --work go with --plan or --target, --vocabulary-size with "
            "--trim-vocabulary, --calibration with int8",
        )


def _at_once(
    run: Path,
    out: Path,
    precision: Precision,
    calibration: str,
    trimming: tuple[str, int],
    name: str,
    **flags: bool,
) -> None:
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.export.run import export_run
    from instructrec_deploy.export.trim import Trimming

    corpus, size = trimming
    report = export_run(
        run,
        out,
        precision=precision.value,
        name=name,
        calibration=_requests(calibration),
        trimming=Trimming(_corpus(corpus), size) if corpus else None,
        force=flags["force"],
        progress=lambda stage: say(f"export: {stage}"),
    )
    _tell(
        report,
        f"{report.n_golden} golden pairs, in {sum(report.seconds.values()):.1f} s",
        as_json=flags["as_json"],
    )


def _by_plan(
    run: Path,
    out: Path,
    plan_name: str,
    data_root: Path | None,
    work: Path,
    name: str,
    **flags: bool,
) -> None:
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.export.by_plan import export_plan
    from instructrec_deploy.export.plan import read_plan
    from instructrec_deploy.export.plan_inputs import read_inputs

    plan, tools = read_plan(plan_name), _tools()
    root = tools.find_data_root(data_root)
    corpus = plan.vocabulary.corpus if plan.vocabulary else ""
    inputs = read_inputs(
        run,
        plan,
        tools=tools,
        data_root=root,
        corpus=_corpus(corpus) if corpus else (),
        calibration=_requests(plan.quantize.calibration),
    )
    try:
        report = export_plan(
            inputs,
            out,
            plan,
            tools=tools,
            data_root=root,
            work=work,
            name=name,
            force=flags["force"],
            progress=lambda words: say(f"export: {words}"),
        )
    except KeyboardInterrupt:
        say(f"export: stopped; the same command goes on with what lies in {work}")
        raise
    _tell(report, f"{len(report.stages)} stages, kept in {work}", as_json=flags["as_json"])


def _tools() -> Any:
    """The training package's part in an export.

    Raises:
        MissingExtra: it is not installed.
    """
    from instructrec_deploy.core.errors import MissingExtra

    for point in entry_points(group=STAGE_GROUP, name="training"):
        return point.load()
    raise MissingExtra(
        "an export by a plan needs the training package, which is not installed",
        hint="pip install 'instructrec-deploy[train]'",
    )


def _tell(report: ExportReport | PlanReport, facts: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
        return
    typer.echo(
        f"{report.name} {report.version}, {report.precision}, {report.size_bytes / 1e6:.1f} MB, "
        f"{facts}: {report.out}"
    )
    typer.echo(f"next: instructrec serve {report.out}")


def _requests(file: str) -> list[Request]:
    from instructrec_deploy.cli.shipped import find_data
    from instructrec_deploy.evaluation.reader import read_examples
    from instructrec_deploy.evaluation.requests import request_of

    return [request_of(row) for row in read_examples(find_data(file))] if file else []


def _corpus(file: str) -> list[str]:
    from instructrec_deploy.cli.shipped import find_data
    from instructrec_deploy.evaluation.reader import read_examples
    from instructrec_deploy.export.trim import corpus_texts

    return corpus_texts(read_examples(find_data(file)))

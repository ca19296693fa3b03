"""`instructrec bundle`: look into a bundle and check it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.core.bundle import Bundle
    from instructrec_deploy.runtime.golden import GoldenReport

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look into a bundle, check it.")

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("show")
def show(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Say what a bundle is: model, precision, tasks, size, figures."""
    from instructrec_deploy.core.bundle import open_bundle

    facts = describe_bundle(open_bundle(bundle))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    typer.echo(f"{facts['name']} {facts['version']} ({facts['created']})")
    model = facts["model"]
    typer.echo(
        f"model   {model['kind']}, {model['precision']}, from {model['base'] or 'unknown'}, "
        f"{model['n_parameters'] / 1e6:.1f} M parameters, window {model['max_tokens']} tokens"
    )
    typer.echo(f"size    {facts['size_bytes'] / 1e6:.1f} MB in {facts['n_files']} files")
    for name, task in facts["tasks"].items():
        mark = " (default)" if name == facts["default_task"] else ""
        typer.echo(f"task    {name}{mark}: {task['kind']}, {len(task['labels'])} labels")
    for line in figure_lines(facts):
        typer.echo(line)


@app.command("verify")
def verify(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Check every file's size and hash, and run the golden pairs on this machine."""
    from instructrec_deploy.core.bundle import open_bundle

    opened = open_bundle(bundle)
    golden = _check(opened)
    facts = {
        "name": opened.manifest.name,
        "version": opened.manifest.version,
        "n_files": len(opened.manifest.files),
        "n_golden": golden.n_pairs,
        "max_difference": golden.max_difference,
        "ok": True,
    }
    typer.echo(
        json.dumps(facts, ensure_ascii=False)
        if as_json
        else f"{facts['name']} {facts['version']}: {facts['n_files']} files intact, "
        f"{golden.n_pairs} golden pairs agree"
    )


def _check(bundle: Bundle) -> GoldenReport:
    """Run the golden pairs, as the bundle's kind has them."""
    from instructrec_deploy.runtime.golden import check_golden
    from instructrec_deploy.runtime.golden_texts import check_golden_texts
    from instructrec_deploy.runtime.pipeline import Pipeline
    from instructrec_deploy.runtime.writer import Writer

    if bundle.manifest.model.generation is not None:
        with Writer(bundle) as writer:
            return check_golden_texts(bundle, writer)
    with closing(Pipeline.open(bundle)) as pipeline:  # reads the safety policy, too
        return check_golden(bundle, pipeline)


def figure_lines(facts: dict[str, Any]) -> list[str]:
    """How good the bundle is, for people: each task before and after tuning, and the export."""
    lines = []
    for name, found in facts["evaluation"].items():
        before, after = found["before"], found["after"]
        rows = f"{found['split']} split, {after.get('n', '?')} rows"
        lines.append(f"quality {name}: of the checkpoint, {rows}")
        for figure in [key.removesuffix("_interval") for key in after if key.endswith("_interval")]:
            words = f"{figure.replace('_', ' ').replace('f1', 'F1')} {_figure(after, figure)}"
            untuned = (
                f", untuned {_figure(before, figure)}" if f"{figure}_interval" in before else ""
            )
            lines.append(f"        {words}{untuned}")
    if not lines:
        lines.append("quality not measured: no evaluation came with the run")
    if parity := facts["parity"]:
        lines.append(
            f"export  the checkpoint's label for {parity['agreement']:.1%} of {parity['n_texts']} "
            f"texts; probabilities moved by {parity['mean_difference']:.4f} on average, "
            f"{parity['max_difference']:.4f} at most, by the company of a batch "
            f"{parity['batch_difference']:.6f}"
        )
    elif parity := facts["writer_parity"]:
        lines.append(
            f"export  the checkpoint's next token in {parity['agreement']:.1%} of the steps behind "
            f"{parity['n_texts']} texts; logits moved by {parity['mean_difference']:.2g} of the "
            f"largest on average, {parity['max_difference']:.2g} at most"
        )
    elif facts["evaluation"]:
        lines.append("export  not compared with a checkpoint")
    return lines


def read_evaluation(bundle: Bundle) -> dict[str, Any]:
    """What training and export measured (evaluation.json); {} where a bundle has none.

    Raises:
        BundleError: it is no JSON object.
    """
    from instructrec_deploy.core.bundle import EVALUATION_FILE, read_text
    from instructrec_deploy.core.errors import BundleError

    if not bundle.has(EVALUATION_FILE):
        return {}
    try:
        raw = json.loads(read_text(bundle.path(EVALUATION_FILE)))
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise BundleError(f"{EVALUATION_FILE}: no JSON object", hint="export the bundle again")
    return raw


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Plain data about an opened bundle."""
    manifest, measured = bundle.manifest, read_evaluation(bundle)
    return {
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created,
        "format_version": manifest.format_version,
        "model": manifest.model.model_dump(mode="json"),
        "score_tolerance": manifest.score_tolerance,
        "size_bytes": sum(entry.size_bytes for entry in manifest.files.values()),
        "n_files": len(manifest.files),
        "default_task": bundle.tasks.default_task,
        "tasks": {
            name: {
                "kind": task.kind.value,
                "labels": list(task.labels),
                "instructions": {k: list(v) for k, v in task.instructions.items()},
                "temperature": task.temperature,
            }
            for name, task in bundle.tasks.tasks.items()
        },
        "evaluation": {
            name: {
                "split": _part(measured, "split").get(name, "unknown"),
                "before": _part(measured, "before", name),
                "after": _part(measured, "after", name),
            }
            for name in _part(measured, "after")
        },
        "parity": _part(measured, "export", "parity"),
        "writer_parity": _part(measured, "export", "writer_parity"),
    }


def _part(raw: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The object under the keys; {} where there is none."""
    found: Any = raw
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _figure(figures: dict[str, Any], name: str) -> str:
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]"

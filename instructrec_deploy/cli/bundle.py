"""`instructrec bundle`: look into a bundle and check it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.core.bundle import Bundle

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


@app.command("verify")
def verify(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Check every file's size and hash, and run the golden pairs on this machine."""
    from instructrec_deploy.core.bundle import open_bundle
    from instructrec_deploy.runtime.golden import check_golden
    from instructrec_deploy.runtime.pipeline import Pipeline

    opened = open_bundle(bundle)
    with closing(Pipeline.open(opened)) as pipeline:  # reads the safety policy, too
        golden = check_golden(opened, pipeline)
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


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Plain data about an opened bundle."""
    manifest = bundle.manifest
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
    }

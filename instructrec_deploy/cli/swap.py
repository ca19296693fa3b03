"""`instructrec swap`: have a server take a new version of its model, or go back to the old one."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def swap(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Which one. [the only one]", show_default=False)
    ] = "",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the version that answered before.")
    ] = False,
    address: Annotated[str, typer.Option("--address", "-a", help="HOST:PORT")] = "127.0.0.1:50051",
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, max=86_400.0, help="Seconds to wait.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Have a server serve the newest version that it finds; no call fails meanwhile.

    A version that is broken, or whose golden pairs differ, is refused, and the old one goes on.
    """
    from instructrec_deploy.client.security import Security
    from instructrec_deploy.client.sync import Client

    with Client(address, timeout_s=timeout_s, security=Security.from_environ()) as client:
        change = client.swap(model, rollback=rollback)
    if as_json:
        row = {"model": change.model, "version": change.model_version}
        typer.echo(json.dumps({**row, "previous_version": change.previous_version}))
    elif change.is_changed:
        typer.echo(f"{change.model}: {change.previous_version} -> {change.model_version}")
    else:
        typer.echo(f"{change.model} {change.model_version} goes on: nothing new is there")

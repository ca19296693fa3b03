"""`instructrec keys`: make, list and revoke the API keys of a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="API keys of a server, kept as hashes."
)
File = Annotated[Path, typer.Option("--file", help="The file of keys ([access] keys).")]
KEYS_FILE = Path("keys.toml")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Who will call with it: a service, a tenant.")],
    file: File = KEYS_FILE,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="predict, feedback or admin. [predict]")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="For these tasks alone; repeatable. [all]")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="For these models alone; repeatable. [all]"),
    ] = None,
    days: Annotated[
        float, typer.Option("--days", min=0.0, help="Valid so long; 0: until it is revoked.")
    ] = 0.0,
    tokens_per_s: Annotated[
        float | None,
        typer.Option(help="Tokens it may have read in a second. [overload.tenant_tokens_per_s]"),
    ] = None,
    burst_tokens: Annotated[
        int | None, typer.Option(help="Tokens at most at once. [10 seconds of it]")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Of the workers where several callers wait. [1]")
    ] = None,
) -> None:
    """Make a key and print it, once: the file keeps its hash. Older keys stay valid beside it."""
    from pydantic import ValidationError

    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.server.access.keys import KeyEntry, new_key, read_keys, write_keys

    keys = read_keys(file) if file.exists() else {}
    id_, key, kept = new_key()
    now = datetime.now(UTC).replace(microsecond=0)
    content = {
        "name": name,
        "hash": kept,
        "roles": role or ["predict"],
        "tasks": task or None,
        "models": model or None,
        "created": now,
        "expires": now + timedelta(days=days) if days else None,
        "tokens_per_s": tokens_per_s,
        "burst_tokens": burst_tokens,
        "share": share,
    }
    try:
        entry = KeyEntry.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(
            f"{fault['loc'][0]}: {fault['msg']}", hint="instructrec keys new --help"
        ) from error
    write_keys(file, {**keys, id_: entry})
    typer.echo(key)
    typer.echo(f"{id_} for {name}: kept in {file} as a hash, shown this once", err=True)


@app.command("list")
def list_keys(file: File = KEYS_FILE) -> None:
    """Show whose keys there are, what they open, and until when."""
    from instructrec_deploy.server.access.keys import read_keys

    now = datetime.now(UTC)
    for id_, entry in read_keys(file).items():
        until = "no end" if entry.expires is None else f"until {entry.expires:%Y-%m-%d %H:%M} UTC"
        if entry.is_over(now):
            until = "expired"
        tasks = "all tasks" if entry.tasks is None else f"tasks {', '.join(entry.tasks)}"
        models = "" if entry.models is None else f"  models {', '.join(entry.models)}"
        typer.echo(f"{id_}  {entry.name}  {', '.join(entry.roles)}  {tasks}{models}  {until}")


@app.command("revoke")
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
    file: File = KEYS_FILE,
) -> None:
    """Take keys out of the file; a running server refuses them within [access] reload_s."""
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.server.access.keys import read_keys, write_keys

    keys = read_keys(file)
    unknown = [id_ for id_ in ids if id_ not in keys]
    if unknown:
        raise ConfigError(
            f"no key {', '.join(unknown)} in {file}", hint=f"instructrec keys list --file {file}"
        )
    write_keys(file, {id_: entry for id_, entry in keys.items() if id_ not in ids})
    typer.echo(f"revoked {', '.join(ids)}")

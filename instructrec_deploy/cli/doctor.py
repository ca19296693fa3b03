"""`instructrec doctor`: is everything fit to serve? One line a check, and what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instructrec_deploy.server.checkup.finding import Finding
    from instructrec_deploy.server.settings import ServerSettings

FAILED = 9  # of its own: the command itself did its work


def doctor(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A bundle folder.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file. [instructrec.toml, if there is one]")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.NAME=VALUE", help="As for serve; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check machine, bundle and settings as `serve` would use them; exit code 9 if one fails."""
    from instructrec_deploy.cli.serve import parse_settings
    from instructrec_deploy.core.errors import InstructRecError
    from instructrec_deploy.server.checkup.finding import Finding
    from instructrec_deploy.server.settings import ServerSettings, load_settings

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            typer.echo(f"{finding.verdict:4}  {finding.name}: {finding.message}")
            if finding.hint:
                typer.echo(f"      -> {finding.hint}")

    settings = ServerSettings()
    try:
        settings = load_settings(config, overrides=parse_settings(setting or [])).settings
    except InstructRecError as error:
        tell(Finding("settings", "fail", error.message, error.hint, error.code))
    for finding in _checks(bundle, settings):
        tell(finding)
    counts = {word: sum(f.verdict == word for f in found) for word in ("ok", "warn", "fail")}
    if as_json:
        checks = [asdict(finding) for finding in found]
        row = {"ok": not counts["fail"], "counts": counts, "checks": checks}
        typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        typer.echo(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
    if counts["fail"]:
        raise typer.Exit(FAILED)


def _checks(bundle: Path | None, settings: ServerSettings) -> Iterator[Finding]:
    from instructrec_deploy.server.checkup.bundles import check_bundle, check_repository
    from instructrec_deploy.server.checkup.configuration import check_configuration
    from instructrec_deploy.server.checkup.machine import check_machine

    yield from check_machine(settings.engine)
    if bundle is not None:
        yield from check_bundle(bundle, settings.engine)
    if settings.models.repository:
        yield from check_repository(settings)
    yield from check_configuration(settings)

"""`instructrec`: the verbs, and the one border where their errors become messages and exit codes.

A verb's module is imported when the verb is called, and its tools when it runs. Other packages add
verbs by an entry point in the group `instructrec.commands`: a function with typer parameters, or a
`typer.Typer`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from instructrec_deploy import __version__
from instructrec_deploy.cli.report import explain_os, report_error, report_unexpected
from instructrec_deploy.cli.usage import UsageFault, explain_usage, is_bare_call
from instructrec_deploy.core.errors import InstructRecError, MissingExtra, UsageInvalid

PLUGIN_GROUP = "instructrec.commands"
# verb -> where its function (or typer.Typer) stands, in the order of a first hour with the program
VERBS = {
    "demo": "demo:demo",
    "models": "models:app",
    "export": "export:export",
    "serve": "serve:serve",
    "swap": "swap:swap",
    "keys": "keys:app",
    "predict": "predict:predict",
    "evaluate": "evaluate:evaluate",
    "instructions": "instructions:app",
    "bench": "bench:bench",
    "tune-engine": "tune_engine:tune_engine",
    "feedback": "feedback:app",
    "guard": "guard:guard",
    "review": "review:app",
    "bundle": "bundle:app",
    "health": "health:health",
    "doctor": "doctor:doctor",
}
FIRST_PLUGINS_AFTER = "models"  # `train` stands before `export` in the help


class VerbGroup(TyperGroup):
    """The verbs, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs, for the help."""
        names = list(VERBS)
        at = names.index(FIRST_PLUGINS_AFTER) + 1
        return names[:at] + sorted(set(_plugins()) - set(VERBS)) + names[at:]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of that name as a click command; None if there is none."""
        if cmd_name in VERBS:
            module, name = VERBS[cmd_name].split(":")
            return _command(
                cmd_name, getattr(import_module(f"instructrec_deploy.cli.{module}"), name)
            )
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else _command(cmd_name, _load(plugin))


app = typer.Typer(
    cls=VerbGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"instructrec-deploy {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Tune small models that follow instructions, export them, serve them over gRPC."""


def main() -> None:
    """Entry point of the command line; always ends in SystemExit."""
    try:
        code = typer.main.get_command(app)(prog_name="instructrec", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except UsageFault as fault:
        if is_bare_call(fault):
            print(fault.format_message(), file=sys.stderr)
        else:
            report_error(explain_usage(fault, sys.argv[1:], VERBS))
        sys.exit(UsageInvalid.exit_code)
    except InstructRecError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  the border: nobody else would report it
        known = explain_os(error)
        if known is None:
            report_unexpected(error)
            sys.exit(1)
        report_error(known)
        sys.exit(known.exit_code)


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _load(plugin: EntryPoint) -> Any:
    """The plugin's function; one that cannot be imported says so when it is called."""
    try:
        return plugin.load()
    except (ImportError, AttributeError) as error:
        reason = f"the verb {plugin.name} cannot be loaded ({type(error).__name__}: {error})"

        def unavailable() -> None:
            raise MissingExtra(reason, hint="pip install 'instructrec-deploy[train]'")

        unavailable.__doc__ = "(not available: its packages are not installed)"
        return unavailable


def _command(name: str, target: Callable[..., Any] | typer.Typer) -> Any:
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    lone = typer.Typer(rich_markup_mode=None, add_completion=False)
    lone.command(name)(target)
    return typer.main.get_command(lone)


if __name__ == "__main__":
    main()

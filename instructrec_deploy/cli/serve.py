"""`instructrec serve`: answer over gRPC."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

SUPERVISOR = "instructrec_deploy.cli.supervise"
WATCH_S = 2.0  # --watch; `--set models.watch_s` says otherwise


@contextmanager
def paused_collector() -> Iterator[None]:
    """No looking for garbage while the server comes up: 0.1 to 0.2 s that find next to nothing.

    `calm_collector` resumes it when the server is ready.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@paused_collector()
def serve(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A bundle folder.", show_default=False)
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Models in FOLDER/MODEL/RELEASE, in place of BUNDLE."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", help="0: a free one, printed. [50051]")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Prometheus metrics over HTTP; 0: off. [0]")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option("--http", metavar="PORT", help="JSON over HTTP, too. [off]")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Processes that share the port; 0: one alone. [0]"),
    ] = None,
    target_p99_ms: Annotated[
        float | None,
        typer.Option(help="Refuse at once what would wait longer; 0: no target. [0]"),
    ] = None,
    allow_insecure: Annotated[
        bool, typer.Option("--allow-insecure", help="Listen beyond this machine without TLS.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look every 2 s for a new version, and swap it in. [off]"),
    ] = False,
    feedback: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep corrected answers in this file. [off]"),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A safety.toml; read again when it changes. [BUNDLE's]"),
    ] = None,
    safety_bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A bundle whose model scores texts for the policy."),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write safety decisions there, without texts. [off]"),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep cases there that the policy says to review. [off]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file. [instructrec.toml, if there is one]")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Any other setting; repeatable."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show each setting and its origin, and end.")
    ] = False,
) -> None:
    """Serve a bundle over gRPC until SIGTERM or Ctrl-C; calls that were accepted are finished."""
    from instructrec_deploy.core.errors import ConfigError
    from instructrec_deploy.server.settings import load_settings

    overrides = parse_settings(setting or [])
    door: dict[str, Any] = {
        "host": host,
        "port": port,
        "metrics_port": metrics_port,
        "http_port": http_port,
    }
    door["workers"] = workers
    door["allow_insecure"] = True if allow_insecure else None
    given = {name: value for name, value in door.items() if value is not None}
    overrides["server"] = {**overrides.get("server", {}), **given}
    if target_p99_ms is not None:
        overrides["overload"] = {**overrides.get("overload", {}), "target_p99_ms": target_p99_ms}
    models: dict[str, Any] = {"watch_s": WATCH_S} if watch else {}
    if repository is not None:
        models["repository"] = str(repository)
    overrides["models"] = {**models, **overrides.get("models", {})}
    if feedback is not None:
        overrides["feedback"] = {**overrides.get("feedback", {}), "file": str(feedback)}
    files = {"policy": policy, "audit": audit, "review": review, "bundle": safety_bundle}
    safety = {name: str(file) for name, file in files.items() if file is not None}
    if safety:
        overrides["safety"] = {**overrides.get("safety", {}), **safety}
    loaded = load_settings(config, overrides=overrides)
    if print_config:
        for key, value, origin in loaded.rows():
            typer.echo(f"{key} = {json.dumps(value, ensure_ascii=False)}  # {origin}")
        if bundle is not None and loaded.settings.engine.runtime == "auto":
            from instructrec_deploy.core.bundle import open_bundle
            from instructrec_deploy.runtime.tuning import explain_tuning

            for line in explain_tuning(open_bundle(bundle)):
                typer.echo(f"# {line}")
        return
    settings = loaded.settings
    if bundle is None and not settings.models.repository:
        raise ConfigError("which bundle?", hint="instructrec serve BUNDLE, or --repository FOLDER")
    if settings.server.workers:
        from instructrec_deploy.server.workers.launch import run_workers

        run_workers(bundle, settings, program=SUPERVISOR)
    from instructrec_deploy.runtime.opening import begin_opening

    opening = bundle and begin_opening(
        bundle,
        engine=settings.engine,
        prepared=settings.prepared,
        policy=settings.safety.policy,
        safety_bundle=settings.safety.bundle,
    )
    from instructrec_deploy.server.app import run_server  # meanwhile

    run_server(opening, settings)


def parse_settings(words: list[str]) -> dict[str, dict[str, Any]]:
    """`["server.max_batch_items=64"]` as section -> name -> value.

    Raises:
        ConfigError: a word has another form.
    """
    from instructrec_deploy.core.errors import ConfigError

    found: dict[str, dict[str, Any]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        section, dot, name = key.partition(".")
        if not (equals and dot and section and name):
            raise ConfigError(
                "--set takes SECTION.NAME=VALUE", hint="for example --set server.log_format=text"
            )
        found.setdefault(section, {})[name] = value
    return found

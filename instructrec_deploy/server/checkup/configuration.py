"""The configuration: exposure, keys, certificates, ports, files to write."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from instructrec_deploy.core.errors import FileUnusable, MissingExtra
from instructrec_deploy.safety.guards import read_policy
from instructrec_deploy.server.access.keys import read_keys
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.access.tls import ServerContext
from instructrec_deploy.server.access.tokens import TokenReader
from instructrec_deploy.server.checkup.finding import Finding, ok, tried, warn
from instructrec_deploy.server.port import check_port
from instructrec_deploy.server.settings import DoorSettings, ServerSettings

SOON = timedelta(days=14)


def check_configuration(settings: ServerSettings, now: datetime | None = None) -> Iterator[Finding]:
    """Everything that a server of these settings would stumble on, and what is unwise."""
    door, access = settings.server, settings.access
    moment = now or datetime.now(UTC)
    yield tried("address", lambda: _exposure(door, access))
    for name in ("port", "metrics_port", "http_port"):
        port = getattr(door, name)
        if port:
            yield tried(name, lambda port=port, name=name: _port(name, door, port))  # type: ignore[misc]
    if door.http_port:
        yield tried("http", _http)
    if access.uses_tls:
        yield tried("certificate", lambda: _certificate(access, moment))
    for name in ("tls_key", "keys"):
        if path := getattr(access, name):
            yield from _private(f"access.{name}", Path(path))
    if access.keys:
        yield tried("keys", lambda: _keys(Path(access.keys), moment))
    if access.jwt_keys:
        yield tried("tokens", lambda: _tokens(access))
    if settings.safety.policy:
        yield tried("policy", lambda: _policy(Path(settings.safety.policy)))
    for name, file in (("feedback", settings.feedback.file), ("audit", settings.safety.audit)):
        if file:
            yield tried(name, lambda name=name, file=file: _writable(name, Path(file)))  # type: ignore[misc]


def _exposure(door: DoorSettings, access: AccessSettings) -> Finding:
    door.check_exposure(access)
    if door.is_loopback:
        return ok("address", f"{door.host}: this machine alone")
    if access.uses_tls and access.knows_callers:
        return ok("address", f"{door.host}: open, with TLS and authentication")
    return warn(
        "address",
        f"{door.host}: open to the network, without TLS or authentication",
        "fine behind a proxy or in a network you trust; else see docs/access.md",
    )


def _port(name: str, door: DoorSettings, port: int) -> Finding:
    check_port(door.host.strip("[]"), port)
    return ok(name, f"{door.address(port)} is free")


def _http() -> Finding:
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"server.http_port needs {' and '.join(missing)}",
            hint="pip install 'instructrec-deploy[http]'",
        )
    return ok("http", "starlette and uvicorn are installed")


def _certificate(access: AccessSettings, now: datetime) -> Finding:
    ServerContext(access)  # reads all of it, and says what does not fit
    try:
        from cryptography import x509
    except ImportError:
        return ok("certificate", "fits its key; until when it is valid is not told here")
    first = x509.load_pem_x509_certificates(Path(access.tls_cert).read_bytes())[0]
    until = first.not_valid_after_utc
    told = f"{access.tls_cert} is valid until {until:%Y-%m-%d}"
    if until <= now:
        return Finding("certificate", "fail", told, "replace it: callers refuse it")
    if until - now < SOON:
        return warn("certificate", told, "renew it; a running server takes the new one over")
    return ok("certificate", told)


def _private(name: str, path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:  # told by who reads it
        return
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warn(name, f"{path} is open to other users", f"chmod 600 {path}")


def _keys(path: Path, now: datetime) -> Finding:
    keys = read_keys(path)
    over = [id_ for id_, entry in keys.items() if entry.is_over(now)]
    soon = [id_ for id_, entry in keys.items() if entry.is_over(now + SOON) and id_ not in over]
    if len(over) == len(keys):
        hint = f"instructrec keys new NAME --file {path}"
        return Finding("keys", "fail", f"{path} holds no valid key", hint)
    if soon:
        hint = "make new ones and change the callers over"
        return warn("keys", f"end within {SOON.days} days: {', '.join(soon)}", hint)
    return ok("keys", f"{len(keys) - len(over)} valid, {len(over)} expired")


def _tokens(access: AccessSettings) -> Finding:
    TokenReader(access)
    return ok("tokens", f"{access.jwt_algorithm} of {access.jwt_issuer}")


def _policy(path: Path) -> Finding:
    return ok("policy", f"{path}: version {read_policy(path).version}")


def _writable(name: str, file: Path) -> Finding:
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    target = file if file.exists() else folder
    if not os.access(target, os.W_OK) or (file.exists() and not file.is_file()):
        raise FileUnusable(f"{file} cannot be written", hint="name a file in a folder of yours")
    return ok(name, f"{file} can be written")

"""Settings of the server: default < `instructrec.toml` < `INSTRUCTREC_SERVER__PORT` < command line.

loaded = load_settings(overrides={"server": {"port": 0}})
run_server(bundle_path, loaded.settings)
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.instruction import MAX_CANDIDATES
from instructrec_deploy.core.near import did_you_mean
from instructrec_deploy.core.request import MAX_QUESTIONS, MAX_TEXT_CHARS
from instructrec_deploy.core.settings import Section
from instructrec_deploy.core.status import Limits
from instructrec_deploy.runtime.admission import OverloadSettings
from instructrec_deploy.runtime.batching import BatchingSettings
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.feedback_store import FeedbackSettings
from instructrec_deploy.runtime.prepared import PreparedSettings
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.safety.settings import SafetySettings
from instructrec_deploy.server.tracing.settings import TracingSettings

CONFIG_FILE = "instructrec.toml"
ENV_PREFIX = "INSTRUCTREC_"
MAX_WORKERS = 256
SHARED_AGE_S = 30.0  # a worker that is replaced waits so long for its last connection to end


class DoorSettings(Section):
    """`[server]`: where it listens, what it accepts, how it stops, what it says."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=50051, ge=0, le=65535)  # 0: a free one, printed at start
    metrics_port: int = Field(default=0, ge=0, le=65535)  # Prometheus text over HTTP; 0: off
    http_port: int = Field(default=0, ge=0, le=65535)  # JSON over HTTP (extra `http`); 0: off
    allow_insecure: bool = False  # listen beyond loopback, without TLS and authentication
    max_message_bytes: int = Field(default=4 << 20, ge=1024)  # of one message, after decompression
    max_text_chars: int = Field(default=MAX_TEXT_CHARS, ge=1)
    max_candidates: int = Field(default=MAX_CANDIDATES, ge=1)
    max_batch_items: int = Field(default=256, ge=1)  # texts of one PredictBatch
    # Texts of one PredictStream that are read and not answered: past it the server reads no more.
    max_stream_items: int = Field(default=256, ge=1)
    # A connection that says nothing for so long is pinged, and cut where no answer comes; 0: never.
    keepalive_s: float = Field(default=60.0, ge=0.0)
    # Who speaks HTTP/2: "asyncio", our own code on the event loop, which takes a tenth of the
    # processor time; or "grpcio", gRPC's core (docs/adr/0016-http2.md).
    transport: Literal["asyncio", "grpcio"] = "asyncio"
    # Processes that answer on the port, under one that starts and restarts them; 0: this one alone.
    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS)] | Literal["auto"] = 0
    # So old is a connection when its caller is told to connect anew, calls under way apart; 0:
    # never; None: with workers 30, else never.
    connection_age_s: float | None = Field(default=None, ge=0.0)
    compression: Literal["none", "gzip", "deflate"] = "none"  # of answers; clients choose their own
    drain_wait_s: float = Field(
        default=0.0, ge=0.0
    )  # after SIGTERM: still accepting, health says no
    drain_timeout_s: float = Field(default=30.0, ge=0.0)  # then: how long accepted calls may take
    use_reflection: bool | None = None  # None: unless callers must say who they are
    log_format: Literal["json", "text"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # How long a thread may keep the interpreter while others want it. Python's own 5 ms: with 0.5
    # and 0.1 the same calls took a twentieth to a fifth more CPU and were answered no sooner, for
    # the event loop's turns are short and inference gives the interpreter away.
    switch_interval_ms: float = Field(default=5.0, gt=0.0)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def max_connection_age_s(self, *, is_shared: bool) -> float:
        """How old a connection gets; 0: as it likes. `is_shared`: several processes answer."""
        if self.connection_age_s is None:
            return SHARED_AGE_S if is_shared else 0.0
        return self.connection_age_s

    def address(self, port: int) -> str:
        """host:port as gRPC and URLs write it; an IPv6 host stands in brackets."""
        host = self.host.strip("[]")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def check_exposure(self, access: AccessSettings = AccessSettings()) -> None:
        """Refuse an address open to the network unless told otherwise.

        Raises:
            ConfigError: the host is not loopback, `allow_insecure` is not set, and connections are
                not encrypted or callers not known.
        """
        missing = [] if access.uses_tls else ["TLS"]
        missing += [] if access.knows_callers else ["authentication"]
        if self.is_loopback or self.allow_insecure or not missing:
            return
        raise ConfigError(
            f"server.host {self.host} is open to the network, without {' and '.join(missing)}",
            hint="set access.tls_cert, access.tls_key, and access.keys or access.client_ca "
            "(docs/access.md); or listen on 127.0.0.1 behind a proxy that has both; "
            "or set server.allow_insecure=true (--allow-insecure) in a network you trust",
        )

    def limits(self, max_tokens: int = 0) -> Limits:
        """What a request may hold; `max_tokens` is the model's window."""
        return Limits(
            max_text_chars=self.max_text_chars,
            max_candidates=self.max_candidates,
            max_questions=MAX_QUESTIONS,
            max_batch_items=self.max_batch_items,
            max_message_bytes=self.max_message_bytes,
            max_tokens=max_tokens,
        )


class ModelsSettings(Section):
    """`[models]`: which versions are served."""

    watch_s: float = Field(default=0.0, ge=0.0)  # how often to look for a new one; 0: never
    repository: str = ""  # a folder with MODEL/RELEASE/bundle.json, in place of one bundle
    default: str = ""  # who answers where a request names no model; "": the only one
    latest: int = Field(default=1, ge=1)  # so many of the newest versions of each model
    pins: tuple[str, ...] = ()  # MODEL=RELEASE: of such a model these releases alone

    @field_validator("pins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """The environment and --set have one string: "bank=3,bank=4"."""
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value


class ServerSettings(Section):
    """All settings of `instructrec serve`, one section for each layer."""

    server: DoorSettings = DoorSettings()
    models: ModelsSettings = ModelsSettings()
    access: AccessSettings = AccessSettings()
    engine: EngineSettings = EngineSettings()
    batching: BatchingSettings = BatchingSettings()
    overload: OverloadSettings = OverloadSettings()
    prepared: PreparedSettings = PreparedSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    tracing: TracingSettings = TracingSettings()
    safety: SafetySettings = SafetySettings()


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings and where each value came from."""

    settings: ServerSettings
    origins: Mapping[str, str]  # "server.port" -> "INSTRUCTREC_SERVER__PORT"

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """(key, value, origin) of every setting, for `--print-config`."""
        for section, values in self.settings.model_dump(mode="json").items():
            for name, value in values.items():
                key = f"{section}.{name}"
                yield key, value, self.origins.get(key, "default")


def load_settings(
    path: str | Path | None = None,
    *,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Merge defaults, file, environment and overrides.

    Args:
        path: a TOML file that must exist; None: `instructrec.toml` here, if there is one.
        overrides: section -> name -> value, the strongest layer; a value of None is left out.
        environ: the environment; None: that of the process.

    Raises:
        FileMissing: `path` does not exist.
        ConfigError: every fault of all layers at once, each with its origin.
    """
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    faults: list[str] = []
    layers = [
        _file_layer(path, faults),
        _environ_layer(os.environ if environ is None else environ),
        _override_layer(overrides or {}),
    ]
    for layer in layers:
        for section, name, value, origin in layer:
            unknown = _unknown(section, name, origin)
            if unknown:
                faults.append(unknown)
                continue
            merged.setdefault(section, {})[name] = value
            origins[f"{section}.{name}"] = origin
    try:
        settings = ServerSettings.model_validate(merged)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            key = ".".join(str(part) for part in fault["loc"][:2])
            faults.append(f"{key} ({origins.get(key, 'default')}): {fault['msg']}")
    if faults:
        raise ConfigError("; ".join(faults), hint="`--print-config` shows every setting")
    return LoadedSettings(settings, origins)


Layer = Iterator[tuple[str, str, Any, str]]  # section, name, value, origin


def _file_layer(path: str | Path | None, faults: list[str]) -> Layer:
    file = Path(path or CONFIG_FILE)
    if not file.is_file():
        if path is not None:
            raise FileMissing(f"no settings file {file}", hint="check --config")
        return
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        faults.append(f"{file}: not valid TOML ({error})")
        return
    for section, values in content.items():
        if not isinstance(values, dict):
            faults.append(f"{file}: {section} stands outside a section like [server]")
            continue
        for name, value in values.items():
            yield section, name, value, str(file)


def _environ_layer(environ: Mapping[str, str]) -> Layer:
    for key, value in sorted(environ.items()):
        if key.startswith(ENV_PREFIX) and "__" in key:
            section, name = key.removeprefix(ENV_PREFIX).lower().split("__", 1)
            yield section, name, value, key


def _override_layer(overrides: Mapping[str, Mapping[str, Any]]) -> Layer:
    for section, values in overrides.items():
        for name, value in values.items():
            if value is not None:
                yield section, name, value, "command line"


def _unknown(section: str, name: str, origin: str) -> str:
    """A fault where the key does not exist, else ""."""
    sections = ServerSettings.model_fields
    field = sections.get(section)
    if field is None:
        return f"{origin}: no section {section!r}{_nearest(section, list(sections))}"
    kind = field.annotation
    names = list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Section) else []
    if name not in names:
        return f"{origin}: no setting {section}.{name}{_nearest(name, names)}"
    return ""


def _nearest(word: str, known: list[str]) -> str:
    meant = did_you_mean(word, known)
    return f", {meant}" if meant else f" (there are: {', '.join(known)})"

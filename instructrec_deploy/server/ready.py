"""What a server says when it answers: to programs in the log, to people on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from instructrec_deploy import __version__
from instructrec_deploy.server.logs import LOGGER

log = logging.getLogger(f"{LOGGER}.server")


class Loaded(Protocol):
    """A model that is being served."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def load_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Ready:
    """What there is to say when the server answers."""

    address: str  # host:port
    metrics_address: str  # URL; "" where off
    http_address: str  # the same
    model: str  # several: separated by commas, as are their versions
    model_version: str
    load_s: float


def describe_ready(addresses: tuple[str, str, str], models: Sequence[Loaded]) -> Ready:
    """(gRPC's, the metrics' and HTTP's address; "" where off) and what answers there."""
    names = ", ".join(model.name for model in models)
    versions = ", ".join(model.version for model in models)
    return Ready(*addresses, names, versions, sum(model.load_s for model in models))


def log_ready(ready: Ready, event: str = "ready") -> None:
    """To programs: a line of the log."""
    log.info(
        event,
        extra={
            "address": ready.address,
            "metrics_address": ready.metrics_address,
            "http_address": ready.http_address,
            "model": ready.model,
            "model_version": ready.model_version,
            "load_s": round(ready.load_s, 3),
            "pid": os.getpid(),
            "server_version": __version__,
        },
    )


def tell_people(ready: Ready) -> None:
    """To people: a line on standard error."""
    metrics = f", metrics at {ready.metrics_address}" if ready.metrics_address else ""
    http = f" and {ready.http_address}" if ready.http_address else ""
    print(
        f"Serving {ready.model} {ready.model_version} on {ready.address}{http}"
        f" (loaded in {ready.load_s:.2f} s{metrics}). Ctrl-C stops.",
        file=sys.stderr,
        flush=True,
    )

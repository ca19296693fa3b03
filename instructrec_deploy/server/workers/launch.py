"""Start several workers: check what they are asked, keep their port, hand over to the supervisor.

The supervisor is a program of its own, started in this process's place (`exec`): it stays small and
keeps the process id that whoever started us knows.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from instructrec_deploy.core.errors import WorkersCannot
from instructrec_deploy.runtime import providers
from instructrec_deploy.server.port import check_port, port_error
from instructrec_deploy.server.settings import ServerSettings
from instructrec_deploy.server.workers.plan import Plan

CORES_PER_WORKER = 4  # "auto": one Python process keeps about so many cores computing
STOP_MARGIN_S = 15.0


def count_workers(settings: ServerSettings, n_cores: int) -> int:
    """How many worker processes the settings ask for; 0: none, the process itself serves."""
    wanted = settings.server.workers
    return max(1, n_cores // CORES_PER_WORKER) if wanted == "auto" else wanted


def run_workers(bundle: Path | None, settings: ServerSettings, *, program: str) -> NoReturn:
    """Become the supervisor of several workers.

    Args:
        bundle: its folder; None: the settings say a repository.
        program: the module that supervises, given the number of the file that says what.

    Raises:
        WorkersCannot: this system or these settings have no room for several workers.
        ConfigError: an address open to the network, a port in use.
    """
    plan = make_plan(bundle, settings, n_cores=providers.available_cores())
    command = [sys.executable, "-P", "-m", program, str(plan.hand_on())]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)


def make_plan(bundle: Path | None, settings: ServerSettings, *, n_cores: int) -> Plan:
    """Check the settings and take the port.

    Raises:
        As `run_workers`.
    """
    door = settings.server
    if sys.platform != "linux":
        raise WorkersCannot(
            "several workers share a port on Linux alone",
            hint="set server.workers=0: one process serves",
        )
    if door.http_port:
        raise WorkersCannot(
            "server.http_port and server.workers do not go together yet",
            hint="set server.workers=0, or serve HTTP by a server of its own",
        )
    door.check_exposure(settings.access)
    n_workers = count_workers(settings, n_cores)
    sockets = keep_port(door.host.strip("[]"), door.port)
    if door.metrics_port:
        check_port(door.host.strip("[]"), door.metrics_port)
    port = sockets[0].getsockname()[1]
    changes: dict[str, dict[str, Any]] = {
        "server": {"port": port, "metrics_port": 0, "workers": 0},
        "engine": {"n_cores": settings.engine.n_cores or max(1, n_cores // n_workers)},
    }
    raw = settings.model_dump(mode="json")
    metrics = f"http://{door.address(door.metrics_port)}/metrics" if door.metrics_port else ""
    return Plan(
        n_workers=n_workers,
        bundle=str(bundle or ""),
        settings={name: {**raw[name], **changes.get(name, {})} for name in raw},
        host=door.host,
        metrics_port=door.metrics_port,
        metrics_address=metrics,
        is_pinned=bundle is not None and not settings.models.watch_s,
        stop_within_s=door.drain_wait_s + door.drain_timeout_s + STOP_MARGIN_S,
        log_format=door.log_format,
        log_level=door.log_level,
        sockets=tuple(one.detach() for one in sockets),
    )


def keep_port(host: str, port: int) -> list[socket.socket]:
    """Sockets that are bound to every address of the host and do not listen.

    They keep the port from others while no worker listens, and tell which one it is (0: a free
    one).

    Raises:
        PortInUse: one of the addresses is taken, or none is this machine's.
    """
    check_port(host, port)
    kept: list[socket.socket] = []
    fault: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in found:
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], port, *address[2:]))
        except OSError as error:  # as gRPC: one address that works will do
            fault = error
            one.close()
            continue
        kept.append(one)
        port = one.getsockname()[1]
    if not kept:
        raise port_error(f"{host}:{port}", fault or OSError()) from fault
    return kept

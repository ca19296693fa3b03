"""A real server process on 127.0.0.1 with a tiny bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.server_process import free_port

__all__ = ["ServerProcess", "free_port", "running_server"]

PROGRAM = """
import json, sys
from pathlib import Path
from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.server.app import run_server
from instructrec_deploy.server.settings import load_settings
from instructrec_deploy.server.workers.launch import run_workers
try:
    overrides = json.loads(sys.argv[2])
    bundle = Path(sys.argv[1]) if sys.argv[1] else None
    settings = load_settings(overrides=overrides, environ={}).settings
    if settings.server.workers:
        run_workers(bundle, settings, program="instructrec_deploy.cli.supervise")
    run_server(bundle, settings)
except InstructRecError as error:
    print(f"{error.code} {error.message} ({error.hint})", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass
class ServerProcess:
    """A running server and what it wrote."""

    process: subprocess.Popen[bytes]
    folder: Path
    address: str = ""
    metrics_url: str = ""
    http_url: str = ""

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def events(self) -> list[dict[str, Any]]:
        whole, _, _ = self.stdout.rpartition("\n")  # the last line may be on its way
        return [json.loads(line) for line in whole.splitlines()]

    def event(self, name: str, *, within_s: float = 30.0) -> dict[str, Any]:
        """The log line of that name, waited for while the process lives."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            has_ended = self.process.poll() is not None
            found = [row for row in self.events() if row["event"] == name]
            if found:
                return found[0]
            assert not has_ended, f"the server ended: {self.stderr}"
            time.sleep(0.01)
        raise AssertionError(f"no {name!r} within {within_s} s: {self.stderr}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


def start_server(
    bundle: Path | None,
    folder: Path,
    *,
    feedback: Path | None = None,
    access: dict[str, Any] | None = None,
    safety: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    models: dict[str, Any] | None = None,
    tracing: dict[str, Any] | None = None,
    overload: dict[str, Any] | None = None,
    **door: Any,
) -> ServerProcess:
    """Start without waiting; `feedback`: the file of corrections; `door`: settings of [server]."""
    folder.mkdir(parents=True, exist_ok=True)
    overrides = {"server": {"port": 0, **door}, "engine": {"n_lanes": 2, "threads_per_lane": 1}}
    overrides["tracing"] = tracing or {}
    overrides["access"], overrides["models"] = access or {}, models or {}
    overrides["safety"], overrides["overload"] = safety or {}, overload or {}
    if feedback is not None:
        overrides["feedback"] = {"file": str(feedback)}
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(bundle or ""), json.dumps(overrides)],
            stdout=out,
            stderr=err,
            env={k: v for k, v in os.environ.items() if not k.startswith("INSTRUCTREC_")}
            | (environ or {}),
        )
    return ServerProcess(process, folder)


@contextmanager
def running_server(bundle: Path | None, folder: Path, **door: Any) -> Iterator[ServerProcess]:
    """A server that is ready; killed at the end if the test did not stop it."""
    server = start_server(bundle, folder, **door)
    try:
        ready = server.event("ready", within_s=180.0)
        server.address, server.metrics_url = ready["address"], ready["metrics_address"]
        server.http_url = ready["http_address"]
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()

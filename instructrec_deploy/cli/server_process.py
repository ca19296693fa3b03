"""A server of our own in a process of its own: start, wait until it answers, stop cleanly."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from instructrec_deploy.cli.process_memory import resident_mb
from instructrec_deploy.cli.signals import held_back
from instructrec_deploy.core.errors import InternalError, Unavailable

POLL_S = 0.01  # cold starts are told in tens of milliseconds
STOP_WITHIN_S = 40.0  # more than the server's own drain limit
READY_WITHIN_S = 120.0


def verb_command(*words: str) -> list[str]:
    """The command line of a verb: the script beside this Python, else the module."""
    script = Path(sys.executable).with_name("instructrec")
    own = [str(script)] if script.is_file() else [sys.executable, "-m", "instructrec_deploy.cli"]
    return [*own, *words]


def free_port() -> int:
    """A port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running `instructrec serve`."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    started: float  # monotonic seconds

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> float:
        """Wait until its health service says that it is ready; seconds since it was started.

        Raises:
            Unavailable: it ended, or took too long.
        """
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        from instructrec_deploy.wire.requests import SERVICE

        self._wait_for_port(within_s)
        options = [(f"grpc.{k}_reconnect_backoff_ms", 50) for k in ("initial", "min", "max")]
        with grpc.insecure_channel(self.address, options=options) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while self._is_in_time(within_s):
                with suppress(grpc.RpcError):
                    reply = check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=1.0)
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        return time.monotonic() - self.started
                time.sleep(POLL_S)
        raise Unavailable(
            f"the server was not ready within {within_s:.0f} s", hint=f"its log: {self.log}"
        )

    def stop(self) -> int:
        """Ask it to end by SIGTERM and wait; its exit code.

        Raises:
            InternalError: it did not end in time (and was killed).
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise InternalError(
                "the server did not stop on SIGTERM", hint=f"its log: {self.log}"
            ) from None

    def memory_mb(self) -> float:
        """Resident memory in MB, children included; 0 where the system does not say."""
        return sum(resident_mb(pid) for pid in _family(self.process.pid))

    def _wait_for_port(self, within_s: float) -> None:
        host, port = self.address.rsplit(":", 1)
        while self._is_in_time(within_s):
            with suppress(OSError), socket.create_connection((host, int(port)), 1.0):
                return
            time.sleep(POLL_S)

    def _is_in_time(self, within_s: float) -> bool:
        if self.process.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            raise Unavailable(
                f"the server ended with exit code {self.process.returncode}: " + " / ".join(tail),
                hint=f"its log: {self.log}",
            )
        return time.monotonic() - self.started < within_s


@contextmanager
def running_server(
    bundle: Path, log: Path, *, port: int = 0, options: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """A server process for the bundle; stopped at the end, however that comes."""
    number = port or free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    command = verb_command("serve", str(bundle), "--port", str(number), *options)
    server = None
    try:
        with log.open("wb") as stream, held_back():
            started = time.monotonic()
            # A session of its own: Ctrl-C reaches us alone, and we stop the server in order.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            server = ServerProcess(process, f"127.0.0.1:{number}", log, started)
        yield server
    finally:
        if server is not None:
            server.stop()


def _family(pid: int) -> list[int]:
    """A process and its children, and theirs."""
    found = [pid]
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found

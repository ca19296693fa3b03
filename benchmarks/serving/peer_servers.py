"""The servers that are compared: how each is installed, laid out, started, asked and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.cli.server_process import free_port, verb_command
from instructrec_deploy.core.bundle import ENCODER_FILE, FUSION_FILE, TOKENIZER_FILE, Bundle
from instructrec_deploy.core.request import Question
from instructrec_deploy.runtime.pipeline import Pipeline

HERE = Path(__file__).parent / "peers"
READY_WITHIN_S, STOP_WITHIN_S = 120.0, 10.0
Layout = Mapping[str, int]


@dataclass(frozen=True)
class Peer:
    """A server to compare with. `layouts`: all are tried, the fastest is measured."""

    name: str
    script: str
    form: str  # of the load: see `peer_load.Plan`
    layouts: Sequence[Layout]
    path: str = ""
    package: str = ""  # in an environment of its own; "": nothing beside what we have

    def python(self, environments: Path) -> Path:
        """Its interpreter."""
        return environments / self.name / "bin" / "python" if self.package else Path(sys.executable)

    def missing(self, environments: Path) -> str:
        """How to install it; "" where it is there."""
        python = self.python(environments)
        probe = [str(python), "-c", f"import {self.package or 'grpc'}, onnxruntime, tokenizers"]
        if (
            python.exists()
            and not subprocess.run(probe, capture_output=True, check=False).returncode
        ):
            return ""
        folder, needed = environments / self.name, HERE / f"{self.name}.txt"
        return (
            f"{self.name} is not installed and left out; to have it beside the others:\n"
            f"    python -m venv {folder} && {folder}/bin/pip install -r {needed}"
        )


def _layouts(
    n_workers: Sequence[int], batches: Sequence[tuple[int, int]], **rest: int
) -> list[Layout]:
    return [
        {"n_workers": n, "max_batch": size, "wait_ms": wait, **rest}
        for n in n_workers
        for size, wait in batches
    ]


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PEERS = (
    Peer("naive", "naive.py", "naive", [{"n_threads": CORES}]),
    Peer(
        "mosec",
        "mosec_server.py",
        "text",
        _layouts([CORES], [(1, 0), (4, 1), (8, 1), (16, 2), (32, 5)]),
        path="/inference",
        package="mosec",
    ),
    Peer(
        "litserve",
        "litserve_server.py",
        "json",
        _layouts([CORES], [(1, 0), (8, 1), (16, 2), (32, 5)], n_fronts=1),
        path="/predict",
        package="litserve",
    ),
)


FLOOR = Peer("empty", "empty.py", "naive", [{}])  # gRPC for Python with no model behind it


@dataclass
class Running:
    """A server in a session of its own, so that all its processes are found and ended."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    begun_s: float = field(default_factory=time.monotonic)

    def cpu_s(self) -> float:
        """Processor time of all its processes so far, user and system, children that ended too."""
        ticks = 0
        for stat in _stats():
            if int(stat[3]) == self.process.pid:  # its session
                ticks += sum(map(int, stat[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_port(self) -> None:
        """Until it listens.

        Raises:
            SystemExit: it ended, or took too long.
        """
        host, port = self.address.rsplit(":", 1)
        while time.monotonic() - self.begun_s < READY_WITHIN_S and self.process.poll() is None:
            with suppress(OSError), socket.create_connection((host, int(port)), 1.0):
                return
            time.sleep(0.05)
        raise SystemExit(f"a server did not start; its log:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """Ask all its processes to end; kill those that do not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(OSError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_WITHIN_S)
            end_s = time.monotonic() + STOP_WITHIN_S
            while time.monotonic() < end_s:
                if not any(int(stat[3]) == self.process.pid for stat in _stats()):
                    return
                time.sleep(0.05)


def _stats() -> Iterator[list[str]]:
    """/proc/PID/stat of every process, from the state on (fields 3 and so on of proc(5))."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[Running]:
    """A server process; stopped at the end, however that comes."""
    env = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH", ""), str(HERE)]))
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=env,
        )
    server = Running(process, f"127.0.0.1:{port}", log)
    try:
        server.wait_port()
        yield server
    finally:
        server.stop()


def start_peer(peer: Peer, layout: Layout, model: Path, environments: Path, log: Path) -> Any:
    """A peer that listens, as a context."""
    port = free_port()
    command = [
        str(peer.python(environments)),
        str(HERE / peer.script),
        str(model),
        str(port),
        json.dumps(layout),
    ]
    return running(command, port, log)


def start_ours(bundle: Path, log: Path, *options: str) -> Any:
    """`instructrec serve`, as a context: no text is answered from the reading of an equal one."""
    port = free_port()
    apart = ("--set", "batching.join_equal=false")  # the load has few texts, users have many
    command = verb_command("serve", str(bundle), "--port", str(port), *apart, *options)
    return running(command, port, log)


def write_model(bundle: Bundle, pipeline: Pipeline, folder: Path) -> int:
    """What peers need of a bundle, for its default task; the number of its labels."""
    instruction = pipeline.resolver.resolve(Question()).instruction
    prepared = pipeline.prepare(instruction)
    model = bundle.manifest.model
    is_fixed = pipeline.engine.is_fixed
    for name in (ENCODER_FILE, TOKENIZER_FILE, *([FUSION_FILE] if model.has_fusion else [])):
        (folder / Path(name).name).write_bytes(bundle.path(name).read_bytes())
    if not is_fixed:
        vectors = {
            "candidate_vectors": prepared.vectors,
            "fusion_queries": prepared.fusion_queries,
            "fusion_values": prepared.fusion_values,
        }
        found = {name: array for name, array in vectors.items() if array is not None}
        np.savez(folder / "vectors.npz", **found)  # type: ignore[arg-type]
    columns = prepared.columns
    facts = {
        "labels": prepared.labels,
        "columns": None if columns is None else columns.tolist(),
        "is_fixed": is_fixed,
        "has_fusion": model.has_fusion,
        "max_tokens": model.max_tokens,
        "pad_id": model.pad_id,
        "prefix": model.text_prefix,
    }
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    return len(prepared.labels)

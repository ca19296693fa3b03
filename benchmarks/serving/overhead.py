"""What serving a text takes of the processors beside the model, beside another checkout in turns.

    python benchmarks/serving/overhead.py BUNDLE --out FILE [--against CHECKOUT] [--data FILE]

The server is ours with an engine that sleeps in place of computing (`overhead_server.py`), so its
processor time is that of gRPC, checks, guard, tokenizer, queue, decoding, metrics and answers, with
batches as a model of that speed makes them. Microseconds of a text: of the whole process, and of
its first thread, which runs the event loop. Processor time hardly hangs on what else the machine
does; throughput does and is not told. `--against`: the same server from another checkout of this
project, each round in turns; `ratio` is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peer_load import Measured, Plan

from instructrec_deploy.cli.benchmark.figures import machine_facts, spread
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.cli.server_process import free_port

HERE, OURS = Path(__file__).parent, Path(__file__).parents[2]
# name -> (form of the load, callers); 64 texts under way, but for eight callers
FORMS = {
    "unary_64": ("unary", 64),
    "unary_8": ("unary", 8),
    "batch_16": ("batch", 4),
    "stream_64": ("stream", 64),
}
STOP_WITHIN_S = 20.0
Figures = dict[str, float]


@contextmanager
def serving(checkout: Path, bundle: Path, token_us: float, log: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of a server with that checkout's code."""
    port = free_port()
    path = os.pathsep.join((str(checkout), str(checkout / "training")))
    command = [str(HERE / "overhead_server.py"), str(bundle), str(port), str(token_us)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        if not any(line.strip() == b"ready" for line in process.stdout):  # logs come first
            raise SystemExit(f"the server of {checkout} did not start:\n{log.read_text()}")
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()


def cpu_s(pid: int) -> tuple[float, float]:
    """Processor time so far: of all threads that are there, and of the first one."""
    found = {
        int(task.name): int((task / "schedstat").read_text().split()[0]) * 1e-9
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    return sum(found.values()), found[pid]


def measure(address: str, pid: int, texts: Sequence[str], name: str, seconds: float) -> Figures:
    """One load; microseconds of a text."""
    form, n_callers = FORMS[name]
    plan = Plan(address, form, list(texts), n_callers=n_callers, seconds=seconds, warm_up_s=0.5)
    before = cpu_s(pid)
    done = subprocess.run(
        [sys.executable, str(HERE / "peer_load.py")],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the load failed:\n{done.stderr}")
    after = cpu_s(pid)
    got = Measured(**json.loads(done.stdout))
    if got.errors:
        raise SystemExit(f"calls failed: {got.errors}")
    whole, loop = (1e6 * (b - a) / got.n_all for a, b in zip(before, after, strict=True))
    return {"us": whole, "loop_us": loop, "n_texts": got.n_all}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--data", default="", help="texts of this file, not the shipped ones")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--token-us", type=float, default=100.0, help="a lane's time for a token")
    given = parser.parse_args()
    sides = {"now": OURS}
    if given.against is not None:
        sides["before"] = given.against.resolve()
    texts = load_texts(given.data)
    forms = given.forms.split(",")
    rounds: dict[str, dict[str, list[Figures]]] = {s: {f: [] for f in forms} for s in sides}
    with tempfile.TemporaryDirectory(prefix="instructrec-overhead-") as folder:
        for number in range(given.rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                log = Path(folder) / f"{side}.log"
                with serving(sides[side], given.bundle, given.token_us, log) as (address, pid):
                    for name in forms:
                        got = measure(address, pid, texts, name, given.seconds)
                        rounds[side][name].append(got)
    result: dict[str, Any] = {
        "machine": machine_facts(),
        "settings": {
            "bundle": given.bundle.name,
            "n_texts": len(texts),
            "token_us": given.token_us,
            "seconds": given.seconds,
        },
    }
    for side, found in rounds.items():
        result[side] = {
            name: {key: spread([one[key] for one in each]) for key in ("us", "loop_us", "n_texts")}
            for name, each in found.items()
        }
    if "before" in sides:
        result["ratio"] = {
            name: {
                key: round(
                    statistics.median(
                        now[key] / before[key]
                        for now, before in zip(
                            rounds["now"][name], rounds["before"][name], strict=True
                        )
                    ),
                    3,
                )
                for key in ("us", "loop_us")
            }
            for name in forms
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name in forms:
        told = [
            f"{side} {result[side][name]['us']['median']:.0f} us "
            f"({result[side][name]['loop_us']['median']:.0f} loop)"
            for side in sides
        ]
        print(name, *told, result.get("ratio", {}).get(name, ""))


if __name__ == "__main__":
    main()

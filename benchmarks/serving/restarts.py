"""Workers replaced and killed under load: are calls lost or failed, does an answer mix versions?

    PYTHONPATH=. .venv/bin/python benchmarks/serving/restarts.py BUNDLE --out FILE

A server of two workers, ten callers over a connection each (eight with single texts, two with
batches of 16; `--pause` between two calls of a caller) that hold every answer against what its
version gives alone.

- Replacements: a link is pointed from one version to the other and back (the second one decides at
  half the temperature), and SIGHUP replaces the workers. The callers do not retry: a call that the
  server loses shows.
- Kills: one worker after the other gets SIGKILL. Once callers do not retry: calls that were under
  way fail, at most one of each caller and kill, with UNAVAILABLE (IR-1302) and nothing else. Once
  they retry as clients do by default: none is to fail.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hot_swaps import ONCE, Load, Scores, make_second, point, scores_of
from instructrec_deploy import Predictor
from instructrec_deploy.cli.benchmark.figures import machine_facts
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.cli.server_process import ServerProcess, running_server
from instructrec_deploy.client.calls import RetryPolicy

N_CALLERS = 10
AGE_S = 1.0  # of connections; 30 by default, which would make the measurement longer by that
WAIT_S = 900.0
LOAD_S = 1.0  # under load before each event


def events(server: ServerProcess, name: str) -> list[dict[str, Any]]:
    """Lines of the server's log of that name."""
    lines = server.log.read_text(encoding="utf-8").splitlines()
    rows = (json.loads(line) for line in lines if line.startswith("{") and line.endswith("}"))
    return [row for row in rows if row["event"] == name]


def wait_until(is_so: Callable[[], bool]) -> float:
    """Seconds until it is so."""
    start = time.monotonic()
    while not is_so():
        if time.monotonic() - start > WAIT_S:
            raise TimeoutError("it did not come to that")
        time.sleep(0.05)
    return time.monotonic() - start


def replace_under_load(
    server: ServerProcess, link: Path, versions: list[Path], load: Load, n: int
) -> dict[str, Any]:
    """Replace all workers n times."""
    seconds, memory = [], []
    for number in range(n):
        time.sleep(LOAD_S)
        point(link, versions[(number + 1) % 2])
        server.process.send_signal(signal.SIGHUP)
        seconds.append(
            wait_until(lambda number=number: len(events(server, "workers replaced")) > number)
        )
        memory.append(server.memory_mb())
    load.end()
    return {
        "replacements": len(events(server, "workers replaced")),
        **outcomes(load),
        "connection_age_s": AGE_S,
        "replacement_s": {
            "median": round(statistics.median(seconds), 2),
            "most": round(max(seconds), 2),
        },
        "memory_mb": [round(mb) for mb in memory],
    }


def kill_under_load(server: ServerProcess, load: Load, n: int) -> dict[str, Any]:
    """Kill n workers, the oldest first, each when all are there."""
    ready = len(events(server, "worker ready"))
    back = []
    for number in range(n):
        time.sleep(LOAD_S)
        pids = [row["worker_pid"] for row in events(server, "worker started")]
        os.kill(pids[number], signal.SIGKILL)
        back.append(
            wait_until(lambda number=number: len(events(server, "worker ready")) > ready + number)
        )
    load.end()
    return {
        "kills": n,
        **outcomes(load),
        "back_s": {"median": round(statistics.median(back), 2), "most": round(max(back), 2)},
    }


def outcomes(load: Load) -> dict[str, Any]:
    """What came of the calls."""
    failed = {k.removeprefix("failed "): v for k, v in load.counts.items() if "failed" in k}
    return {
        "calls": load.counts["calls"] + load.counts["batches"] + sum(failed.values()),
        "right_answers": load.counts["right"],
        "mixed": load.counts["mixed"],
        "failed": sum(failed.values()),
        "failed_by_code": failed,
    }


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All of it, each part with a server of its own; what is found so far."""
    texts = load_texts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, two, link = folder / "one", folder / "two", folder / "current"
        shutil.copytree(given.bundle, one)
        make_second(given.bundle, two)
        right: dict[str, list[Scores]] = {}
        for version in (one, two):
            with Predictor(version) as predictor:
                key = predictor.bundle.manifest.version
                right[key] = [scores_of(predictor.predict(text, top_k=0)) for text in texts]
        point(link, one)
        options = ("--workers", "2", "--set", f"server.connection_age_s={AGE_S}")
        found: dict[str, Any] = {}
        parts: dict[str, tuple[RetryPolicy, Callable[[ServerProcess, Load], dict[str, Any]]]] = {
            "replaced": (
                ONCE,
                lambda server, load: replace_under_load(
                    server, link, [one, two], load, given.replacements
                ),
            ),
            "killed": (ONCE, lambda server, load: kill_under_load(server, load, given.kills)),
            "killed_with_retries": (
                RetryPolicy(),
                lambda server, load: kill_under_load(server, load, given.kills),
            ),
        }
        for part, (retry, run) in parts.items():
            with running_server(link, folder / f"{part}.log", options=options) as server:
                server.wait_ready()
                load = Load(
                    server.address,
                    texts,
                    right,
                    n_clients=N_CALLERS,
                    retry=retry,
                    pause_s=given.pause,
                )
                try:
                    found[part] = run(server, load)
                finally:
                    load.end()
            yield found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--replacements", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine_facts(), "workers": 2, "callers": N_CALLERS, "pause_s": given.pause}
    for found in measure(given):  # written as it comes: all of it takes a while
        text = json.dumps({**facts, **found}, indent=2)
        given.out.write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()

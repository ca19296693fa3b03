"""Start and idle memory of a server: seconds until it is ready, processor time, RSS and PSS.

    .venv/bin/python benchmarks/serving/start.py BUNDLE --out FILE [--against CHECKOUT]

Each form (one process; one and two workers under a supervisor) is started in turn, several times,
until its health says SERVING; memory is read after a rest, before any call, over all its processes.
PSS shares out pages that several processes have in common. Seconds hang on what else the machine
does; processor time until it is ready hardly does. `--against`: the same from another checkout of
this project, in turns, so that ratios hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.benchmark.figures import machine_facts
from instructrec_deploy.cli.server_process import running_server

FORMS = {
    "one_process": (),
    "one_worker": ("--workers", "1"),
    "two_workers": ("--workers", "2"),
}
REST_S = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Iterator[int]:
    """A process and its children, and theirs."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def memory_mb(pid: int) -> dict[str, float]:
    """RSS and PSS over a family."""
    found = {"Rss:": 0, "Pss:": 0}
    for one in family(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            name, value, *_ = line.split()
            if name in found:
                found[name] += int(value)
    return {"rss_mb": found["Rss:"] * 1.024e-3, "pss_mb": found["Pss:"] * 1.024e-3}


def cpu_s(pid: int) -> float:
    """Processor time of a family so far."""
    ticks = 0
    for one in family(pid):
        after_name = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(after_name[11]) + int(after_name[12])  # user and system
    return ticks / TICKS


@contextmanager
def checkout(folder: Path | None) -> Iterator[None]:
    """Processes that are started meanwhile run that checkout's code; None: this one's."""
    before = os.environ.get("PYTHONPATH")
    if folder is not None:
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{folder / 'training'}"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def start_once(bundle: Path, log: Path, options: tuple[str, ...]) -> dict[str, float]:
    """One start."""
    with running_server(bundle, log, options=options) as server:
        ready_s = server.wait_ready()
        spent_s = cpu_s(server.process.pid)
        time.sleep(REST_S)
        return {"ready_s": ready_s, "cpu_s": spent_s, **memory_mb(server.process.pid)}


def summarize(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the rounds themselves."""
    names = rounds[0]
    return {
        "median": {n: round(statistics.median(r[n] for r in rounds), 3) for n in names},
        "least": {n: round(min(r[n] for r in rounds), 3) for n in names},
        "rounds": [{n: round(v, 3) for n, v in r.items()} for r in rounds],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path, help="Another checkout; one process alone.")
    given = parser.parse_args()
    sides: dict[str, tuple[Path | None, tuple[str, ...]]] = {
        name: (None, options) for name, options in FORMS.items()
    }
    if given.against is not None:
        sides["one_process_before"] = (given.against.resolve(), ())
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as name:
        for number in range(-1, given.rounds):  # the first one warms the disk's cache
            for side, (folder, options) in sides.items():
                with checkout(folder):
                    found = start_once(given.bundle, Path(name) / f"{side}.log", options)
                if number >= 0:
                    rounds[side].append(found)
    result: dict[str, Any] = {"machine": machine_facts(), "rest_s": REST_S}
    result |= {side: summarize(found) for side, found in rounds.items()}
    if given.against is not None:
        now, before = (result[s]["median"] for s in ("one_process", "one_process_before"))
        result["ratio"] = {key: round(now[key] / before[key], 3) for key in now}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({side: result[side]["median"] for side in rounds}, indent=2))


if __name__ == "__main__":
    main()

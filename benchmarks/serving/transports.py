"""Our own HTTP/2 against gRPC's core: the same handlers on each, in turns.

    python benchmarks/serving/transports.py BUNDLE --data FILE --out RESULTS/transports.json

*empty*: a handler that answers at once, so that what is left is the transport; *ours*: `instructrec
serve` with the bundle. Callers in a closed loop, and calls at random moments (Poisson). A round
measures both transports, the one that begins changes; figures are medians over rounds, processor
time that of the server's processes for each call. Ratios: asyncio's by grpcio's, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peer_load import Measured, Plan
from peer_servers import Running, free_port, running, start_ours

from instructrec_deploy.cli.benchmark.figures import machine_facts, percentile
from instructrec_deploy.evaluation.reader import read_examples

HERE = Path(__file__).parent
TRANSPORTS = ("asyncio", "grpcio")
FIGURES = ("cpu_us", "texts_per_s", "p50_ms", "p99_ms")


def points(n_calls_per_s: float) -> dict[str, dict[str, Any]]:
    """The loads, by name."""
    closed: dict[str, dict[str, Any]] = {f"closed_{n}": {"n_callers": n} for n in (1, 8, 32, 64)}
    return closed | {"open": {"calls_per_s": n_calls_per_s}}


def start_empty(transport: str, log: Path) -> AbstractContextManager[Running]:
    """A server that answers at once, as a context."""
    port = free_port()
    layout = json.dumps({"transport": transport})
    command = [sys.executable, str(HERE / "peers" / "empty.py"), "-", str(port), layout]
    return running(command, port, log)


def measure(server: Running, texts: list[str], **plan: Any) -> dict[str, float]:
    """One load on a server."""
    before_s = server.cpu_s()
    done = subprocess.run(
        [sys.executable, str(HERE / "peer_load.py")],
        input=json.dumps(asdict(Plan(server.address, texts=texts, **plan))),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the load failed:\n{done.stderr}\n{server.tail()}")
    got = Measured(**json.loads(done.stdout))
    if got.errors:
        raise SystemExit(f"calls failed: {got.errors}\n{server.tail()}")
    return {
        "cpu_us": 1e6 * (server.cpu_s() - before_s) / max(1, got.n_all),
        "texts_per_s": got.n_texts / got.seconds,
        "p50_ms": percentile(got.latencies_ms, 50),
        "p99_ms": percentile(got.latencies_ms, 99),
    }


def run_round(arguments: argparse.Namespace, texts: list[str], turn: int, work: Path) -> Any:
    """All loads on both transports: subject -> transport -> load -> figures."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {"empty": {}, "ours": {}}
    for subject, form in (("empty", "naive"), ("ours", "unary")):
        for transport in TRANSPORTS[:: 1 if turn % 2 else -1]:
            log = work / f"{subject}-{transport}.log"
            settings = ("--set", f"server.transport={transport}")
            server = (
                start_empty(transport, log)
                if subject == "empty"
                else start_ours(arguments.bundle, log, *settings)
            )
            with server as one:
                found[subject][transport] = {
                    name: measure(one, texts, form=form, seconds=arguments.seconds, **plan)
                    for name, plan in points(arguments.rate).items()
                }
    return found


def summarize(rounds: list[Any]) -> dict[str, Any]:
    """Medians over rounds, and the ratio of processor time and throughput."""
    told: dict[str, Any] = {}
    for subject in ("empty", "ours"):
        told[subject] = {}
        for name in rounds[0][subject][TRANSPORTS[0]]:
            row: dict[str, Any] = {}
            for transport in TRANSPORTS:
                cells = [one[subject][transport][name] for one in rounds]
                row[transport] = {
                    figure: round(statistics.median(cell[figure] for cell in cells), 3)
                    for figure in FIGURES
                }
            for figure in ("cpu_us", "texts_per_s"):
                ratios = [
                    one[subject]["asyncio"][name][figure] / one[subject]["grpcio"][name][figure]
                    for one in rounds
                ]
                row[f"{figure}_ratio"] = {
                    "median": round(statistics.median(ratios), 3),
                    "rounds": [round(ratio, 3) for ratio in ratios],
                }
            told[subject][name] = row
    return told


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=240.0, help="calls a second of the open load")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = read_examples(arguments.data)
    texts = [row.text for row in rows if row.split == arguments.split]
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rounds = []
        for turn in range(arguments.rounds):
            rounds.append(run_round(arguments, texts, turn, Path(folder)))
            print(f"round {turn + 1} of {arguments.rounds}", flush=True)
    told = {
        "machine": machine_facts(),
        "note": arguments.note,
        "load_average_before": round(before, 2),
        "settings": {"rounds": arguments.rounds, "seconds": arguments.seconds},
        "calls_per_s": arguments.rate,
        **summarize(rounds),
    }
    arguments.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for subject in ("empty", "ours"):
        for name, row in told[subject].items():
            cpu = ", ".join(f"{t} {row[t]['cpu_us']:.0f} us" for t in TRANSPORTS)
            print(f"{subject} {name}: {cpu}; texts/s x {row['texts_per_s_ratio']['median']:.2f}")


if __name__ == "__main__":
    main()

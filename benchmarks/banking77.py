"""BANKING77, the whole way: tune, export fp32 and int8, serve, evaluate over gRPC; three seeds.

    .venv/bin/python benchmarks/banking77.py --data-root DATA --work build/banking77 \\
        --out benchmarks/results/banking77.json [--recipe banking77] [--seeds 1 2 3]

DATA/classification/banking77.jsonl.gz has the official split. A run that is finished in --work is
used again. Each figure is measured by the `instructrec` verbs, on the test rows, through a server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.server_process import running_server, verb_command

DATA = "classification/banking77.jsonl.gz"


def verb(*words: str) -> str:
    """Run a verb; its standard output."""
    done = subprocess.run(verb_command(*words), check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def tune(recipe: str, seed: int, run: Path, root: Path) -> float:
    """Train unless it is done; wall seconds of the verb (as noted with the run)."""
    note = run.with_suffix(".seconds")
    if not (run / "evaluation.json").is_file() or not note.is_file():
        resume = ["--resume"] if run.is_dir() else []
        begun = time.monotonic()
        command = ["train", recipe, "--out", str(run), "--data-root", str(root)]
        verb(*command, "--seed", str(seed), *resume)
        note.write_text(f"{time.monotonic() - begun:.1f}")
    return float(note.read_text())


def served(bundle: Path, data: Path, log: Path) -> dict[str, Any]:
    """Evaluate a bundle through a server of its own."""
    with running_server(bundle, log) as server:
        server.wait_ready()
        answer = verb("evaluate", "--address", server.address, "--data", str(data), "--json")
        server.stop()
    figures: dict[str, Any] = json.loads(answer)
    return figures


def measure(recipe: str, seed: int, work: Path, root: Path) -> dict[str, Any]:
    """One seed of one recipe: training time, and the test accuracy of both precisions."""
    name = Path(recipe).stem
    run = work / f"{name}-{seed}"
    row: dict[str, Any] = {"recipe": name, "seed": seed, "train_s": tune(recipe, seed, run, root)}
    told = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    row["untuned_accuracy"] = next(iter(told["before"].values()))["accuracy"]
    row["checkpoint_accuracy"] = next(iter(told["after"].values()))["accuracy"]
    for precision in ("fp32", "int8"):
        bundle = work / f"{name}-{seed}-{precision}"
        if not (bundle / "bundle.json").is_file():
            verb("export", str(run), "--out", str(bundle), "--precision", precision)
        figures = served(bundle, root / DATA, work / f"{bundle.name}.log")
        row[precision] = {k: figures[k] for k in ("n", "accuracy", "accuracy_interval", "macro_f1")}
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measure all and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("INSTRUCTREC_DATA"))
    parser.add_argument("--work", type=Path, default=Path("build/banking77"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", nargs="+", default=["banking77", "banking77-head"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rows = [
        measure(recipe, seed, given.work, given.data_root)
        for seed in given.seeds
        for recipe in given.recipe
    ]
    means = {}
    for name in sorted({row["recipe"] for row in rows}):
        mine = [row for row in rows if row["recipe"] == name]
        means[name] = {
            precision: statistics.mean(row[precision]["accuracy"] for row in mine)
            for precision in ("fp32", "int8")
        } | {"train_s": statistics.mean(row["train_s"] for row in mine), "seeds": len(mine)}
    result = {
        "what": "BANKING77 test accuracy through the server over gRPC",
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "means": means,
        "rows": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(means, indent=2))


if __name__ == "__main__":
    main()

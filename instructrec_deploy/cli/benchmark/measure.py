"""One benchmark run: cold starts, then interleaved rounds over all bundles, then medians.

All bundles are measured in one run, round by round, so that a neighbour on the machine disturbs
them alike. While one server is measured the others wait, idle.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.benchmark.bound import Bound
from instructrec_deploy.cli.benchmark.figures import (
    PERCENTILES,
    machine_facts,
    percentile,
    spread,
)
from instructrec_deploy.cli.benchmark.load import Measured, Plan, run_load
from instructrec_deploy.cli.bundle import describe_bundle
from instructrec_deploy.cli.server_process import ServerProcess, running_server
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.bundle import open_bundle

Say = Callable[[str], None]
SETTLE_S = 1.0  # before idle memory is read
# name -> (callers, texts of a call)
POINTS = {
    "unary_1": (1, 1),
    "unary_8": (8, 1),
    "unary_64": (64, 1),
    "batch_16": (4, 16),  # 64 texts under way, as in unary_64
}


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What is measured."""

    bundles: Sequence[Path]
    texts: Sequence[str]
    n_rounds: int = 3
    seconds: float = 3.0  # of each point in each round
    n_cold_starts: int = 3
    options: Sequence[str] = ()  # of `instructrec serve`

    @property
    def serve_options(self) -> tuple[str, ...]:
        """The callers share a handful of texts, users do not: none is to be read for another."""
        return ("--set", "batching.join_equal=false", *self.options)


@dataclass(slots=True)
class Collected:
    """What was measured of one bundle so far."""

    path: Path
    facts: dict[str, Any]
    cold_start_s: list[float] = field(default_factory=list)
    idle_memory_mb: list[float] = field(default_factory=list)
    bound: list[float] = field(default_factory=list)
    mixed: list[float] = field(default_factory=list)  # the engine on batches of mixed lengths
    mean_tokens: float = 0.0
    n_candidates: int = 0
    points: dict[str, list[Measured]] = field(default_factory=dict)


def run_bench(plan: BenchPlan, logs: Path, *, say: Say) -> dict[str, Any]:
    """Measure everything; plain data for the table and for JSON.

    Args:
        logs: folder for the servers' logs.
    """
    collected = [
        Collected(path, describe_bundle(open_bundle(path)), points={name: [] for name in POINTS})
        for path in plan.bundles
    ]
    for number, one in enumerate(collected):
        say(f"{one.path}: {plan.n_cold_starts} cold starts")
        for turn in range(plan.n_cold_starts):
            measure_start(one, plan, logs / f"start-{number}-{turn}.log")
    with ExitStack() as stack:
        servers: list[ServerProcess] = []
        bounds: list[Bound] = []
        for number, one in enumerate(collected):
            log = logs / f"server-{number}.log"
            server = stack.enter_context(running_server(one.path, log, options=plan.serve_options))
            server.wait_ready()
            bound = Bound(one.path, plan.texts)
            stack.callback(bound.close)
            one.mean_tokens, one.n_candidates = bound.mean_tokens, bound.n_candidates
            servers.append(server)
            bounds.append(bound)
        for round_number in range(1, plan.n_rounds + 1):
            for one, server, bound in zip(collected, servers, bounds, strict=True):
                say(f"round {round_number} of {plan.n_rounds}: {one.path}")
                measure_round(one, plan, server, bound)
    return {
        "machine": machine_facts(),
        "settings": {
            "n_rounds": plan.n_rounds,
            "seconds": plan.seconds,
            "n_texts": len(plan.texts),
            "loop": "closed",
            "serve_options": list(plan.serve_options),
        },
        "bundles": [summarize(one) for one in collected],
    }


def measure_round(one: Collected, plan: BenchPlan, server: ServerProcess, bound: Bound) -> None:
    """Every load once, and the bound before and after: a disturbed machine shows in both."""
    before = bound.measure(plan.seconds)
    for name, (n_callers, n_texts) in POINTS.items():
        load = Plan(server.address, plan.texts, n_callers, n_texts, plan.seconds)
        one.points[name].append(run_load(load))
    one.bound.append((before + bound.measure(plan.seconds)) / 2)
    one.mixed.append(bound.measure(plan.seconds, is_mixed=True))


def measure_start(one: Collected, plan: BenchPlan, log: Path) -> None:
    """From the start of the process to the first answer; then memory at rest."""
    with running_server(one.path, log, options=plan.serve_options) as server:
        server.wait_ready()
        with Client(server.address, timeout_s=30.0) as client:
            client.predict(plan.texts[0])
        one.cold_start_s.append(time.monotonic() - server.started)
        time.sleep(SETTLE_S)
        one.idle_memory_mb.append(server.memory_mb())


def summarize(one: Collected) -> dict[str, Any]:
    """Medians over the rounds; each throughput also as a share of the same round's bound."""
    facts = one.facts
    points = {}
    for name, rounds in one.points.items():
        shares = [m.texts_per_s / bound for m, bound in zip(rounds, one.bound, strict=True)]
        points[name] = {
            "texts_per_s": spread([measured.texts_per_s for measured in rounds]),
            "of_bound": spread(shares),
            "n_calls": sum(len(measured.latencies_ms) for measured in rounds),
            "n_errors": sum(sum(measured.errors.values()) for measured in rounds),
            **{
                f"p{percent}_ms": round(
                    statistics.median(percentile(m.latencies_ms, percent) for m in rounds), 3
                )
                for percent in PERCENTILES
            },
        }
    return {
        "folder": one.path.name,
        "name": facts["name"],
        "version": facts["version"],
        "kind": facts["model"]["kind"],
        "precision": facts["model"]["precision"],
        "size_mb": round(facts["size_bytes"] / 1e6, 1),
        "n_candidates": one.n_candidates,
        "mean_tokens": round(one.mean_tokens, 1),
        "unpadded": facts["model"].get("unpadded", False),
        "bound_texts_per_s": spread(one.bound),
        "mixed_texts_per_s": spread(one.mixed),
        "mixed_of_bound": spread([m / b for m, b in zip(one.mixed, one.bound, strict=True)]),
        "cold_start_s": spread(one.cold_start_s),
        "idle_memory_mb": spread(one.idle_memory_mb),
        "points": points,
    }

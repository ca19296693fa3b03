"""Compressed variants of one model, paired in one run: answers, then speed in rounds.

Each variant lives in a process of its own, and one computes while the others wait. In a round all
of them run a cell one after another, then the next cell; whoever begins changes with the round. So
a neighbour on the machine disturbs them alike, and ratios are taken round by round.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.cli.benchmark.answers import Answers, answer_facts, right_labels
from instructrec_deploy.cli.benchmark.cells import Cell
from instructrec_deploy.cli.benchmark.figures import machine_facts, spread
from instructrec_deploy.cli.benchmark.pareto import mark_front
from instructrec_deploy.cli.benchmark.ratios import ratio_facts, throughput_ratio
from instructrec_deploy.cli.benchmark.variant_process import PassTime, VariantProcess
from instructrec_deploy.cli.benchmark.variants import STOCK, Variant
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.evaluation.figures import Floats
from instructrec_deploy.evaluation.requests import passage_of

Say = Callable[[str], None]
SETTLE_S = 1.0  # before idle memory is read
PAUSE_S = 0.005  # between two variants: threads that wait busily fall asleep
WHAT = "compressed variants of one model, paired in one run"
COMPANY = 32  # texts of a batch in which answers are compared with those alone


@dataclass(frozen=True, slots=True)
class ComparePlan:
    """What is compared, and how."""

    variants: Sequence[Variant]
    instruction: Instruction  # the task whose labels are scored
    examples: Sequence[Example]
    cells: Sequence[Cell]
    threads: Sequence[int] = (1, 2)
    has_labels: bool = True  # of the examples
    max_tokens: int = 0  # the window that all variants must have; 0: any
    n_rounds: int = 5
    seconds: float = 0.1  # of each cell in each round, at least one pass
    n_starts: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the engine

    @property
    def baseline(self) -> Variant:
        """Whose throughput the others' is a multiple of: stock int8, else the reference."""
        return next((v for v in self.variants if v.model == STOCK), self.reference)

    @property
    def reference(self) -> Variant:
        """Whose answers the others' are held against: the first in fp32, else the first."""
        return next((v for v in self.variants if v.precision == "fp32"), self.variants[0])


@dataclass(slots=True)
class Measured:
    """What was measured of one variant so far."""

    start_s: list[float] = field(default_factory=list)
    idle_mb: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    answers: Answers | None = None
    times: dict[int, list[list[PassTime]]] = field(default_factory=dict)  # threads -> [R][C]

    def seconds(self, n_threads: int, columns: Sequence[int], *, is_cpu: bool = False) -> Floats:
        """[R, C] of these cells."""
        rows = self.times[n_threads]
        return np.array([[r[c].cpu_s if is_cpu else r[c].pass_s for c in columns] for r in rows])


def run_compare(plan: ComparePlan, work: Path, *, say: Say) -> dict[str, Any]:
    """Measure everything; plain data for tables and for JSON.

    Args:
        work: a folder for logs and intermediate files.

    Raises:
        ConfigError: variants with other labels or another window, or rows without any of the
            labels.
        InstructRecError: a variant cannot be opened.
    """
    gold = right_labels(plan.examples, plan.instruction) if plan.has_labels else []
    found = {variant.name: Measured() for variant in plan.variants}
    for turn in range(plan.n_starts):
        say(f"starts: {turn + 1} of {plan.n_starts}")
        for variant in plan.variants:
            measure_start(plan, variant, found[variant.name], work)
    for variant in plan.variants:
        say(f"answers: {variant.name}")
        measure_answers(plan, variant, found[variant.name], work)
    for n_threads in plan.threads:
        measure_speed(plan, n_threads, found, work, say=say)
    return summarize(plan, found, gold)


def measure_start(plan: ComparePlan, variant: Variant, found: Measured, work: Path) -> None:
    """From the start of a process to its first answer; then memory at rest."""
    with _opened(plan, variant, max(plan.threads), work) as process:
        if process.labels != plan.instruction.labels:
            raise ConfigError(
                f"{variant.name} has other labels for task {plan.instruction.task!r}",
                hint="compare bundles of one run",
            )
        if plan.max_tokens not in (0, process.max_tokens):
            raise ConfigError(
                f"{variant.name} reads {process.max_tokens} tokens of a text, "
                f"{plan.variants[0].name} {plan.max_tokens}",
                hint="compare bundles of one run, and the run itself",
            )
        found.start_s.append(process.start_s)
        time.sleep(SETTLE_S)
        found.idle_mb.append(process.memory_mb())
        found.peak_mb = max(found.peak_mb, process.peak_mb())


def measure_answers(plan: ComparePlan, variant: Variant, found: Measured, work: Path) -> None:
    """All rows, each alone and in batches."""
    with _opened(plan, variant, max(plan.threads), work) as process:
        process.load([passage_of(example) for example in plan.examples], ())
        file = work / "logits.npy"
        alone, batched = (process.logits(batch, file) for batch in (1, COMPANY))
    found.answers = Answers.of(alone, batched, plan.instruction)


def measure_speed(
    plan: ComparePlan, n_threads: int, found: Mapping[str, Measured], work: Path, *, say: Say
) -> None:
    """Rounds over all cells with so many threads."""
    passages = [passage_of(example) for example in plan.examples]
    with ExitStack() as stack:
        processes = []
        for variant in plan.variants:
            process = stack.enter_context(_opened(plan, variant, n_threads, work))
            process.load(passages, plan.cells)
            processes.append(process)
        for number in range(plan.n_rounds):
            say(f"speed, {n_threads} threads: round {number + 1} of {plan.n_rounds}")
            begin = number % len(processes)
            for process in processes:
                found[process.variant.name].times.setdefault(n_threads, []).append([])
            for cell in range(len(plan.cells)):
                for process in processes[begin:] + processes[:begin]:
                    time.sleep(PAUSE_S)
                    row = found[process.variant.name].times[n_threads][-1]
                    row.append(process.measure(cell, plan.seconds))
        for process in processes:
            one = found[process.variant.name]
            one.peak_mb = max(one.peak_mb, process.peak_mb())


def summarize(
    plan: ComparePlan, found: Mapping[str, Measured], gold: Sequence[str]
) -> dict[str, Any]:
    """Every variant against the baseline and the reference."""
    base, reference = found[plan.baseline.name], found[plan.reference.name].answers
    variants = []
    for variant in plan.variants:
        own = found[variant.name]
        assert own.answers is not None
        assert reference is not None
        none_label = plan.instruction.decision.none_label
        told = {
            **variant.facts(),
            "size_mb": round(variant.size_bytes / 1e6, 2),
            "start_s": spread(own.start_s),
            "idle_memory_mb": spread(own.idle_mb),
            "peak_memory_mb": round(own.peak_mb, 1),
            "answers": answer_facts(own.answers, reference, gold, none_label=none_label),
            "speed": speed_facts(plan, base, own),
            "cells": cell_facts(plan, base, own),
        }
        variants.append(told)
    mark_front(variants)
    return {
        "what": WHAT,
        "machine": machine_facts(),
        "settings": {
            "n_rounds": plan.n_rounds,
            "seconds": plan.seconds,
            "n_starts": plan.n_starts,
            "threads": list(plan.threads),
            "engine": dict(plan.settings),
            "task": plan.instruction.task,
            "n_labels": len(plan.instruction.labels),
            "n_rows": len(plan.examples),
            "rows_sha256": rows_hash(plan.examples),
        },
        "baseline": plan.baseline.name,
        "reference": plan.reference.name,
        "variants": variants,
    }


def speed_facts(plan: ComparePlan, base: Measured, own: Measured) -> dict[str, Any]:
    """Throughput as a multiple of the baseline's, by groups of cells and threads.

    `fixed` and `real` are over all thread counts, `_cpu` the same of processor time.
    """
    groups = {
        "fixed": [i for i, cell in enumerate(plan.cells) if cell.order == "fixed"],
        "real": [i for i, cell in enumerate(plan.cells) if cell.order != "fixed"],
    }
    facts: dict[str, Any] = {}
    for name, columns in groups.items():
        if not columns:
            continue
        parts = {name: (plan.threads, False), f"{name}_cpu": (plan.threads, True)}
        parts |= {f"{name}_threads_{n}": ((n,), False) for n in plan.threads}
        for part, (threads, is_cpu) in parts.items():
            pair = ([m.seconds(n, columns, is_cpu=is_cpu) for n in threads] for m in (base, own))
            facts[part] = ratio_facts(throughput_ratio(*pair))
    return facts


def cell_facts(plan: ComparePlan, base: Measured, own: Measured) -> list[dict[str, Any]]:
    """Each cell with each thread count: milliseconds of the rounds, texts a second, the ratio."""
    facts = []
    for n_threads in plan.threads:
        for number, cell in enumerate(plan.cells):
            times = [m.seconds(n_threads, [number]) for m in (base, own)]
            n_texts = cell.n_texts
            facts.append(
                {
                    "cell": cell.name,
                    "threads": n_threads,
                    "pass_ms": [round(1000 * float(s), 4) for s in times[1][:, 0]],
                    "texts_per_s": round(n_texts / float(np.median(times[1])), 2),
                    **ratio_facts(throughput_ratio(times[:1], times[1:])),
                }
            )
    return facts


def rows_hash(examples: Sequence[Example]) -> str:
    """What tells two sets of rows apart."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.text, example.text2, example.target)).encode())
    return digest.hexdigest()


def _opened(plan: ComparePlan, variant: Variant, n_threads: int, work: Path) -> VariantProcess:
    return VariantProcess(
        variant,
        n_threads,
        task=plan.instruction.task,
        settings=plan.settings,
        log=work / "variants.log",
    )

"""A comparison as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from instructrec_deploy.cli.benchmark.variants import TITLES

SPEEDS = {
    "fixed": "fixed lengths",
    "real": "real lengths",
    "fixed_cpu": "fixed lengths by processor time",
    "real_cpu": "real lengths by processor time",
}


def to_markdown(result: dict[str, Any]) -> str:
    """One table of variants, one of cells, and what they mean."""
    return "\n".join([*_head(result), "", *_variants(result), "", *_cells(result), ""])


def _head(result: dict[str, Any]) -> Iterator[str]:
    machine, settings = result["machine"], result["settings"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    yield f"# Compressed variants: {settings['task']}, {settings['n_labels']} labels"
    yield ""
    yield (
        f"{machine['cpu']}, {machine['n_cores']} cores, Python {machine['python']}, {packages}. "
        f"{settings['n_rounds']} rounds, every variant and cell in turn; load average "
        f"{machine['load_average']} at the end."
    )
    yield ""
    yield (
        f"Throughput: multiples of *{result['baseline']}*, geometric mean over the cells of paired "
        "medians, 95 % bootstrap interval over rounds in brackets. Answers: held against those of "
        f"*{result['reference']}*, {settings['n_rows']} rows, each alone; changed: other best "
        "label in a batch of mixed lengths. Start: of a process to its first answer, in process."
    )


def _variants(result: dict[str, Any]) -> Iterator[str]:
    speeds = [name for name in SPEEDS if name in result["variants"][0]["speed"]]
    yield from _header(
        "model",
        "engine",
        "precision",
        "MB",
        "accuracy",
        "points lost",
        "same label",
        "changed",
        *(f"{SPEEDS[name]}, x" for name in speeds),
        "start s",
        "idle MB",
        "peak MB",
    )
    for one in result["variants"]:
        answers = one["answers"]
        yield _row(
            one["model"],
            TITLES[one["engine"]],
            one["precision"],
            f"{one['size_mb']:.1f}",
            _percent(answers, "accuracy"),
            _points(answers),
            f"{100 * answers['same_label']:.2f} %",
            str(answers["n_other_in_batch"]),
            *(_ratio(one["speed"][name]) for name in speeds),
            f"{one['start_s']['median']:.2f}",
            f"{one['idle_memory_mb']['median']:.0f}",
            f"{one['peak_memory_mb']:.0f}",
        )


def _cells(result: dict[str, Any]) -> Iterator[str]:
    variants = result["variants"]
    yield "Texts a second (and multiples of the baseline), medians of the rounds:"
    yield ""
    yield from _header("threads", "texts x tokens", *(one["name"] for one in variants))
    for number, cell in enumerate(variants[0]["cells"]):
        same = [one["cells"][number] for one in variants]
        yield _row(
            str(cell["threads"]),
            cell["cell"],
            *(f"{c['texts_per_s']:.1f} ({c['ratio']:.2f})" for c in same),
        )


def _header(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---|" * len(names)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratio(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def _percent(facts: dict[str, Any], name: str) -> str:
    if name not in facts:
        return "-"
    low, high = (100 * x for x in facts[f"{name}_interval"])
    return f"{100 * facts[name]:.2f} % [{low:.2f}, {high:.2f}]"


def _points(facts: dict[str, Any]) -> str:
    if "loss_points" not in facts:
        return "-"
    low, high = facts["loss_interval"]
    return f"{facts['loss_points']:.2f} [{low:.2f}, {high:.2f}]"

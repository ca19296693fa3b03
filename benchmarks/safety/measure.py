"""Structured personal data: F1, hard negatives hit, obfuscated found, leaked.

    PYTHONPATH=. .venv/bin/python benchmarks/safety/measure.py \\
        --out benchmarks/results/safety.json

What counts as found and as leaked: `evaluation/safety.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.safety.cases import Case, hard_negatives, obfuscated, planted
from instructrec_deploy.evaluation.safety import Span as Finding
from instructrec_deploy.evaluation.safety import span_figures
from instructrec_deploy.safety.guard import Guard

SEED = 20250301
ROUNDS = 10
Filter = Callable[[list[str]], list[list[Finding]]]


def ours() -> Filter:
    """This project's filter with its default policy, word list included."""
    guard = Guard()

    def find(texts: list[str]) -> list[list[Finding]]:
        verdicts = (guard.check_input(text).verdict for text in texts)
        return [[(f.category, f.start, f.end) for f in verdict.findings] for verdict in verdicts]

    return find


def scores(cases: list[Case], found: list[list[Finding]]) -> dict[str, float]:
    """Precision, recall and F1 by type, and the share of values that leak."""
    figures = span_figures(
        [case.text for case in cases], [case.values for case in cases], found, n_resamples=0
    )
    names = ("precision", "recall", "f1", "leaked")
    return {n: round(figures.values[n].value, 4) for n in names} | {"n": figures.facts["n_values"]}


def measure(find: Filter) -> dict[str, Any]:
    """All figures of one filter."""
    result: dict[str, Any] = {}
    cases = planted(SEED, ROUNDS)
    for lang in ("en", "zh"):
        chosen = [case for case in cases if case.lang == lang]
        result[lang] = scores(chosen, find([case.text for case in chosen]))
    hard = hard_negatives(SEED + 1, ROUNDS)
    hit = [bool(found) for found in find([case.text for case in hard])]
    result["hard_negatives_hit"] = {"share": round(sum(hit) / len(hit), 4), "n": len(hit)}
    result["hard_negatives_hit"]["some"] = _some(hard, hit)
    shares, recalls, n_all = {}, 0.0, 0
    for name, disguised in obfuscated(SEED + 2, ROUNDS).items():
        found = scores(disguised, find([case.text for case in disguised]))
        shares[name] = found["recall"]
        recalls += found["recall"] * len(disguised)
        n_all += len(disguised)
    result["obfuscated_found"] = {"share": round(recalls / n_all, 4), "n": n_all, "by": shares}
    return result


def _some(cases: list[Case], hit: list[bool]) -> list[str]:
    """A few of the hard negatives that were hit; they are made up."""
    return [case.text for case, is_hit in zip(cases, hit, strict=True) if is_hit][:10]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = {"seed": SEED, "rounds": ROUNDS, "instructrec": measure(ours())}
    result["machine"] = {
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 1),
    }
    text = json.dumps(result, ensure_ascii=False, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Structured personal data: F1, hard negatives hit, obfuscated found, leaked.

    PYTHONPATH=. .venv/bin/python benchmarks/safety/measure.py \\
        --out benchmarks/results/safety.json

A value counts as found where a finding of its type overlaps it, each finding once; a finding that
overlaps no value of its type is wrong. Leaked: less than all of the value is covered by findings of
any type.
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
from instructrec_deploy.safety.guard import Guard

SEED = 20250301
ROUNDS = 10
Finding = tuple[str, int, int]
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
    hits = n_values = n_findings = leaked = 0
    for case, findings in zip(cases, found, strict=True):
        left = list(findings)
        n_findings += len(left)
        for kind, start, end in case.values:
            n_values += 1
            hit = next((f for f in left if f[0] == kind and f[1] < end and start < f[2]), None)
            if hit:
                hits += 1
                left.remove(hit)
            covered = {at for f in findings for at in range(f[1], f[2])}
            leaked += not covered.issuperset(
                at for at in range(start, end) if case.text[at].isalnum()
            )
    precision, recall = hits / max(1, n_findings), hits / n_values
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(f1, 4),
        "leaked": round(leaked / n_values, 4),
        "n": n_values,
    }


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

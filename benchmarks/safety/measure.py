"""Structured personal data: F1, hard negatives hit, obfuscated and disguised found, leaked.

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
from benchmarks.safety.contacts import HELD, TUNE, contact_cases, contact_negatives
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
    result["contacts"] = contact_figures(find)
    return result


def contact_figures(find: Filter) -> dict[str, Any]:
    """Contacts in disguise, on the list that the rules were written by and on the one kept back.

    A value counts as found where a finding of its type overlaps it and nothing of it is left.
    """
    result: dict[str, Any] = {}
    for name, contacts, seed in (("tune", TUNE, SEED + 3), ("held", HELD, SEED + 5)):
        figures: dict[str, Any] = {}
        n_found = n_all = 0
        for kind, cases in contact_cases(contacts, seed, ROUNDS).items():
            spans = find([case.text for case in cases])
            hit = sum(map(is_masked_whole, cases, spans))
            figures[kind] = {"found": round(hit / len(cases), 4), "n": len(cases)}
            n_found, n_all = n_found + hit, n_all + len(cases)
        hard = contact_negatives(contacts, seed + 1, ROUNDS)
        hits = [bool(found) for found in find([case.text for case in hard])]
        figures["found"] = {"share": round(n_found / n_all, 4), "n": n_all}
        figures["hard_negatives_hit"] = {"share": round(sum(hits) / len(hits), 4), "n": len(hits)}
        result[name] = figures
    return result


def is_masked_whole(case: Case, found: list[Finding]) -> bool:
    """Whether the case's one value is found by its type, and no letter or digit of it is left."""
    kind, start, end = case.values[0]
    covered = {at for _, begin, stop in found for at in range(begin, stop)}
    is_left = any(at not in covered for at in range(start, end) if case.text[at].isalnum())
    return not is_left and any(f[0] == kind and f[1] < end and start < f[2] for f in found)


def _some(cases: list[Case], hit: list[bool]) -> list[str]:
    """A few of the hard negatives that were hit; they are made up."""
    return [case.text for case, is_hit in zip(cases, hit, strict=True) if is_hit][:10]


def write_result(result: dict[str, Any], out: Path) -> None:
    """Print and write the figures, with what they were measured on."""
    result["machine"] = {
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 1),
    }
    text = json.dumps(result, ensure_ascii=False, indent=2)
    print(text)
    out.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result: dict[str, Any] = {"seed": SEED, "rounds": ROUNDS, "instructrec": measure(ours())}
    write_result(result, options.out)


if __name__ == "__main__":
    main()

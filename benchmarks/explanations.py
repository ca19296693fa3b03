"""Are explanations faithful? Deletion: the words that moved an answer most are taken out first.

    .venv/bin/python benchmarks/explanations.py BUNDLE --data FILE.jsonl.gz \\
        --out benchmarks/results/explanations.json [--texts 200]

For each text the pieces of its explanation are deleted one after another, up to MAX_DELETED: those
with the largest attribution first, in random order, and those with the least first. What is
measured is the probability that the answer keeps; a faithful explanation lets it fall fast in the
first order. Beside it stands what explaining costs: a request with and without, alone, in turn.
(Deletion: Samek et al., arXiv:1509.06321; area over the curve, on words.)
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from instructrec_deploy.core.result import Prediction
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.runtime.predictor import Predictor

MAX_DELETED = 5
N_TIMED = 50


def deleted(text: str, places: list[tuple[int, int]]) -> str:
    """The text without the places."""
    for start, end in sorted(places, reverse=True):
        text = text[:start] + text[end:]
    return text if text.strip() else "."


def curve(predictor: Predictor, text: str, told: Prediction, order: list[int]) -> list[float]:
    """The probability of the answer after 1 to MAX_DELETED pieces are gone."""
    found = told.answers[0].attributions
    gone = [(found[i].start, found[i].end) for i in order[:MAX_DELETED]]
    texts = [deleted(text, gone[: n + 1]) for n in range(len(gone))]
    left = predictor.predict(texts, top_k=0)
    return [{s.label: s.score for s in one.answers[0].scores}[told.label] for one in left]


def cost(predictor: Predictor, texts: list[str]) -> dict[str, float]:
    """Median milliseconds of one request with and without an explanation."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    for text in texts[:N_TIMED]:
        for explain in (False, True):
            begun = time.perf_counter()
            predictor.predict(text, explain=explain)
            spent[explain].append(1000 * (time.perf_counter() - begun))
    plain, told = statistics.median(spent[False]), statistics.median(spent[True])
    return {
        "plain_ms": round(plain, 2),
        "explained_ms": round(told, 2),
        "ratio": round(told / plain, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=200)
    args = parser.parse_args()
    rng = random.Random(1)
    rows = rng.sample(read_examples(args.data, args.split), args.texts)
    falls: dict[str, list[list[float]]] = {"most first": [], "random": [], "least first": []}
    with Predictor(args.bundle, guard=False) as predictor:
        for row in rows:
            told = predictor.predict(row.text, explain=True, top_k=0)
            found = told.answers[0].attributions
            if len(found) <= MAX_DELETED:
                continue
            ranked = sorted(range(len(found)), key=lambda i: -found[i].score)
            orders = (ranked, rng.sample(ranked, len(ranked)), ranked[::-1])
            for name, order in zip(falls, orders, strict=True):
                left = curve(predictor, row.text, told, order)
                falls[name].append([told.score - value for value in left])
        spent = cost(predictor, [row.text for row in rows])
    result: dict[str, Any] = {"bundle": args.bundle.name, "n": len(falls["random"])} | spent
    for name, curves in falls.items():
        mean = [statistics.fmean(values) for values in zip(*curves, strict=True)]
        result[name] = {
            "fall": [round(value, 4) for value in mean],
            "area": round(statistics.fmean(mean), 4),
        }
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

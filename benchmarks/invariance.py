"""Does an answer depend on its batch neighbours, and what do 77 candidates cost against 2?

    .venv/bin/python benchmarks/invariance.py BUNDLE --data FILE.jsonl.gz \\
        --out benchmarks/results/invariance.json [--n 2000]

Every text is asked alone and in batches of mixed lengths, in process, in one run. "Ties" are texts
whose two best scores lie within 1e-6. The cost of candidates is the median over interleaved
rounds of single requests with prepared instructions.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from instructrec_deploy import Instruction, Prediction, Predictor
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.evaluation.reader import read_examples

TIE = 1e-6
BATCH = 32


def compare(predictor: Predictor, texts: list[str]) -> dict[str, Any]:
    """Alone against batched."""
    alone = [predictor.predict(text, top_k=0) for text in texts]
    batched: list[Prediction] = []
    for start in range(0, len(texts), BATCH):
        batched += predictor.predict(texts[start : start + BATCH], top_k=0)
    worst, n_other, n_ties = 0.0, 0, 0
    for one, other in zip(alone, batched, strict=True):
        first = {s.label: s.score for s in one.answers[0].scores}
        second = {s.label: s.score for s in other.answers[0].scores}
        worst = max(worst, max(abs(first[label] - second[label]) for label in first))
        best = sorted(first.values(), reverse=True)
        n_ties += best[0] - best[1] <= TIE
        n_other += one.label != other.label and best[0] - best[1] > TIE
    return {
        "n": len(texts),
        "labels_differ": n_other,
        "ties": n_ties,
        "largest_score_difference": worst,
    }


def candidate_cost(predictor: Predictor, texts: list[str], rounds: int = 9) -> dict[str, Any]:
    """Milliseconds of one request with many and with two prepared candidates."""
    many = open_bundle(predictor.bundle.root).instruction()
    ids = {
        len(many.labels): predictor.prepare(many).key,
        2: predictor.prepare(Instruction.of(many.text, many.labels[:2])).key,
    }
    times: dict[int, list[float]] = {n: [] for n in ids}
    for _ in range(rounds):
        for n, prepared in ids.items():
            begun = time.perf_counter()
            for text in texts:
                predictor.predict(text, prepared_id=prepared)
            times[n].append(1000 * (time.perf_counter() - begun) / len(texts))
    medians = {n: statistics.median(found) for n, found in times.items()}
    return {
        "ms_per_request": {str(n): round(ms, 4) for n, ms in medians.items()},
        "ratio": round(medians[len(many.labels)] / medians[2], 4),
        "rounds": rounds,
        "texts": len(texts),
    }


def main() -> None:
    """Measure both and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=2000)
    given = parser.parse_args()
    rows = read_examples(given.data)
    texts = [row.text for row in random.Random(0).sample(rows, min(given.n, len(rows)))]
    with Predictor(given.bundle, guard=False) as predictor:
        model = predictor.bundle.manifest
        result = {
            "bundle": model.name,
            "version": model.version,
            "precision": model.model.precision,
            "invariance": compare(predictor, texts),
            "candidates": candidate_cost(predictor, texts[:100]),
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

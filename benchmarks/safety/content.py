"""Abusive language: the word list alone, a bundle's own safety task, and both together.

    PYTHONPATH=. .venv/bin/python benchmarks/safety/content.py --data-root DATA \\
        --english BUNDLE --chinese BUNDLE --out benchmarks/results/content.json

The tasks `offensive` and `offensive-zh` of the bundles give the score of a text. The threshold is
the one with the best macro F1 on rows that are not measured: the validation rows of
tweet_offensive, and every other validation row of COLD (it has no test rows). HateCheck is
measured by AUC, with the English task as it is.

    PYTHONPATH=. .venv/bin/python benchmarks/safety/content.py --data-root DATA \\
        --safety BUNDLE --out benchmarks/results/content-safety.json --policy safety.toml

measures the bundle of the recipe `content-safety` alike (HateCheck by its category `hate`, too),
its categories on our own held-back rows, and writes the policy that these figures were reached
with.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.safety.categories import measure_categories
from instructrec_deploy.evaluation.metrics import macro_f1_of
from instructrec_deploy.evaluation.safety import auc as area
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.safety.guard import Guard

ABUSE = frozenset(("threat", "harassment", "profanity"))
Rows = list[dict[str, Any]]


def read(path: Path, *splits: str) -> Rows:
    """The rows of some splits."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [row for row in map(json.loads, lines) if row["split"] in splits]


def model_scores(bundle: Path, task: str, label: str, rows: Rows) -> np.ndarray:
    """The model's probability of a label, [N]."""
    with Predictor(bundle, guard=False) as predictor:
        found = predictor.predict([row["text"] for row in rows], task=task, top_k=0)
    return np.array(
        [next(s.score for s in one.answers[0].scores if s.label == label) for one in found]
    )


def listed(rows: Rows) -> np.ndarray:
    """Whether the word list finds abuse, [N] bool."""
    guard = Guard()
    hits = [guard.check_input(row["text"]).verdict.findings for row in rows]
    return np.array([any(f.category in ABUSE for f in findings) for findings in hits])


def macro_f1(is_abuse: np.ndarray, found: np.ndarray) -> float:
    """Mean of the F1 of both classes."""
    return macro_f1_of([*map(str, is_abuse)], [*map(str, found)])


def auc(is_abuse: np.ndarray, scores: np.ndarray) -> float:
    """How often an abusive text has the higher score of two."""
    return area(is_abuse, scores, n_resamples=0).value


def best_threshold(is_abuse: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the best macro F1."""
    grid = np.linspace(0.02, 0.98, 97)
    return float(max(grid, key=lambda at: macro_f1(is_abuse, scores >= at)))


def measure(
    bundle: Path, task: str, label: str, chosen_on: Rows, measured_on: Rows
) -> dict[str, Any]:
    """Macro F1 of the list, of the model, and of both."""
    scores = {
        name: model_scores(bundle, task, label, rows)
        for name, rows in (("chosen", chosen_on), ("measured", measured_on))
    }
    truths = [
        np.array([row["target"] == label for row in rows]) for rows in (chosen_on, measured_on)
    ]
    threshold = best_threshold(truths[0], scores["chosen"])
    by_list, by_model = listed(measured_on), scores["measured"] >= threshold
    return {
        "n": len(measured_on),
        "threshold": round(threshold, 2),
        "macro_f1": {
            "word list": round(macro_f1(truths[1], by_list), 4),
            "model": round(macro_f1(truths[1], by_model), 4),
            "model at 0.5": round(macro_f1(truths[1], scores["measured"] >= 0.5), 4),
            "both": round(macro_f1(truths[1], by_list | by_model), 4),
        },
        "auc": round(auc(truths[1], scores["measured"]), 4),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--english", type=Path)
    parser.add_argument("--chinese", type=Path)
    parser.add_argument("--safety", type=Path, help="one bundle for all, with content categories")
    parser.add_argument("--policy", type=Path, help="write the policy of --safety there")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    english, chinese = options.english or options.safety, options.chinese or options.safety
    if english is None or chinese is None:
        parser.error("name --english and --chinese, or --safety")
    data = options.data_root / "safety"
    tweets, cold = data / "tweet_offensive.jsonl.gz", read(data / "cold.jsonl.gz", "val")
    hate = read(data / "hatecheck_half.jsonl.gz", "test")
    is_hate = np.array([row["target"] == "hateful" for row in hate])
    result = {
        "tweet_offensive": measure(
            english, "offensive", "offensive", read(tweets, "val"), read(tweets, "test")
        ),
        "cold": measure(chinese, "offensive-zh", "冒犯", cold[::2], cold[1::2]),
        "hatecheck": {
            "n": len(hate),
            "auc": round(auc(is_hate, model_scores(english, "offensive", "offensive", hate)), 4),
            "auc of the word list": round(auc(is_hate, listed(hate).astype(float)), 4),
        },
        "machine": {"python": platform.python_version(), "load_1m": round(os.getloadavg()[0], 1)},
    }
    if options.safety is not None:
        figures, policy = measure_categories(options.safety)
        result["categories"] = figures
        result["hatecheck"]["auc of the category hate"] = round(
            auc(is_hate, model_scores(options.safety, "content", "hate", hate)), 4
        )
        if options.policy is not None:
            options.policy.write_text(policy, encoding="utf-8")
    text = json.dumps(result, ensure_ascii=False, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

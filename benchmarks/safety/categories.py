"""Content categories of a safety bundle: our own rows that were held back, and a policy for it.

The policy flags a category from the threshold on that training calibrated (tasks.toml), and blocks
what BLOCKED names from the lowest threshold on at which no harmless validation row is blocked.
Test rows choose nothing.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.safety.guards import PolicyGuards

DATA = Path(__file__).parents[2] / "training/instructrec_training/data/content_safety"
PUBLIC = {  # label of a row -> category of a policy
    "harassment": "harassment",
    "hate": "hate",
    "sexual": "sexual",
    "violence": "violence",
    "profanity": "profanity",
    "self-harm": "self_harm",
    "illegal advice": "illegal_advice",
    "辱骂骚扰": "harassment",
    "仇恨": "hate",
    "色情": "sexual",
    "暴力": "violence",
    "自残": "self_harm",
    "违法建议": "illegal_advice",
    "粗话": "profanity",
}
BLOCKED = frozenset(("hate", "sexual", "violence", "illegal_advice"))  # all others are flagged
TASKS = {"en": "content", "zh": "content-zh"}
Rows = list[dict[str, Any]]


def own_rows(lang: str, split: str) -> Rows:
    """Shipped rows of a language and a split."""
    lines = (DATA / f"{lang}_categories.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def category_scores(predictor: Predictor, lang: str, rows: Rows) -> dict[str, np.ndarray]:
    """The probability of each label of the language's task, each [N]."""
    found = predictor.predict([row["text"] for row in rows], task=TASKS[lang], top_k=0)
    tables = [{s.label: s.score for s in one.answers[0].scores} for one in found]
    return {label: np.array([table[label] for table in tables]) for label in tables[0]}


def chosen_thresholds(bundle: Path, predictor: Predictor, lang: str) -> dict[str, list[float]]:
    """For each label where it is flagged from and, if it is ever blocked, where it is blocked."""
    book = tomllib.loads((bundle / "tasks.toml").read_text(encoding="utf-8"))
    spec = book["tasks"][TASKS[lang]]
    rows = own_rows(lang, "val")
    scores = category_scores(predictor, lang, rows)
    is_harmless = np.array([not row["target"] for row in rows])
    found = {}
    for label in scores:
        flagged = float(spec["thresholds"].get(label, spec["threshold"]))
        found[label] = [round(flagged, 3)]
        if PUBLIC[label] in BLOCKED:
            highest = float(scores[label][is_harmless].max())
            found[label].append(round(min(0.99, max(flagged, highest) + 0.001), 3))
    return found


def policy_of(thresholds: dict[str, dict[str, list[float]]]) -> str:
    """A safety.toml with a head for each category and language."""
    parts = ['version = "content-1"']
    for lang, of_label in thresholds.items():
        for label, steps in of_label.items():
            acts = ", ".join(
                f'{{action = "{action}", threshold = {at}}}'
                for action, at in zip(("flag", "block"), steps, strict=False)
            )
            category = PUBLIC[label]
            parts.append(
                f"[input.heads.{category}-{lang}]\n"
                f'task = "{TASKS[lang]}"\nlabel = "{label}"\ncategory = "{category}"\n'
                f'lang = "{lang}"\nact = [{acts}]'
            )
    return "\n\n".join(parts) + "\n"


def measure_categories(bundle: Path) -> tuple[dict[str, Any], str]:
    """Figures on test rows, and the policy that they were reached with."""
    with Predictor(bundle, guard=False) as predictor:
        thresholds = {lang: chosen_thresholds(bundle, predictor, lang) for lang in TASKS}
        policy = policy_of(thresholds)
        guards = PolicyGuards.from_toml(policy, where="the measured policy")
        figures: dict[str, Any] = {}
        for lang in TASKS:
            rows = own_rows(lang, "test")
            scores = category_scores(predictor, lang, rows)
            guarded = [predictor.pipeline.guarded(r["text"], guards.of(())) for r in rows]
            actions = np.array([one.verdict.action for one in guarded])
            figures[lang] = {
                "n": len(rows),
                **_acted_on(rows, actions),
                "categories": {
                    label: _precision_recall(label, rows, scores[label], steps)
                    for label, steps in thresholds[lang].items()
                },
            }
    return figures, policy


def _acted_on(rows: Rows, actions: np.ndarray) -> dict[str, Any]:
    is_harmless = np.array([not row["target"] for row in rows])
    calls = np.array([row.get("handling") == "flag" for row in rows])
    return {
        "harmless": int(is_harmless.sum()),
        "harmless blocked": _n(actions[is_harmless], "block"),
        "harmless flagged": _n(actions[is_harmless], "flag"),
        "harmful": int((~is_harmless).sum()),
        "harmful let through": _n(actions[~is_harmless], "allow"),
        "harmful blocked": _n(actions[~is_harmless & ~calls], "block"),
        "calls for help": int(calls.sum()),
        "calls for help blocked": _n(actions[calls], "block"),
    }


def _n(actions: np.ndarray, action: str) -> int:
    return int((actions == action).sum())


def _precision_recall(
    label: str, rows: Rows, scores: np.ndarray, steps: list[float]
) -> dict[str, Any]:
    is_right = np.array([label in row["target"] for row in rows])
    found = scores >= steps[0]
    hits = int((found & is_right).sum())
    return {
        "n": int(is_right.sum()),
        "precision": round(hits / max(1, int(found.sum())), 3),
        "recall": round(hits / max(1, int(is_right.sum())), 3),
        "thresholds": steps,
    }

"""Names of persons, organizations and addresses, by the rules alone and with a bundle's task.

    .venv/bin/python benchmarks/safety/names.py BUNDLE --data-root DATA \\
        --out benchmarks/results/names.json [--en names] [--zh names-zh]

Measured on rows that were not trained on: of presidio_synth the tenth with the smallest hash of the
id (it has no test rows), of Weibo the validation rows (names of persons and organizations; tweets
of another kind than the customers' messages), and the test rows of the messages that come with the
package, whose carriers, given names and streets are in no training row. A value counts as found
where a finding of its type overlaps it, each finding once; other types are left aside. `ms` is the
time of a text, the reading for its names included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.example import Example
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.safety import Checked, evaluate_safety
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.safety.policy import PERSONAL_TYPES
from instructrec_training.data import in_validation
from instructrec_training.people import PARTS

EN = {"person": "PERSON", "organization": "ORGANIZATION", "street address": "ADDRESS"}
ZH = {"人名": "PERSON", "机构": "ORGANIZATION", "地址": "ADDRESS"}
WEIBO = {"人名": "PERSON", "机构名": "ORGANIZATION"}
NAMED = frozenset(EN.values())
POLICY = """version = "names-1"

[input.entities.{en}]
types = {{ person = "PERSON", organization = "ORGANIZATION", "street address" = "ADDRESS" }}
lang = "en"

[input.entities.{zh}]
types = {{ "人名" = "PERSON", "机构" = "ORGANIZATION", "地址" = "ADDRESS" }}
lang = "zh"
"""


def sets_of(root: Path) -> dict[str, tuple[list[Example], dict[str, str]]]:
    """Rows by set, and what its types are called here."""
    synth = read_examples(root / "pii/presidio_synth.jsonl.gz")
    weibo = [row for row in read_examples(root / "ner/weibo.jsonl.gz") if row.split == "val"]
    own = {lang: read_examples(PARTS / f"{lang}_names.jsonl") for lang in ("en", "zh")}
    return {
        "presidio_synth": ([row for row in synth if in_validation(row.id, 0.1)], EN),
        "people_en": ([row for row in own["en"] if row.split == "test"], EN),
        "people_zh": ([row for row in own["zh"] if row.split == "test"], ZH),
        "weibo": (weibo, WEIBO),
    }


def measure(
    pipeline: Pipeline | None, policy: PolicyGuards, rows: list[Example], renamed: dict[str, str]
) -> dict[str, Any]:
    """Figures of one filter on one set."""
    guard = policy.of(())

    def check(text: str) -> Checked:
        guarded = pipeline.checks.checked(text, guard) if pipeline else guard.check_input(text)
        found = guarded.verdict.findings
        return Checked(tuple((f.category, f.start, f.end) for f in found if f.category in NAMED))

    begun = time.perf_counter()
    result = evaluate_safety(rows, check, public_types=PERSONAL_TYPES, renamed=renamed)
    spent = time.perf_counter() - begun
    return {**result.to_dict(), "ms": round(1000 * spent / len(rows), 2)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--en", default="names", help="the bundle's task for English")
    parser.add_argument("--zh", default="names-zh", help="the bundle's task for Chinese")
    options = parser.parse_args()
    text = POLICY.format(en=json.dumps(options.en), zh=json.dumps(options.zh))
    policy = PolicyGuards.from_toml(text, where="safety.toml")
    rules = PolicyGuards.from_toml("", where="safety.toml")
    pipeline = Pipeline.open(open_bundle(options.bundle), guard=policy)
    sets: dict[str, Any] = {}
    for name, (rows, renamed) in sets_of(options.data_root).items():
        sets[name] = {
            "rules": measure(None, rules, rows, renamed),
            "model": measure(pipeline, policy, rows, renamed),
        }
        figures = sets[name]["model"]["personal_data"]
        print(name, len(rows), figures)
    pipeline.close()
    manifest = pipeline.bundle.manifest
    load = [round(value, 1) for value in os.getloadavg()]
    result = {
        "machine": {"cpu": platform.processor(), "n_cores": os.cpu_count(), "load_average": load},
        "bundle": {"name": manifest.name, "version": manifest.version},
        "policy": text,
        "sets": sets,
    }
    written = json.dumps(result, indent=1, ensure_ascii=False)
    options.out.write_text(f"{written}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

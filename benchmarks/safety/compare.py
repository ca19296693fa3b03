"""Our filter beside Presidio, better-profanity and alt-profanity-check: same texts, one run.

    python -m venv PEERS && PEERS/bin/pip install -r benchmarks/safety/requirements.txt
    PYTHONPATH=. .venv/bin/python benchmarks/safety/compare.py --data-root DATA \\
        --peers-python PEERS/bin/python --out compare.json --markdown compare.md

Presidio takes the spaCy model en_core_web_sm, which requirements.txt names, where the peers'
environment has it, else its pattern recognizers work alone; the row says which. A peer that is not
there has no row, and is named. Ours is the default policy without a model: rules and word list.
Times are processor time of a text, median; on a machine with other work compare them with each
other only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.personal_data import TYPES
from benchmarks.safety.cases import Case, hard_negatives, obfuscated, planted
from benchmarks.safety.measure import ROUNDS, SEED, scores
from benchmarks.safety.peers import timed
from instructrec_deploy import __version__
from instructrec_deploy.evaluation.metrics import macro_f1_of
from instructrec_deploy.evaluation.safety import auc
from instructrec_deploy.safety.guard import Guard

PEERS = Path(__file__).with_name("peers.py")
ABUSE = frozenset(("threat", "harassment", "profanity"))
PERSONAL, CONTENT = ("presidio",), ("better-profanity", "alt-profanity-check")
DECIDED_FROM = 0.5  # alt-profanity-check's own threshold


Texts = dict[str, list[str]]  # by the set's name


@dataclass(frozen=True, slots=True)
class Run:
    """What a filter found in the texts of a set. `us`: processor time of a text, median."""

    about: str
    us: float
    found: list[Any]


def ours(sets: Texts, read: Callable[[Any], Any]) -> dict[str, Run]:
    """This project's filter, by set."""
    guard = Guard()
    about = f"instructrec {__version__} (rules and word list)"
    return {
        name: Run(
            about, **timed(lambda text: read(guard.check_input(text).verdict.findings), texts)
        )
        for name, texts in sets.items()
    }


def peer(python: Path, name: str, sets: Texts) -> dict[str, Run]:
    """Another filter, by set; none, and a word on standard error, where it is not installed."""
    done = subprocess.run(
        [python, PEERS, name], input=json.dumps(sets), capture_output=True, text=True, check=False
    )
    answer = json.loads(done.stdout) if done.returncode == 0 else {"missing": done.stderr[-300:]}
    if "missing" in answer:
        print(f"{name} is left out, it lacks: {answer['missing']}", file=sys.stderr)
        return {}
    return {key: Run(answer["about"], **one) for key, one in answer["sets"].items()}


def by_set(python: Path, names: tuple[str, ...], sets: Texts, read: Any) -> dict[str, list[Run]]:
    """The runs of ours and of the peers that are there."""
    found = [ours(sets, read), *(peer(python, name, sets) for name in names)]
    return {name: [runs[name] for runs in found if name in runs] for name in sets}


def personal(findings: Any) -> list[tuple[str, int, int]]:
    """Spans of personal data of a verdict."""
    return [(f.category, f.start, f.end) for f in findings if f.category.isupper()]


def abusive(findings: Any) -> float:
    """1 where the verdict has abuse, else 0."""
    return float(any(f.category in ABUSE for f in findings))


def synthetic(path: Path) -> list[Case]:
    """All rows of presidio_synth, with the structured types that both know."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = list(map(json.loads, lines))
    return [
        Case(
            row["text"],
            "en",
            tuple(
                (TYPES[v["type"]], v["start"], v["end"])
                for v in row["target"]
                if v["type"] in TYPES
            ),
        )
        for row in rows
    ]


def personal_sets(data: Path, n_rounds: int) -> dict[str, list[Case]]:
    """Cases by the set's name."""
    cases = planted(SEED, n_rounds)
    return {
        "personal data, English": [case for case in cases if case.lang == "en"],
        "personal data, Chinese": [case for case in cases if case.lang == "zh"],
        "hard negatives": hard_negatives(SEED + 1, n_rounds),
        "obfuscated": [c for some in obfuscated(SEED + 2, n_rounds).values() for c in some],
        "presidio_synth": synthetic(data / "pii/presidio_synth.jsonl.gz"),
    }


def content_sets(data: Path) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Label of abuse and rows by the set's name: test rows; COLD has validation rows only."""
    files = (("tweet_offensive", "test", "offensive"), ("cold", "val", "冒犯"))
    found = {}
    for name, split, label in (*files, ("hatecheck_half", "test", "hateful")):
        with gzip.open(data / f"safety/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            found[name] = label, [row for row in map(json.loads, lines) if row["split"] == split]
    return found


def drawn(rows: list[Any], n: int) -> list[Any]:
    """At most n of them, the same in each run."""
    return rows if not n or len(rows) <= n else random.Random(SEED).sample(rows, n)


def personal_figures(name: str, cases: list[Case], run: Run) -> dict[str, float]:
    """F1, recall and leaked values; of hard negatives the share that is hit."""
    found = [[(kind, start, end) for kind, start, end in some] for some in run.found]
    if name == "hard negatives":
        return {"hit": round(sum(map(bool, found)) / len(found), 4)}
    if name == "presidio_synth":
        known = frozenset(TYPES.values())
        found = [[span for span in some if span[0] in known] for some in found]
    return {k: v for k, v in scores(cases, found).items() if k != "n"}


def content_figures(is_abuse: np.ndarray, run: Run) -> dict[str, float]:
    """Macro F1 of flagged against not, and the area under the curve."""
    values = np.array(run.found)
    flagged = values >= DECIDED_FROM
    area = auc(is_abuse, values, n_resamples=0).value
    return {
        "macro_f1": round(macro_f1_of([*map(str, is_abuse)], [*map(str, flagged)]), 4),
        "auc": round(area, 4),
    }


def measure(data: Path, python: Path, n_rows: int, n_rounds: int) -> dict[str, Any]:
    """All sets: figures, time and number of texts of each filter."""
    result: dict[str, Any] = {}
    cases = {n: drawn(some, n_rows) for n, some in personal_sets(data, n_rounds).items()}
    texts = {name: [case.text for case in some] for name, some in cases.items()}
    for name, runs in by_set(python, PERSONAL, texts, personal).items():
        result[name] = [row(run, personal_figures(name, cases[name], run)) for run in runs]
    labelled = {n: (label, drawn(rows, n_rows)) for n, (label, rows) in content_sets(data).items()}
    texts = {name: [one["text"] for one in rows] for name, (_, rows) in labelled.items()}
    for name, runs in by_set(python, CONTENT, texts, abusive).items():
        label, rows = labelled[name]
        is_abuse = np.array([one["target"] == label for one in rows])
        result[name] = [row(run, content_figures(is_abuse, run)) for run in runs]
    return result


def row(run: Run, figures: dict[str, float]) -> dict[str, Any]:
    """A filter's row of a set."""
    return {"filter": run.about, "us": run.us, "n": len(run.found), "figures": figures}


def markdown(sets: dict[str, Any]) -> str:
    """A table with a row for each set and filter."""
    lines = ["| set | filter | n | figures | µs a text |", "|---|---|---|---|---|"]
    for name, rows in sets.items():
        for one in rows:
            figures = ", ".join(f"{key} {value:.3f}" for key, value in one["figures"].items())
            lines.append(f"| {name} | {one['filter']} | {one['n']} | {figures} | {one['us']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--peers-python", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=0, help="of each set at most; 0: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of made-up cases")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if not options.peers_python.is_file():
        parser.error(f"no {options.peers_python}: make the peers' environment, see above")
    sets = measure(options.data_root, options.peers_python, options.rows, options.rounds)
    machine = {"python": platform.python_version(), "load_1m": round(os.getloadavg()[0], 1)}
    result = {"seed": SEED, "rows": options.rows, "rounds": options.rounds}
    result |= {"sets": sets, "machine": machine}
    options.out.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", "utf-8")
    table = markdown(sets)
    print(table, end="")
    if options.markdown:
        options.markdown.write_text(table, "utf-8")


if __name__ == "__main__":
    main()

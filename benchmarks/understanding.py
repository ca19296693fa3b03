"""What one bundle understands, task by task: trained labels, labels never seen, spans, rankings.

    .venv/bin/python benchmarks/understanding.py BUNDLE --lang en --data-root DATA \\
        --out benchmarks/results/understanding-en.json [--only banking77 ...]

Each line is one data set, asked as a caller would ask: by a task of the bundle, or, where the
bundle was not tuned on it, by an instruction with candidates of its own (the default wording of a
shipped family, and the wording that is held out). The split is the test split; where a set has
none, its validation split; else the tenth of rows with the least hash of the id.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.asking import Asked, Asker, open_asker
from instructrec_deploy.cli.evaluate import measure_rows
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate
from instructrec_deploy.core.wordings import find_family
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.requests import read_items
from instructrec_deploy.evaluation.targets import kind_of, labels_of
from instructrec_training.data import held_out_labels, in_validation

Pick = Callable[[Sequence[Example]], list[Example]]
OUTSIDE = "out of scope"  # CLINC's word for what fits no intent
N_OFFERED = 5  # relations to choose from where none was trained on


def unseen_intents(rows: Sequence[Example]) -> list[Example]:
    """Rows of the 30 intents that the recipes leave out."""
    unseen = held_out_labels({str(row.target) for row in rows} - {OUTSIDE}, 30)
    return [row for row in rows if row.target in unseen]


def offered_relations(rows: Sequence[Example]) -> list[Example]:
    """Each row with its own relation among five, the others drawn by its place in the file."""
    words = find_family("relation").en.descriptions
    labels = labels_of(rows)
    found = []
    for place, row in enumerate(rows):
        others = [label for label in labels if label != row.target]
        step = 1 + place % (len(others) - 1)
        drawn = [others[(place + n * step) % len(others)] for n in range(len(others))]
        offered = sorted([str(row.target), *dict.fromkeys(drawn)][:N_OFFERED], key=str)
        named = [{"label": label, "description": words.get(label, label)} for label in offered]
        found.append(replace(row, extra={**row.extra, "candidates": named}))
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """One data set and how it is asked."""

    name: str
    path: str
    figure: str  # of the evaluation
    must: float | None = None
    aim: float | None = None
    task: str = ""  # of the bundle; "": asked by `family`, with candidates of its own
    family: str = ""
    pick: Pick = field(default=list)
    none_label: str = ""
    items: str = ""


ENGLISH = (
    Line("banking77, never trained on", "classification/banking77", "accuracy", 0.63, 0.72,
         family="intent-banking"),
    Line("clinc, 30 unseen intents", "classification/clinc105", "accuracy", 0.78, 0.85,
         family="intent-assistant", pick=unseen_intents),
    Line("tweet offensive", "safety/tweet_offensive", "macro_f1", 0.75, 0.795, task="offensive"),
    Line("tweet emotion", "classification/tweet_emotion", "accuracy", task="emotion"),
    Line("tweet irony", "classification/tweet_irony", "accuracy", task="irony"),
    Line("tweet sentiment", "classification/tweet_sentiment", "accuracy", task="sentiment"),
    Line("fewrel, 16 relations", "relation/fewrel_wiki16", "accuracy", 0.80, 0.90,
         task="relation"),
    Line("fewrel nyt, unseen, one of 5", "relation/fewrel_nyt", "accuracy", 0.40, 0.60,
         task="relation", pick=offered_relations),
    Line("crossner politics", "ner/crossner_politics", "entity_f1", 0.50, 0.65,
         task="entities-politics"),
    Line("crossner science", "ner/crossner_science", "entity_f1", task="entities-science"),
    Line("wnut17", "ner/wnut17", "entity_f1", 0.30, 0.42, task="entities"),
    Line("crossner music, unseen domain", "ner/crossner_music", "entity_f1", 0.30, 0.45,
         family="entities-music"),
    Line("xquad", "qa/xquad_en", "f1", 0.45, 0.65, task="questions"),
    Line("movielens", "recommendation/movielens_small", "hr@10", 0.50, 0.60, task="films",
         items="recommendation/movielens_items"),
)  # fmt: skip
CHINESE = (
    Line("eprstmt, never trained on", "classification/eprstmt", "accuracy", 0.82, 0.88,
         family="review-sentiment"),
    Line("tnews, never trained on", "classification/tnews", "accuracy", 0.52, 0.58,
         family="news-topic"),
    Line("cold", "safety/cold", "macro_f1", 0.83, 0.87, task="offensive-zh"),
    Line("cmrc", "qa/cmrc2018_dev", "f1", 0.45, 0.65, task="questions-zh"),
    Line("weibo", "ner/weibo", "entity_f1", task="entities-zh"),
    Line("bustm, pairs", "classification/bustm", "accuracy", task="same-meaning-zh"),
)  # fmt: skip


def rows_of(line: Line, root: Path) -> tuple[list[Example], str]:
    """The rows to measure on, and what they are."""
    rows = read_examples(root / f"{line.path}.jsonl.gz")
    for split in ("test", "val"):
        found = [row for row in rows if row.split == split]
        if found:
            return line.pick(found), split
    return line.pick([row for row in rows if in_validation(row.id, 0.1)]), "tenth by hash"


def asked_of(line: Line, lang: str, rows: Sequence[Example], root: Path) -> dict[str, Asked]:
    """How the rows are asked, by name of the wording."""
    kind = kind_of(rows[0]).value
    if line.task:
        return {"task": Asked(task=line.task, kind=kind)}
    words = find_family(line.family).wordings(lang)
    labels = labels_of(
        rows if line.pick is not list else read_examples(root / f"{line.path}.jsonl.gz")
    )
    candidates = tuple(Candidate(label, words.descriptions.get(label, "")) for label in labels)
    return {
        "default": Asked(words.wordings[0], candidates, kind=kind),
        "held out": Asked(words.held_out, candidates, kind=kind),
    }


def measure(line: Line, lang: str, asker: Asker, root: Path) -> dict[str, Any]:
    """The figure under each wording, with its interval."""
    rows, split = rows_of(line, root)
    items = read_items(root / f"{line.items}.jsonl.gz") if line.items else None
    if items:  # the bundle counted popularity in training rows; the file's counts know the answers
        items = {name: replace(item, prior=0.0) for name, item in items.items()}
    told: dict[str, Any] = {"set": line.name, "path": line.path, "split": split, "n": len(rows)}
    told |= {"figure": line.figure, "must": line.must, "aim": line.aim}
    for name, asked in asked_of(line, lang, rows, root).items():
        found = measure_rows(rows, asked, asker, items, none_label=line.none_label, seed=0)
        values = found.to_dict()
        keys = (line.figure, f"{line.figure}_interval", "ndcg@10", "exact_match")
        told[name] = {key: values[key] for key in keys if key in values}
        told[name] |= {"n_errors": values["n_errors"], "texts_per_s": values["texts_per_s"]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--lang", choices=("en", "zh"), default="en")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the sets' names")
    args = parser.parse_args()
    lines = ENGLISH if args.lang == "en" else CHINESE
    chosen = [x for x in lines if not args.only or any(part in x.name for part in args.only)]
    results = []
    with open_asker(args.bundle, "") as asker:
        tasks = {task.name for task in asker.tasks()}
        for line in chosen:
            if line.task and line.task not in tasks:
                continue
            begun = time.monotonic()
            told = measure(line, args.lang, asker, args.data_root)
            results.append(told)
            print(json.dumps(told, ensure_ascii=False), f"{time.monotonic() - begun:.0f} s")
    facts = {"bundle": args.bundle.name, "machine": platform.machine(), "results": results}
    args.out.write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

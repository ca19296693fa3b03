"""What entities, questions and rankings in one mixture cost its labels.

    .venv/bin/python benchmarks/mixture.py --data-root DATA --work build/mixture \\
        --whole benchmarks/results/understanding-en.json --out benchmarks/results/mixture.json

Trains the recipe again without its tasks of spans and rankings, exports it in int8 and measures
the sets of labels as `understanding.py` did for the whole recipe, whose results --whole names.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from understanding import ENGLISH, Line, measure

from instructrec_deploy.cli.asking import open_asker
from instructrec_deploy.cli.server_process import verb_command
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_training.recipe import Recipe, read_recipe
from instructrec_training.run import train


def labels_alone(recipe: Recipe) -> Recipe:
    """The recipe without tasks of spans and rankings; everything else stays as it is."""
    tasks = {
        name: task
        for name, task in recipe.tasks.items()
        if SHAPES[task.kind] is Shape.CLASSIFY and task.kind is not TaskKind.RANKING
    }
    data = tuple(part for part in recipe.data if part.task in tasks)
    return Recipe.model_validate(
        recipe.model_dump() | {"name": f"{recipe.name}-labels", "tasks": tasks, "data": data}
    )


def points(told: dict[str, Any]) -> dict[str, float]:
    """The figure in percent, by wording."""
    figure = told["figure"]
    return {
        wording: round(100.0 * float(told[wording][figure]), 2)
        for wording in ("task", "default", "held out")
        if wording in told
    }


def compare(alone: list[dict[str, Any]], whole: list[dict[str, Any]]) -> dict[str, Any]:
    """Each set under each wording, and the mean of what the mixture costs."""
    known = {told["set"]: points(told) for told in whole}
    rows = []
    for told in alone:
        mixed = known[told["set"]]
        for wording, value in points(told).items():
            row = {"set": told["set"], "figure": told["figure"], "wording": wording}
            row |= {"labels_alone": value, "whole": mixed[wording]}
            rows.append(row | {"cost": round(value - mixed[wording], 2)})
    return {"mean_cost": round(statistics.fmean(row["cost"] for row in rows), 2), "rows": rows}


def main() -> None:
    """Train, export, measure, compare and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="all-en")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--whole", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    recipe = labels_alone(read_recipe(args.recipe))
    run, bundle = args.work / "run", args.work / "bundle"
    if not (run / "evaluation.json").is_file():
        train(recipe, run, data_root=args.data_root, resume=run.is_dir())
    if not (bundle / "bundle.json").is_file():
        words = ("export", str(run), "--out", str(bundle), "--precision", "int8")
        subprocess.run(verb_command(*words), check=True)
    lines: list[Line] = [x for x in ENGLISH if not x.task or x.task in recipe.tasks]
    with open_asker(bundle, "") as asker:
        alone = [
            measure(line, "en", asker, args.data_root)
            for line in lines
            if line.figure in ("accuracy", "macro_f1")
        ]
    whole = json.loads(args.whole.read_text(encoding="utf-8"))["results"]
    told = compare(alone, whole)
    print(json.dumps(told, indent=2))
    args.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

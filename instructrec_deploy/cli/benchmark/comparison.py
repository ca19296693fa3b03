"""`instructrec bench --compare`: from the command line to the files that are written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from instructrec_deploy.cli.benchmark.cells import make_cells
from instructrec_deploy.cli.benchmark.compare import WHAT, ComparePlan, run_compare
from instructrec_deploy.cli.benchmark.compare_tables import to_markdown
from instructrec_deploy.cli.benchmark.pareto import draw_pareto, load_figure
from instructrec_deploy.cli.benchmark.regression import (
    find_regressions,
    not_compared,
    read_earlier,
)
from instructrec_deploy.cli.benchmark.runners import check_task
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.cli.benchmark.variants import Variant, list_variants
from instructrec_deploy.cli.report import check_writable, say
from instructrec_deploy.cli.serve import parse_settings
from instructrec_deploy.cli.shipped import find_data
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError, RegressionFound
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import describe_faults
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.runtime.engine import EngineSettings, refuse_writer
from instructrec_deploy.runtime.providers import available_cores

CELL_S = 0.1
MIN_LENGTH = 8  # control tokens and some of a text
THREADS = (1, 2)
MIN_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked on the command line."""

    bundles: Sequence[Path]
    data: str
    checkpoint: Path | None
    task: str
    split: str
    limit: int
    threads: str
    batches: str
    lengths: str
    n_rounds: int
    seconds: float | None
    n_starts: int
    settings: Sequence[str]

    def plan(self, work: Path) -> ComparePlan:
        """What is to be measured.

        Args:
            work: a folder for graphs that are made for the comparison.

        Raises:
            ConfigError: numbers that are none, one round alone, or settings that are not of the
                engine.
            InstructRecError: a bundle, a run or the data is not usable.
        """
        if self.n_rounds < MIN_ROUNDS:
            raise ConfigError(
                f"--rounds {self.n_rounds}: intervals come from what rounds differ by",
                hint=f"--compare takes {MIN_ROUNDS} or more; five where a difference matters",
            )
        first = open_bundle(self.bundles[0])
        refuse_writer(first)
        instruction = first.instruction(self.task)
        check_task(instruction)
        window = first.manifest.model.max_tokens
        lengths = [n for n in _numbers("--lengths", self.lengths, MIN_LENGTH) if n <= window]
        settings = _engine_settings(self.settings)
        examples = self._examples()
        cells = make_cells(_numbers("--batches", self.batches, 1), lengths)
        threads = _numbers("--threads", self.threads, 1) if self.threads else _usual_threads()
        variants: list[Variant] = list_variants(self.bundles, checkpoint=self.checkpoint, work=work)
        return ComparePlan(
            variants=variants,
            instruction=instruction,
            examples=examples,
            cells=cells,
            threads=threads,
            has_labels=bool(self.data),
            max_tokens=window,
            n_rounds=self.n_rounds,
            seconds=self.seconds or CELL_S,
            n_starts=self.n_starts,
            settings=settings,
        )

    def _examples(self) -> list[Example]:
        if not self.data:
            return [Example(text, None) for text in load_texts()]
        rows = read_examples(find_data(self.data), self.split)
        return rows[: self.limit] if self.limit else rows


def compare(
    asked: Asked, *, out: Path | None, against: Path | None, has_plot: bool, as_json: bool
) -> None:
    """Measure, write JSON, Markdown and the plot side by side, print one of them.

    Args:
        out: the JSON file; what else is written lies beside it.
        against: an earlier JSON file.
        has_plot: draw the plot, too.

    Raises:
        ConfigError: a plot without a place for it.
        RegressionFound: something is worse than in `against`; what was measured is written before.
    """
    files = [] if out is None else [out, *map(out.with_suffix, (".md", ".png", ".svg"))]
    if has_plot:
        load_figure()
        if out is None:
            raise ConfigError("--plot goes beside the figures", hint="--out FILE.json")
    for file in files if has_plot else files[:2]:
        check_writable(file)
    earlier = None if against is None else read_earlier(against, what=WHAT)
    with tempfile.TemporaryDirectory(prefix="instructrec-compare-") as folder:
        result = run_compare(asked.plan(Path(folder)), Path(folder), say=say)
    result["settings"]["data"] = Path(asked.data).name if asked.data else "shipped texts"
    table = to_markdown(result)
    if out is not None:
        out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        files[1].write_text(table, encoding="utf-8")
        if has_plot:
            draw_pareto(result, out)
        say(f"figures written to {out}; beside it: {'.md, .png, .svg' if has_plot else '.md'}")
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else table)
    if earlier is not None:
        check_regressions(result, earlier)


def check_regressions(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Say what is not compared with the earlier result.

    Raises:
        RegressionFound: something is worse.
    """
    for line in not_compared(result, earlier):
        say(line)
    worse = find_regressions(result, earlier)
    if worse:
        raise RegressionFound(
            f"worse than before: {'; '.join(worse)}",
            hint="measure again with more --rounds; if it stays, look for the change",
        )
    say("nothing is worse than before")


def _numbers(option: str, words: str, least: int) -> list[int]:
    try:
        found = [int(word) for word in words.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < least or len(set(found)) < len(found):
        raise ConfigError(
            f"{option} takes different whole numbers of at least {least}, with commas between",
            hint=f"for example {option} {least},{2 * least}",
        )
    return found


def _usual_threads() -> list[int]:
    n_cores = available_cores()
    return [n for n in THREADS if n <= n_cores]


def _engine_settings(words: Sequence[str]) -> Mapping[str, Any]:
    """Settings of `[engine]` that hold for every bundle and leave runtime and layout free."""
    found = parse_settings(list(words))
    values = found.pop("engine", {})
    taken = sorted({"runtime", "n_lanes", "threads_per_lane"} & set(values))
    if found or taken:
        strange = taken[0] if taken else next(iter(found))
        raise ConfigError(
            f"--compare does not take the setting {strange}",
            hint="it goes through runtimes and threads itself, and starts no server; "
            "--set engine.use_spinning=true is one that it takes",
        )
    try:
        return EngineSettings.model_validate(values).model_dump(include=set(values))
    except ValidationError as error:
        raise ConfigError(f"engine.{describe_faults(error)}", hint="see docs/engines.md") from error

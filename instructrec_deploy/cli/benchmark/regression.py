"""A comparison against an earlier one: what got slower, worse or larger beyond the noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.benchmark.answers import unpack_hits
from instructrec_deploy.cli.benchmark.compare_tables import SPEEDS
from instructrec_deploy.core.bundle import read_text
from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.evaluation.paired import compare_paired

LARGER = 1.01  # a size on disk that grew by less is no news
SLACK = 1.05  # start and memory: the spread of a few starts is not all there is
SAME_ROWS = ("task", "n_rows", "rows_sha256")
ON_MACHINE = {"start_s": ("start", "s"), "idle_memory_mb": ("memory at rest", "MB")}


def read_earlier(path: Path, *, what: str) -> dict[str, Any]:
    """The JSON of an earlier comparison.

    Raises:
        FileMissing: no such file.
        ConfigError: it is none.
    """
    if not path.is_file():
        raise FileMissing(f"no earlier result {path}", hint="--against takes a file of --out")
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON", hint="name a file of --out") from error
    if not isinstance(found, dict) or found.get("what") != what or not found.get("variants"):
        raise ConfigError(
            f"{path} is no result of a comparison", hint="name what --compare --out wrote"
        )
    return found


def find_regressions(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """What is worse than before, one line each; empty where nothing is.

    A speed counts as lower where the intervals of the ratios lie apart; an accuracy where the
    paired interval of what was lost lies above nothing (of the same rows; of others: where the
    intervals lie apart). Speed is compared where the baseline is the same, start and memory on the
    same machine. What that leaves out, `not_compared` tells.

    Raises:
        ConfigError: no variant stands in both.
    """
    before = {one["name"]: one for one in earlier["variants"]}
    pairs = [(one, before[one["name"]]) for one in result["variants"] if one["name"] in before]
    if not pairs:
        raise ConfigError(
            "the earlier result has none of these variants",
            hint="variants go by their folder's name: keep it",
        )
    found: list[str] = []
    has_same_rows = all(result["settings"][k] == earlier["settings"][k] for k in SAME_ROWS)
    for now, then in pairs:
        lines = [*_larger(now, then)]
        if result["baseline"] == earlier["baseline"]:
            lines += _slower(now, then)
        lines += _less_accurate(now["answers"], then["answers"], has_same_rows=has_same_rows)
        if _machine(result) == _machine(earlier):
            lines += _heavier(now, then)
        found += [f"{now['name']}: {line}" for line in lines]
    return found


def not_compared(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """What the comparison with the earlier result leaves out, in words."""
    names = {one["name"] for one in result["variants"]}
    left = [one["name"] for one in earlier["variants"] if one["name"] not in names]
    told = [f"not measured this time: {name}" for name in left]
    if result["baseline"] != earlier["baseline"]:
        told.append("speeds are not compared: the baseline is another one")
    if _machine(result) != _machine(earlier):
        told.append("start and memory are not compared: the machine is another one")
    return told


def _slower(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    for group, title in SPEEDS.items():
        if group in now["speed"] and group in then["speed"]:
            new, old = now["speed"][group], then["speed"][group]
            if new["interval"][1] < old["interval"][0]:
                yield (
                    f"{title} {new['ratio']:.2f} x {_range(new['interval'])} "
                    f"after {old['ratio']:.2f} x {_range(old['interval'])}"
                )


def _less_accurate(
    now: Mapping[str, Any], then: Mapping[str, Any], *, has_same_rows: bool
) -> Iterator[str]:
    if "hits" in now and "hits" in then:
        words = f"accuracy {100 * now['accuracy']:.2f} % after {100 * then['accuracy']:.2f} %"
        if has_same_rows:
            paired = compare_paired(
                unpack_hits(then["hits"], then["n"]), unpack_hits(now["hits"], now["n"])
            )
            if paired.loss.low > 0:
                lost = _range((paired.loss.low, paired.loss.high))
                yield f"{words}, {paired.loss.value:.2f} points {lost}"
        elif now["accuracy_interval"][1] < then["accuracy_interval"][0]:
            yield words
    if has_same_rows and now["n_other_in_batch"] > then["n_other_in_batch"]:
        yield (
            f"{now['n_other_in_batch']} labels change in a batch after {then['n_other_in_batch']}"
        )


def _larger(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    if now["size_bytes"] > LARGER * then["size_bytes"]:
        yield f"{now['size_mb']:.1f} MB on disk after {then['size_mb']:.1f} MB"


def _heavier(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    for name, (title, unit) in ON_MACHINE.items():
        if now[name]["min"] > SLACK * then[name]["max"]:
            new, old = now[name]["median"], then[name]["median"]
            yield f"{title} {new:.2f} {unit} after {old:.2f} {unit}"


def _machine(result: Mapping[str, Any]) -> tuple[Any, ...]:
    return result["machine"]["cpu"], result["machine"]["n_cores"]


def _range(interval: tuple[float, float] | list[float]) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]"

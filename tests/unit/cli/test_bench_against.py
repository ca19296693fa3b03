"""`bench --compare`: the frontier, its picture, and the check against an earlier result."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.cli.benchmark.answers import pack_hits
from instructrec_deploy.cli.benchmark.compare import WHAT
from instructrec_deploy.cli.benchmark.comparison import check_regressions
from instructrec_deploy.cli.benchmark.figures import machine_facts, spread
from instructrec_deploy.cli.benchmark.pareto import (
    draw_pareto,
    mark_front,
    pareto_front,
    quality_of,
)
from instructrec_deploy.cli.benchmark.regression import (
    find_regressions,
    not_compared,
    read_earlier,
)
from instructrec_deploy.core.errors import ConfigError, FileMissing, RegressionFound
from tests.unit.cli.conftest import Run

N = 200
Change = Callable[[dict[str, Any]], None]


def ratio(value: float) -> dict[str, Any]:
    return {"ratio": value, "interval": [round(0.97 * value, 4), round(1.03 * value, 4)]}


def variant(model: str, *, speed: float, n_wrong: int, size_mb: float) -> dict[str, Any]:
    accuracy = 1 - n_wrong / N
    return {
        "name": f"{model}, ONNX Runtime int8",
        "model": model,
        "engine": "onnxruntime",
        "precision": "int8",
        "size_bytes": int(1e6 * size_mb),
        "size_mb": size_mb,
        "start_s": spread([0.5, 0.52, 0.51]),
        "idle_memory_mb": spread([100.0, 101.0, 100.5]),
        "peak_memory_mb": 150.0,
        "answers": {
            "n": N,
            "same_label": 0.99,
            "n_other_in_batch": 0,
            "accuracy": accuracy,
            "accuracy_interval": [accuracy - 0.02, accuracy + 0.02],
            "loss_points": 100.0 * n_wrong / N,
            "loss_interval": [0.0, 200.0 * n_wrong / N],
            "hits": pack_hits([False] * n_wrong + [True] * (N - n_wrong)),
        },
        "speed": {"fixed": ratio(speed), "real": ratio(1.1 * speed)},
        "cells": [],
    }


@pytest.fixture
def result() -> dict[str, Any]:
    variants = [
        variant("stock", speed=1.0, n_wrong=10, size_mb=24.0),
        variant("fast", speed=2.0, n_wrong=10, size_mb=12.0),
        variant("good", speed=0.8, n_wrong=4, size_mb=90.0),
    ]
    mark_front(variants)
    return {
        "what": WHAT,
        "machine": machine_facts(),
        "settings": {"task": "intent", "n_labels": 7, "n_rows": N, "rows_sha256": "1234"},
        "baseline": variants[0]["name"],
        "reference": variants[2]["name"],
        "variants": variants,
    }


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_beats_all_others_and_nothing_beats_it(points: list[tuple[int, int]]) -> None:
    front = [points[i] for i in pareto_front(points)]
    for one in points:
        beaten = [o for o in front if o != one and o[0] >= one[0] and o[1] >= one[1]]
        assert bool(beaten) != (one in front)


def test_a_slower_and_worse_variant_is_not_on_the_front(result: dict[str, Any]) -> None:
    assert [one["is_on_front"] for one in result["variants"]] == [False, True, True]


def test_without_labels_the_quality_is_how_many_are_the_references() -> None:
    assert quality_of({"answers": {"same_label": 0.98}})[0] == pytest.approx(-2.0)


def test_an_equal_result_is_no_regression(result: dict[str, Any]) -> None:
    assert find_regressions(result, copy.deepcopy(result)) == []
    assert not_compared(result, copy.deepcopy(result)) == []


def slower(one: dict[str, Any]) -> None:
    one["speed"]["fixed"] = ratio(1.8)


def a_little_slower(one: dict[str, Any]) -> None:
    one["speed"]["fixed"] = ratio(1.93)


def worse(one: dict[str, Any]) -> None:
    one["answers"]["hits"] = pack_hits([False] * 20 + [True] * (N - 20))
    one["answers"]["accuracy"] = 0.9


def otherwise_wrong(one: dict[str, Any]) -> None:
    one["answers"]["hits"] = pack_hits([True] * (N - 11) + [False] * 11)
    one["answers"]["accuracy"] = 1 - 11 / N


def larger(one: dict[str, Any]) -> None:
    one["size_bytes"], one["size_mb"] = 13_000_000, 13.0


def dependent(one: dict[str, Any]) -> None:
    one["answers"]["n_other_in_batch"] = 3


def late(one: dict[str, Any]) -> None:
    one["start_s"] = spread([0.8, 0.9, 0.8])


def heavy(one: dict[str, Any]) -> None:
    one["idle_memory_mb"] = spread([130.0, 131.0, 132.0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (slower, r"fixed lengths 1\.80 x \[1\.75, 1\.85\] after 2\.00 x"),
        (worse, r"accuracy 90\.00 % after 95\.00 %, 5\.00 points"),
        (larger, r"13\.0 MB on disk after 12\.0 MB"),
        (dependent, r"3 labels change in a batch after 0"),
        (late, r"start 0\.80 s after 0\.51 s"),
        (heavy, r"memory at rest 131\.00 MB after 100\.50 MB"),
        (a_little_slower, ""),
        (otherwise_wrong, ""),
    ],
)
def test_what_is_worse_beyond_the_noise_is_named(
    result: dict[str, Any], change: Change, words: str
) -> None:
    earlier = copy.deepcopy(result)
    change(result["variants"][1])
    found = find_regressions(result, earlier)
    if not words:
        assert found == []
        return
    assert len(found) == 1
    assert re.match(rf"fast, ONNX Runtime int8: {words}", found[0])
    with pytest.raises(RegressionFound, match="worse than before") as told:
        check_regressions(result, earlier)
    assert told.value.exit_code == 8


def test_other_rows_are_compared_by_their_intervals(result: dict[str, Any]) -> None:
    earlier = copy.deepcopy(result)
    worse(result["variants"][1])
    result["settings"]["rows_sha256"] = "5678"
    result["variants"][1]["answers"]["accuracy_interval"] = [0.88, 0.94]
    assert find_regressions(result, earlier) == []
    result["variants"][1]["answers"]["accuracy_interval"] = [0.88, 0.92]
    assert len(find_regressions(result, earlier)) == 1


def test_another_machine_and_baseline_are_said_and_not_judged(result: dict[str, Any]) -> None:
    earlier = copy.deepcopy(result)
    for change in (slower, late, heavy):
        change(result["variants"][1])
    result["machine"]["cpu"] = "another"
    result["baseline"] = result["variants"][1]["name"]
    earlier["variants"].append(variant("gone", speed=1.0, n_wrong=1, size_mb=1.0))
    assert find_regressions(result, earlier) == []
    assert [line.split(":")[0] for line in not_compared(result, earlier)] == [
        "not measured this time",
        "speeds are not compared",
        "start and memory are not compared",
    ]


def test_an_earlier_result_of_other_variants_is_refused(result: dict[str, Any]) -> None:
    earlier = copy.deepcopy(result)
    for one in earlier["variants"]:
        one["name"] = f"other {one['name']}"
    with pytest.raises(ConfigError, match="none of these variants"):
        find_regressions(result, earlier)


@pytest.mark.parametrize("content", ["{", "[]", '{"what": "something"}', '"\\ud800"'])
def test_a_file_that_is_no_earlier_result_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "earlier.json"
    with pytest.raises(FileMissing):
        read_earlier(file, what=WHAT)
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError):
        read_earlier(file, what=WHAT)


def test_an_earlier_result_is_read_before_anything_is_measured(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    done = run("bench", tiny_bundle, "--compare", "--against", tmp_path / "none.json")
    assert done.code == 3
    assert "no earlier result" in done.err


def test_the_picture_is_the_same_for_the_same_figures(
    result: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="extra plot")
    files = draw_pareto(result, tmp_path / "one.json")
    again = draw_pareto(json.loads(json.dumps(result)), tmp_path / "two.json")
    assert [file.name for file in files] == ["one.png", "one.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_bytes() == again[1].read_bytes()
    assert "fast" in files[1].read_text(encoding="utf-8")  # a comment beside each label's outlines


def test_a_plot_without_a_place_or_without_its_package_is_refused(
    run: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    done = run("bench", tiny_bundle, "--compare", "--plot")
    assert done.code == 7
    assert "instructrec-deploy[plot]" in done.err

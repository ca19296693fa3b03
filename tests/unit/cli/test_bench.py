"""What the benchmark computes, without running one."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.cli.bench import print_tables
from instructrec_deploy.cli.benchmark.figures import machine_facts, percentile, spread
from instructrec_deploy.cli.benchmark.load import Measured
from instructrec_deploy.cli.benchmark.measure import POINTS, Collected, summarize
from instructrec_deploy.cli.benchmark.texts import load_texts

FACTS = {
    "name": "bank",
    "version": "1",
    "size_bytes": 2_000_000,
    "model": {"kind": "instruction-encoder", "precision": "int8"},
}


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_lie_between_the_ends_and_rise(values: list[float]) -> None:
    found = [percentile(values, p) for p in (0, 50, 95, 100)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (min(values), max(values))
    assert found[1] == pytest.approx(statistics.median(values))


def test_the_spread_keeps_every_round() -> None:
    assert spread([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "min": 1.0,
        "max": 3.0,
        "rounds": [3.0, 1.0, 2.0],
    }


def test_throughput_is_given_as_a_share_of_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    one = Collected(Path("bundle"), FACTS, [0.8], [130.0], [1_000.0, 1_200.0, 800.0])
    one.mixed = [900.0, 600.0, 400.0]
    one.points = {
        name: [Measured(speed, [1.0, 2.0, 3.0], {}) for speed in (700.0, 600.0, 640.0)]
        for name in POINTS
    }
    summary = summarize(one)
    assert summary["points"]["unary_64"]["of_bound"]["rounds"] == [0.7, 0.5, 0.8]  # round by round
    assert summary["points"]["unary_64"]["p50_ms"] == 2.0
    assert summary["mixed_of_bound"]["rounds"] == [0.9, 0.5, 0.5]
    assert not summary["unpadded"]
    print_tables({"machine": machine_facts(), "bundles": [summary]})
    assert "64 callers" in capsys.readouterr().out


def test_the_shipped_texts_are_varied_and_in_both_languages() -> None:
    texts = load_texts()
    assert len(set(texts)) == len(texts) > 60
    chinese = [text for text in texts if any("一" <= c <= "鿿" for c in text)]
    assert 0.3 < len(chinese) / len(texts) < 0.7
    assert min(map(len, texts)) < 12
    assert max(map(len, texts)) > 200

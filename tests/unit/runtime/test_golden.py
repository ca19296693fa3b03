"""Golden pairs decide whether a bundle may answer on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import BundleError, GoldenFailed
from instructrec_deploy.core.request import Request
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.golden import GoldenReport, check_golden
from instructrec_deploy.runtime.pipeline import Outcome, Pipeline
from instructrec_deploy.runtime.predictor import Predictor
from tests.tiny import seal, write_tiny_bundle

ONE_LANE = EngineSettings(n_lanes=1, threads_per_lane=1, provider="cpu")
# The third line would be masked by the policy, and a line separator ends no line of the file.
TEXTS = ["I lost my card", "余额\u2028查询", "my phone 13800138000 🙂"]


@pytest.fixture
def rows(tiny_bundle: Path) -> list[dict[str, Any]]:
    with Predictor(tiny_bundle, engine=ONE_LANE, guard=False) as predictor:
        found = [
            (t, task, predictor.predict(t, task=task, top_k=0))
            for t in TEXTS
            for task in ("intent", "sentiment")
        ]
    return [
        {
            "text": text,
            "task": task,
            "label": p.label,
            "scores": {s.label: s.score for s in p.answers[0].scores},
        }
        for text, task, p in found
    ]


def check(root: Path, rows: list[dict[str, Any]]) -> GoldenReport:
    write_tiny_bundle(root, golden=rows)
    bundle = open_bundle(root)
    pipeline = Pipeline.open(bundle, engine=ONE_LANE)
    return check_golden(bundle, pipeline)


def test_a_bundle_that_answers_as_it_did_passes(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    report = check(tmp_path / "b", rows)
    assert (report.n_pairs, report.warnings) == (6, ())
    assert report.max_difference <= 1e-5


def test_an_empty_file_passes_with_a_warning(tmp_path: Path) -> None:
    report = check(tmp_path / "b", [])
    assert (report.n_pairs, len(report.warnings)) == (0, 1)


def test_all_lanes_share_the_pairs_and_faults_stay_in_their_order(
    tmp_path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in rows:
        row["label"] = "nonsense"
    bundle = open_bundle(write_tiny_bundle(tmp_path / "b", golden=rows))
    two = EngineSettings(n_lanes=2, threads_per_lane=1, provider="cpu")
    pipeline = Pipeline.open(bundle, engine=two)
    lanes, real = set(), pipeline.answer

    def answer(requests: Sequence[Request], *, lane: int, use_guard: bool) -> list[Outcome]:
        lanes.add(lane)
        return real(requests, lane=lane, use_guard=use_guard)

    monkeypatch.setattr(pipeline, "answer", answer)
    with pytest.raises(GoldenFailed, match=r"line 1.*line 2.*line 3.*line 4.*line 5"):
        check_golden(bundle, pipeline)
    assert lanes == {0, 1}


def test_another_label_fails(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows[1]["label"] = "negative" if rows[1]["label"] == "positive" else "positive"
    with pytest.raises(GoldenFailed, match="line 2: another label"):
        check(tmp_path / "b", rows)


def test_a_score_beyond_the_tolerance_fails_and_the_text_stays_unsaid(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    rows[5]["scores"]["positive"] += 0.01
    with pytest.raises(GoldenFailed, match="line 6") as caught:
        check(tmp_path / "b", rows)
    assert "13800138000" not in str(caught.value)


def test_a_label_the_answer_lacks_fails(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows[0]["scores"]["nonsense"] = 0.0
    with pytest.raises(GoldenFailed):
        check(tmp_path / "b", rows)


def test_a_pair_and_marks_are_asked_again_with_all_they_bring(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    bring: list[dict[str, Any]] = [
        {"text2": "余额 😊"},
        {"head": {"start": 0, "end": 1}, "tail": {"start": 2, "end": 6}},
    ]
    for row, more in zip(rows, bring, strict=False):
        row.update(more)
        with pytest.raises(GoldenFailed, match="line"):
            check(tmp_path / f"b{len(more)}", rows)
        for name in more:
            del row[name]


BARE = {"scores": {}, "text": "ab", "task": "", "label": ""}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"text": "a"}',
        json.dumps(BARE | {"text": 1}),
        json.dumps(BARE | {"text2": 1}),
        json.dumps(BARE | {"head": {"start": 0, "end": 1}}),
        json.dumps(BARE | {"head": {"start": 0, "end": 1}, "tail": {"start": 0, "end": 3}}),
    ],
)
def test_a_line_that_is_no_pair_is_refused(tmp_path: Path, line: str) -> None:
    root = write_tiny_bundle(tmp_path / "b")
    (root / "golden.jsonl").write_text(line + "\n")
    seal(root)
    bundle = open_bundle(root)
    with pytest.raises(BundleError):
        check_golden(bundle, Pipeline.open(bundle, engine=ONE_LANE))

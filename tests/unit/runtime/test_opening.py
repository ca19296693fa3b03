"""A bundle is opened in a thread; what is wrong with it is told to who asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import BundleError, FileMissing, GoldenFailed
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.engine import Engine
from instructrec_deploy.runtime.opening import begin_opening
from tests.tiny import write_tiny_bundle
from tests.unit.runtime.conftest import ONE_LANE


def test_an_opened_bundle_is_warm_and_answers(tiny_bundle: Path) -> None:
    pipeline, _ = begin_opening(tiny_bundle, engine=ONE_LANE).found.result()
    assert len(pipeline.cache) == 2
    (answer,) = pipeline.answer([Request("I lost my card")])
    assert isinstance(answer, Prediction)
    assert answer.label == "card lost"


def test_what_warming_took_is_given_back(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk: list[Engine] = []
    monkeypatch.setattr(Engine, "shrink", lambda engine: shrunk.append(engine))
    pipeline, _ = begin_opening(tiny_bundle, engine=ONE_LANE).found.result()
    assert shrunk == [pipeline.engine]


def test_a_missing_folder_fails_for_who_waits(tmp_path: Path) -> None:
    opening = begin_opening(tmp_path / "nowhere")
    with pytest.raises(FileMissing):
        opening.found.result()


def test_a_damaged_graph_is_found_by_its_hash_before_it_is_read(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path / "b")
    graph = root / "graphs/encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="damaged"):
        begin_opening(root).found.result()


def test_golden_pairs_that_fail_keep_a_bundle_from_being_opened(tmp_path: Path) -> None:
    wrong = {"text": "I lost my card", "task": "intent", "label": "refund", "scores": {}}
    root = write_tiny_bundle(tmp_path / "b", golden=[wrong])
    with pytest.raises(GoldenFailed):
        begin_opening(root, engine=ONE_LANE).found.result()

"""The engine: layout of lanes, what each kind of bundle gives, errors at load."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import BundleError, InternalError
from instructrec_deploy.core.memory import return_freed_memory
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.runtime.engine import Engine, EngineSettings, pad_rows
from tests.tiny import HIDDEN, LABELS, seal, write_tiny_bundle

ONE_LANE = EngineSettings(n_lanes=1, threads_per_lane=1, provider="cpu")


@pytest.mark.parametrize(
    ("n_cores", "layout"), [(1, (1, 1)), (2, (2, 1)), (8, (8, 1)), (16, (4, 4))]
)
def test_a_core_is_a_lane_until_cores_are_many(n_cores: int, layout: tuple[int, int]) -> None:
    assert EngineSettings().layout(n_cores) == layout


def test_a_layout_that_is_told_is_kept() -> None:
    assert EngineSettings(n_lanes=1).layout(2) == (1, 2)
    assert EngineSettings(n_lanes=3, threads_per_lane=5).layout(2) == (3, 5)


@pytest.mark.parametrize("how", [{}, {"use_sharing": False}, {"threads_per_lane": 2}])
def test_every_lane_answers_alike_whether_sessions_are_shared_or_not(
    tiny_bundle: Path, how: dict[str, Any]
) -> None:
    lanes = {"n_lanes": 2, "threads_per_lane": 1, "provider": "cpu"} | how
    engine = Engine(open_bundle(tiny_bundle), EngineSettings.model_validate(lanes))
    found = [engine.encode(*pad_rows([[2, 9, 10, 3]], 0), lane=lane).pooled for lane in (0, 1)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_engine_that_has_shrunk_answers_as_before(tiny_bundle: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    settings = EngineSettings.model_validate(ONE_LANE.model_dump() | {"runtime": runtime})
    engine = Engine(open_bundle(tiny_bundle), settings)
    batch = pad_rows([[2, 9, 10, 3]] * 3, 0)
    before = engine.encode(*batch).pooled
    engine.shrink()
    assert np.array_equal(engine.encode(*batch).pooled, before)


def test_a_shrunk_engine_holds_no_memory_of_its_largest_batch(tiny_bundle: Path) -> None:
    engine = Engine(open_bundle(tiny_bundle), ONE_LANE)
    engine.encode(*pad_rows([[2, *[9] * 60, 3]] * 2000, 0))  # tens of megabytes of states
    before = resident_bytes()
    engine.shrink()
    return_freed_memory()
    assert before - resident_bytes() > 10e6


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_rows_are_padded_to_the_longest() -> None:
    ids, mask = pad_rows([[5, 6, 7], [8]], 1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64


def test_an_instruction_encoder_gives_states_and_unit_vectors(tiny_bundle: Path) -> None:
    engine = Engine(open_bundle(tiny_bundle), ONE_LANE)
    encoding = engine.encode(*pad_rows([[2, 9, 10, 3], [2, 3]], 0))
    assert encoding.token_states is not None
    assert encoding.pooled is not None
    assert encoding.token_states.shape == (2, 4, HIDDEN)
    assert np.linalg.norm(encoding.pooled, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert encoding.rows([0, 1]) is encoding
    assert encoding.rows([1]).mask.tolist() == [[1, 1, 0, 0]]


def test_a_sequence_classifier_gives_logits(tiny_head_bundle: Path) -> None:
    engine = Engine(open_bundle(tiny_head_bundle), ONE_LANE)
    encoding = engine.encode(*pad_rows([[2, 9, 3]], 0))
    assert encoding.logits is not None
    assert encoding.logits.shape == (1, len(LABELS))
    with pytest.raises(InternalError):
        engine.score(encoding, np.zeros((2, HIDDEN), np.float32))


def test_without_fusion_the_score_is_the_scaled_cosine(tmp_path: Path) -> None:
    engine = Engine(open_bundle(write_tiny_bundle(tmp_path / "b", has_fusion=False)), ONE_LANE)
    encoding = engine.encode(*pad_rows([[2, 9, 3], [2, 11, 3]], 0))
    assert encoding.token_states is None
    assert encoding.pooled is not None
    scores = engine.score(encoding, encoding.pooled)
    assert np.diag(scores) == pytest.approx(engine.model.score_scale, rel=1e-5)
    assert engine.prepare_vectors(encoding.pooled, TaskKind.RELATION) == (None, None)


def test_only_kinds_that_want_the_fusion_get_it(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    model = bundle.manifest.model.model_copy(update={"fused_kinds": (TaskKind.RELATION,)})
    manifest = bundle.manifest.model_copy(update={"model": model})
    engine = Engine(replace(bundle, manifest=manifest), ONE_LANE)
    encoding = engine.encode(*pad_rows([[2, 9, 3], [2, 11, 3]], 0))
    assert encoding.pooled is not None
    vectors = encoding.pooled
    assert engine.prepare_vectors(vectors, TaskKind.CLASSIFICATION) == (None, None)
    cosines = engine.model.score_scale * vectors @ vectors.T
    assert engine.score(encoding, vectors) == pytest.approx(cosines, rel=1e-5)
    queries, values = engine.prepare_vectors(vectors, TaskKind.RELATION)
    fused = engine.score(encoding, vectors, queries, values)
    assert not np.allclose(fused, cosines, atol=1e-3)


def test_a_graph_that_fails_is_an_internal_error_without_the_input(tiny_bundle: Path) -> None:
    engine = Engine(open_bundle(tiny_bundle), ONE_LANE)
    with pytest.raises(InternalError) as caught:
        engine.encode(*pad_rows([[2, 987654, 3]], 0))
    assert "987654" not in str(caught.value)


def test_a_bundle_whose_encoder_gives_something_else_is_refused(
    tmp_path: Path, tiny_head_bundle: Path
) -> None:
    root = write_tiny_bundle(tmp_path / "b")
    (root / "graphs/encoder.onnx").write_bytes(
        (tiny_head_bundle / "graphs/encoder.onnx").read_bytes()
    )
    seal(root)
    with pytest.raises(BundleError):
        Engine(open_bundle(root), ONE_LANE)

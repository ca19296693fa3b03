"""Vectors that tuning added to the labels of a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.prepared import PreparedInstruction
from tests.tiny import HIDDEN, LABELS, SENTIMENTS, seal, write_tiny_bundle

ONE_LANE = EngineSettings(n_lanes=1, threads_per_lane=1, provider="cpu")
LEARNED = np.random.default_rng(3).normal(size=(len(LABELS), HIDDEN)).astype(np.float32)


def open_with(root: Path, **arrays: np.ndarray) -> Pipeline:
    write_tiny_bundle(root)
    np.savez(root / "labels.npz", **arrays)  # type: ignore[arg-type]
    seal(root)
    return Pipeline.open(open_bundle(root), engine=ONE_LANE, guard=False)


def vectors(prepared: PreparedInstruction) -> np.ndarray:
    assert prepared.vectors is not None
    return np.asarray(prepared.vectors)


def test_a_tasks_own_labels_gain_what_was_learned(tmp_path: Path, tiny_bundle: Path) -> None:
    tuned = open_with(tmp_path / "b", intent=LEARNED)
    plain = Pipeline.open(open_bundle(tiny_bundle), engine=ONE_LANE, guard=False)
    for name, learned in (("intent", LEARNED), ("sentiment", np.zeros((len(SENTIMENTS), HIDDEN)))):
        own = tuned.bundle.instruction(name)
        gained = vectors(tuned.prepare(own)) - vectors(plain.prepare(own))
        assert gained == pytest.approx(learned, abs=1e-5)


def test_other_candidates_and_other_instructions_gain_nothing(tmp_path: Path) -> None:
    tuned = open_with(tmp_path / "b", intent=LEARNED)
    text = tuned.bundle.instruction("intent").text
    mixed = Instruction.of(text, ["something new", LABELS[4]], task="intent")
    inline = Instruction.of(text, ["something new", LABELS[4]])
    gained = vectors(tuned.prepare(mixed)) - vectors(tuned.prepare(inline))
    assert gained[0] == pytest.approx(0.0)
    assert gained[1] == pytest.approx(LEARNED[4], abs=1e-5)


def test_vectors_that_do_not_fit_the_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_with(tmp_path / "short", intent=LEARNED[:2])
    with pytest.raises(BundleError):
        open_with(tmp_path / "other", unheard_of=LEARNED)


def test_a_file_that_holds_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_with(tmp_path / "b", intent=np.array([{"a": 1}], dtype=object))

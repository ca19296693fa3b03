"""What int8 costs by parts, and what stays in floats for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from instructrec_deploy.export.plan import Plan
from instructrec_deploy.export.run import export_run
from instructrec_deploy.export.sensitivity import log_softmax, mean_divergence
from tests.unit.export.test_plan import export, plan_of

INT8_PRODUCT = "MatMulIntegerToFloat"


def products_of(bundle: Path, kind: str) -> int:
    graph = onnx.load(bundle / "graphs" / "encoder.onnx").graph
    return [node.op_type for node in graph.node].count(kind)


def test_equal_answers_do_not_diverge_and_others_do() -> None:
    one = [log_softmax(np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 5.0]], np.float32))]
    assert mean_divergence(one, one) == 0.0
    other = [log_softmax(np.array([[0.0, 2.0, -1.0], [0.0, 0.0, 5.0]], np.float32))]
    p, q = np.exp(one[0][0]), np.exp(other[0][0])
    assert mean_divergence(one, other) == pytest.approx((p * np.log(p / q)).sum() / 2, rel=1e-5)


def test_as_few_parts_as_needed_stay_in_floats_the_dearest_first(
    encoder_run: Path, tmp_path: Path
) -> None:
    loose = export_run(encoder_run, tmp_path / "loose", max_divergence=10.0)
    assert loose.mixture is not None
    costs = [part["divergence"] for part in loose.mixture["parts"]]
    assert len(costs) == products_of(loose.out, INT8_PRODUCT) + 2  # words, places
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1] >= 0
    assert loose.mixture["kept"] == []
    names = [part["part"] for part in loose.mixture["parts"]]
    assert len(set(names)) == len(names)
    assert any("layer.1" in name and "query" in name for name in names)

    limit = loose.mixture["divergence_all_int8"] / 2
    mixed = export_run(encoder_run, tmp_path / "mixed", max_divergence=limit)
    assert mixed.mixture is not None
    kept = mixed.mixture["kept"]
    assert kept == names[: len(kept)]
    assert 0 < len(kept) < len(names)
    assert mixed.mixture["divergence"] <= limit
    n_tables = sum("embeddings" in name for name in kept)
    n_int8 = products_of(mixed.out, INT8_PRODUCT)
    assert n_int8 == products_of(loose.out, INT8_PRODUCT) - len(kept) + n_tables
    assert mixed.parity.max_difference < loose.parity.max_difference
    assert mixed.parity.batch_difference < 1e-5
    assert mixed.size_bytes > loose.size_bytes
    told = json.loads((mixed.out / "evaluation.json").read_text("utf-8"))["export"]
    assert told["mixture"] == mixed.mixture == mixed.to_dict()["mixture"]


def test_a_limit_that_nothing_else_holds_leaves_all_in_floats(
    encoder_run: Path, tmp_path: Path
) -> None:
    report = export_run(encoder_run, tmp_path / "bundle", max_divergence=1e-12)
    assert report.mixture is not None
    assert products_of(report.out, INT8_PRODUCT) == 0
    assert len(report.mixture["kept"]) == len(report.mixture["parts"])


def test_a_head_is_measured_by_its_own_logits(head_run: Path, tmp_path: Path) -> None:
    report = export_run(head_run, tmp_path / "bundle", max_divergence=10.0)
    assert report.mixture is not None
    assert 0 < report.mixture["divergence"] == report.mixture["divergence_all_int8"] < 1e-2
    assert len(report.mixture["parts"]) == products_of(report.out, INT8_PRODUCT) + 2


def test_a_plan_tells_what_was_measured_by_parts(encoder_run: Path, tmp_path: Path) -> None:
    plan = plan_of(quantize={"max_divergence": 1e-4})
    report = export(encoder_run, tmp_path / "bundle", plan)
    stage = report.stages[-1]
    assert stage["settings"] == {"precision": "int8", "max_divergence": 1e-4}
    assert stage["mixture"]["divergence"] <= 1e-4
    assert stage["mixture"]["kept"]


def test_floats_have_no_parts_to_choose_from() -> None:
    with pytest.raises(ValidationError, match="goes with int8"):
        Plan.model_validate({"name": "x", "quantize": {"precision": "fp32", "max_divergence": 0.1}})

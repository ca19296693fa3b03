"""The protocol is lint-clean, and the committed stubs are those of the proto file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import SERVICE

ROOT = Path(__file__).parents[2]
STUBS = Path("instructrec_deploy", "pb")


def test_committed_stubs_are_those_of_the_proto_file(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "make_proto.sh"
    environ = os.environ | {"PYTHON": sys.executable}
    subprocess.run(["sh", script, tmp_path], check=True, env=environ, timeout=60)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2.py*"))
    assert names == [
        STUBS / "inference" / "open_inference_pb2.py",
        STUBS / "inference" / "open_inference_pb2.pyi",
        STUBS / "v1" / "instructrec_pb2.py",
        STUBS / "v1" / "instructrec_pb2.pyi",
    ]
    for name in names:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"`make proto` ({name})"


def test_proto_is_lint_clean() -> None:
    buf = shutil.which("buf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if buf is None:
        pytest.skip("buf is not installed")
    found = subprocess.run([buf, "lint"], cwd=ROOT / "proto", capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_service_has_the_calls_that_clients_know() -> None:
    service = pb.DESCRIPTOR.services_by_name["InstructRec"]
    assert service.full_name == SERVICE
    assert sorted(service.methods_by_name) == [
        "Feedback",
        "GetModelStatus",
        "Predict",
        "PredictBatch",
        "PredictStream",
        "PrepareInstruction",
        "SwapModel",
    ]


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        (
            "PredictRequest",
            {
                "text": 1,
                "questions": 2,
                "id": 3,
                "top_k": 4,
                "text2": 5,
                "head": 6,
                "tail": 7,
                "explain": 8,
                "model": 9,
                "model_version": 10,
            },
        ),
        ("Mark", {"start": 1, "end": 2}),
        ("Question", {"task": 1, "prepared_id": 2, "instruction": 3}),
        (
            "Instruction",
            {
                "text": 1,
                "candidates": 2,
                "kind": 3,
                "task": 4,
                "decision": 5,
                "threshold": 6,
                "none_label": 7,
            },
        ),
        ("Candidate", {"label": 1, "description": 2, "prior": 3}),
        (
            "Answer",
            {
                "task": 1,
                "label": 2,
                "score": 3,
                "scores": 4,
                "prepared_id": 5,
                "spans": 6,
                "labels": 7,
                "abstained": 8,
                "attributions": 9,
            },
        ),
        (
            "Finding",
            {
                "category": 1,
                "rule": 2,
                "action": 3,
                "start": 4,
                "end": 5,
                "score": 6,
                "dry_run_action": 7,
                "review": 8,
            },
        ),
        (
            "Verdict",
            {
                "action": 1,
                "findings": 2,
                "policy_version": 3,
                "direction": 4,
                "dry_run_action": 5,
            },
        ),
        ("Span", {"start": 1, "end": 2, "label": 3, "text": 4, "score": 5}),
        ("Attribution", {"start": 1, "end": 2, "score": 3}),
        ("FeedbackSpan", {"start": 1, "end": 2, "type": 3}),
        ("FeedbackSpans", {"spans": 1}),
        ("FeedbackResponse", {"id": 1, "outcome": 2, "text": 3}),
        (
            "FeedbackRequest",
            {
                "text": 1,
                "task": 2,
                "labels": 3,
                "spans": 4,
                "text2": 5,
                "head": 6,
                "tail": 7,
                "predicted_labels": 8,
                "predicted_spans": 9,
                "model": 10,
                "model_version": 11,
                "lang": 12,
                "source": 13,
            },
        ),
        ("PredictBatchRequest", {"requests": 1, "questions": 2, "model": 3, "model_version": 4}),
        (
            "PredictStreamRequest",
            {"requests": 1, "questions": 2, "model": 3, "model_version": 4},
        ),
        ("PredictStreamItem", {"response": 1, "error": 2, "number": 3}),
        ("PredictStreamResponse", {"items": 1}),
        ("PredictBatchItem", {"response": 1, "error": 2}),
        (
            "PredictResponse",
            {
                "answers": 1,
                "id": 2,
                "text": 3,
                "truncated": 4,
                "n_tokens": 5,
                "verdicts": 6,
                "timings": 7,
                "model": 8,
                "model_version": 9,
            },
        ),
    ],
)
def test_field_numbers_never_change(message: str, numbers: dict[str, int]) -> None:
    fields = pb.DESCRIPTOR.message_types_by_name[message].fields
    found = {field.name: field.number for field in fields}
    assert found == numbers

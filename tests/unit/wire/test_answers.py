"""Answers and what a server says of itself survive the wire in both directions."""

from __future__ import annotations

from instructrec_deploy.core.errors import InstructRecError, Overloaded, TaskUnknown
from instructrec_deploy.core.result import (
    Answer,
    Attribution,
    Finding,
    LabelScore,
    Prediction,
    Span,
    Timings,
    Verdict,
)
from instructrec_deploy.core.status import Limits, ModelStatus, PreparedInfo, TaskStatus
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.answers import (
    read_batch_results,
    read_prediction,
    read_prepared,
    read_status,
    write_batch,
    write_prediction,
    write_prepared,
    write_status,
)

PREDICTION = Prediction(
    answers=(
        Answer("intent", "余额", 0.5, (LabelScore("余额", 0.5), LabelScore("refund", 0.25)), "ab"),
        Answer("", "", 0.0, ()),
        Answer("主题", "体育", 0.75, (LabelScore("体育", 0.75),), "", ("体育", "sport")),
        Answer("", "其他", 0.5, (LabelScore("a", 0.5),), abstained=True),
        Answer("实体", "人名", 0.5, (), spans=(Span(3, 5, "人名", "李雷", 0.5),)),
        Answer("t", "a", 0.5, (), attributions=(Attribution(0, 4, 0.25), Attribution(5, 7, -0.5))),
    ),
    id="caller's own 🙂",
    text="my number is [PHONE]",
    truncated=True,
    n_tokens=12,
    verdicts=(
        Verdict("mask", (Finding("PHONE", "cn-mobile", "mask", 13, 24, 0.5),), "v1", "input"),
        Verdict(policy_version="v1", direction="output"),
        Verdict(
            "flag",
            (Finding("threat", "r", "flag", 0, 4, 0.5, dry_run_action="block", review=True),),
            "v2",
            "text2",
            "block",
        ),
    ),
    timings=Timings(0.5, 0.25, 2.0, 3.0),
    model="minilm",
    model_version="0123456789ab",
)


def test_prediction_survives_the_wire() -> None:
    data = write_prediction(PREDICTION).SerializeToString()
    assert read_prediction(pb.PredictResponse.FromString(data)) == PREDICTION


def test_batch_results_survive_the_wire_as_the_classes_they_were() -> None:
    results: list[Prediction | InstructRecError] = [
        PREDICTION,
        TaskUnknown("no such task", hint="its tasks: 意图"),
        Overloaded("the queue is full", retry_after_ms=250),
    ]
    data = write_batch(results).SerializeToString()
    found = read_batch_results(pb.PredictBatchResponse.FromString(data))
    assert found[0] == PREDICTION
    assert isinstance(found[1], TaskUnknown)
    assert found[1].hint == "its tasks: 意图"
    assert isinstance(found[2], Overloaded)
    assert found[2].retry_after_ms == 250


def test_status_and_prepared_survive_the_wire() -> None:
    status = ModelStatus(
        model="minilm",
        model_version="1",
        kind="instruction-encoder",
        precision="int8",
        is_ready=True,
        tasks=(TaskStatus("意图", "classification", 2, True, ("a", "余额")),),
        n_prepared=3,
        prepared_bytes=4_000_000_000,
        uptime_s=1.5,
        limits=Limits(1, 2, 3, 4, 5, 6),
        server_version="0.1",
    )
    assert read_status(write_status(status)) == status
    info = PreparedInfo("ab", 77, True, 118_272)
    assert read_prepared(write_prepared(info)) == info

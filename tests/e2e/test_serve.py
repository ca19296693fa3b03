"""Every call against a real server process: answers, refusals, health, reflection, metrics."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InstructRecError,
    LabelMissing,
    LabelRepeated,
    MarkInvalid,
    MarkMissing,
    Overloaded,
    PreparedUnknown,
    RequestError,
    TaskUnknown,
    TextEmpty,
    TextTooLong,
    TextUndecodable,
    TooManyLabels,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.wire.requests import SERVICE, method_path
from tests.serving import ServerProcess, free_port, running_server

SERVING = health_pb2.HealthCheckResponse.SERVING
CANARY = "canary-7f3a-暗号"


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(tiny_bundle, folder, metrics_port=free_port()) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address, timeout_s=20) as found:
        yield found


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as found:
        yield found


def metrics_text(server: ServerProcess) -> str:
    text: str = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
    return text


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I lost my card", "card lost"),
        ("请问我的余额", "余额"),
        ("ＣＡＲＤ 余额 🙂", "余额"),
        ("转账失败 transfer failed 😡", "转账失败"),
    ],
)
def test_text_is_answered_by_the_default_task(client: Client, text: str, label: str) -> None:
    found = client.predict(text, top_k=2)
    assert (found.label, found.answers[0].task, len(found.answers[0].scores)) == (
        label,
        "intent",
        2,
    )
    assert (found.model, found.timings.total_ms > 0) == ("tiny", True)


def test_inline_instruction_task_and_prepared_id_answer_alike(client: Client) -> None:
    words, labels = "What does the customer want?", ["refund", "card lost"]
    inline = client.predict("refund please", instruction=words, candidates=labels)
    prepared_id = client.prepare(words, labels).prepared_id
    by_id = client.predict("refund please", prepared_id=prepared_id)
    assert inline.label == by_id.label == "refund"
    assert inline.score == pytest.approx(by_id.score, abs=1e-6)
    lent = client.predict("refund please", task="intent", candidates=labels)
    assert lent.answers[0].task == "intent"


def test_what_a_request_brings_is_answered_as_in_process(
    client: Client, server: ServerProcess, tiny_bundle: Path
) -> None:
    films = [Candidate("7", "card", 2.0), Candidate("9", "余额", -1.0)]
    cases: list[dict[str, Any]] = [
        {"text": "my card", "text2": "mail jo@mail.example.com 余额 😊"},
        {"text": "打 13812345678，我的卡丢了", "head": (14, 17), "tail": (17, 19)},
        {"text": "pin\ncard", "instruction": "which?", "candidates": films},
        {"text": "my card", "task": "sentiment", "candidates": films},
        {"text": "my card", "task": "sentiment", "instruction": "which?", "candidates": films},
    ]

    async def ask(case: dict[str, Any]) -> Prediction:
        async with AsyncClient(server.address) as found:
            return await found.predict(**case)

    with Predictor(tiny_bundle) as predictor:
        for case in cases:
            wanted = predictor.predict(**case)
            for found in (client.predict(**case), asyncio.run(ask(case))):
                assert found.answers[0].prepared_id == wanted.answers[0].prepared_id
                assert found.score == pytest.approx(wanted.score, abs=1e-5)
                assert (found.label, found.text) == (wanted.label, wanted.text)
                assert [v.direction for v in found.verdicts] == [
                    v.direction for v in wanted.verdicts
                ]


def test_marks_that_mark_nothing_are_refused_with_a_hint(client: Client) -> None:
    with pytest.raises(MarkInvalid) as caught:
        client.predict("我的卡", head=(0, 2), tail=(2, 9))
    assert "code points" in caught.value.hint
    with pytest.raises(MarkMissing):
        client.predict("我的卡", head=(0, 2))


def test_several_questions_about_one_text_are_answered_in_order(client: Client) -> None:
    own = Instruction.of("Is it urgent?", [Candidate("now", "lost stolen"), Candidate("later")])
    questions = (Question(task="sentiment"), Question(), Question(instruction=own))
    found = client.predict_request(Request("I lost my card", questions, id="十"))
    assert [answer.task for answer in found.answers] == ["sentiment", "intent", ""]
    assert found.id == "十"


def test_batch_answers_as_single_calls_do(client: Client) -> None:
    texts = ["I lost my card", "余额", "refund " * 20, "exchange rate?"]
    together = client.predict_batch(texts)
    for text, item in zip(texts, together, strict=True):
        assert isinstance(item, Prediction)
        assert item.label == client.predict(text).label


def test_bad_items_of_a_batch_have_errors_of_their_own(client: Client) -> None:
    requests = [
        Request("fine"),
        Request(" "),
        Request("x", (Question(task="none"),)),
        Request("x", (Question(prepared_id="0" * 32),)),
    ]
    found = client.predict_batch(requests)
    kinds = [type(item) for item in found]
    assert kinds == [Prediction, TextEmpty, TaskUnknown, PreparedUnknown]


def test_async_client_has_the_same_answers(server: ServerProcess, client: Client) -> None:
    async def ask() -> tuple[Prediction, int, bool, int]:
        async with AsyncClient(server.address) as found:
            prediction = await found.predict("I lost my card")
            batch = await found.predict_batch(["a", "余额"], task="sentiment")
            status = await found.status(with_labels=True)
            prepared = await found.prepare(task="sentiment")
            return prediction, len(batch), status.is_ready, prepared.n_candidates

    prediction, n_items, is_ready, n_candidates = asyncio.run(ask())
    assert prediction.label == client.predict("I lost my card").label
    assert (n_items, is_ready, n_candidates) == (2, True, 2)


def test_status_names_the_model_and_its_tasks(client: Client) -> None:
    status = client.status(with_labels=True)
    tasks = {task.name: task for task in status.tasks}
    assert (status.model, status.is_ready, sorted(tasks)) == ("tiny", True, ["intent", "sentiment"])
    assert tasks["intent"].is_default
    assert "余额" in tasks["intent"].labels
    assert status.n_prepared >= 2


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"task": "no such task"}, TaskUnknown),
        ({"prepared_id": "0" * 32}, PreparedUnknown),
        ({"instruction": "what?", "candidates": []}, LabelMissing),
        ({"instruction": "what?", "candidates": ["a", "a"]}, LabelRepeated),
        (
            {"instruction": "什么？", "candidates": [f"第{i}个" for i in range(10_000)]},
            TooManyLabels,
        ),
        ({"instruction": "what?", "candidates": ["x" * 5_000]}, TextTooLong),
    ],
)
def test_unusable_question_is_refused_with_a_hint(
    client: Client, question: dict[str, object], error: type[InstructRecError]
) -> None:
    with pytest.raises(error) as caught:
        client.predict("a text", **question)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", TextEmpty),
        (" \n\t　", TextEmpty),
        ("x" * 1_000_000, TextTooLong),
        ("我" * 1_000_000, TextTooLong),
        ("x" * 5_000_000, RequestError),
    ],
    ids=["empty", "blank", "1 MB", "3 MB of Chinese", "larger than a message"],
)
def test_unusable_text_is_refused_and_the_server_goes_on(
    client: Client, text: str, error: type[InstructRecError]
) -> None:
    with pytest.raises(error):
        client.predict(text)
    assert client.predict("I lost my card").label == "card lost"


@pytest.mark.parametrize(
    "data", [b"\n\x02\xff\xfe", b"\xff" * 100, b"\n\x7fabc"], ids=["no UTF-8", "noise", "cut off"]
)
@pytest.mark.parametrize("method", ["Predict", "PredictBatch", "PrepareInstruction"])
def test_undecodable_bytes_are_the_callers_fault(
    channel: grpc.Channel, method: str, data: bytes
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method_path(method))(data, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata = dict(caught.value.trailing_metadata())
    assert metadata["instructrec-code"] == TextUndecodable.code


def test_call_whose_time_is_up_ends_as_such(client: Client) -> None:
    slow = Instruction.of("slow", [f"{i} {'card ' * 30}" for i in range(2_000)])
    request = Request("now", (Question(instruction=slow),))
    with pytest.raises((DeadlinePassed, Overloaded)):
        client.predict_request(request, timeout_s=0.05)
    assert client.predict("I lost my card").label == "card lost"


def test_many_callers_at_once_are_all_answered(client: Client) -> None:
    texts = [f"{'card ' * (i % 40 + 1)}余额 {i}" for i in range(200)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda text: client.predict(text, id=text), texts))
    assert [prediction.id for prediction in found] == texts


def test_health_says_serving_for_the_process_the_service_and_the_model(
    channel: grpc.Channel,
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE, "tiny"):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=10).status == SERVING
        watch = stub.Watch(request, timeout=10)
        assert next(watch).status == SERVING
        watch.cancel()


def test_reflection_tells_the_protocol(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    listed, described = stub.ServerReflectionInfo(iter(requests), timeout=10)
    names = [service.name for service in listed.list_services_response.service]
    assert SERVICE in names
    file = descriptor_pb2.FileDescriptorProto.FromString(
        described.file_descriptor_response.file_descriptor_proto[0]
    )
    assert "Predict" in [method.name for method in file.service[0].method]


def test_metrics_are_served_on_their_own_port(server: ServerProcess, client: Client) -> None:
    client.predict("I lost my card")
    text = metrics_text(server)
    for pattern in (
        r'instructrec_requests_total{method="Predict",status="OK"} [1-9]',
        r'instructrec_predictions_total{task="intent"} [1-9]',
        r'instructrec_model_info{kind="instruction-encoder",model="tiny".*} 1\.0',
        r"instructrec_batch_size_count [1-9]",
        r"instructrec_tokens_total [1-9]",
        r"instructrec_prepared_hits_total [1-9]",
        r"instructrec_prepared_bytes [1-9]",
        r"instructrec_ready 1\.0",
        r"process_resident_memory_bytes [1-9]",
    ):
        assert re.search(pattern, text), pattern


def test_no_word_of_a_caller_is_written_anywhere(
    server: ServerProcess, client: Client, channel: grpc.Channel
) -> None:
    client.predict(CANARY, id=CANARY)
    client.predict("x", instruction=CANARY, candidates=[CANARY, "other"])
    with pytest.raises(TaskUnknown):
        client.predict("x", instruction="what?", candidates=[CANARY, "other"], task=CANARY)
    client.predict("x", text2=CANARY, head=(0, 1), tail=(0, 1))
    with pytest.raises(MarkInvalid):
        client.predict(CANARY, head=(0, 1), tail=(0, 99))
    client.predict_batch([CANARY, " "])
    client.prepare(CANARY, [CANARY])
    for question in ({"task": CANARY}, {"prepared_id": CANARY}):
        with pytest.raises(InstructRecError):
            client.predict(CANARY, **question)  # type: ignore[arg-type]
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(method_path("Predict"))(CANARY.encode() + b"\xff", timeout=10)
    written = server.stdout + server.stderr + metrics_text(server)
    assert "canary" not in written
    assert "暗号" not in written


def test_plain_stub_of_the_proto_file_is_enough_to_ask(channel: grpc.Channel) -> None:
    predict = channel.unary_unary(
        method_path("Predict"),
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )
    assert predict(pb.PredictRequest(text="I lost my card")).answers[0].label == "card lost"

"""The calls, on a real gRPC server in this process, with a model that is a stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.client.calls import RetryPolicy
from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InternalError,
    LabelRepeated,
    Overloaded,
    RequestError,
    TaskUnknown,
    TextEmpty,
    TextUndecodable,
    TooManyLabels,
    Unavailable,
)
from instructrec_deploy.core.feedback import Feedback, Receipt
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Answer, LabelScore, Prediction
from instructrec_deploy.core.status import Limits, ModelStatus
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.server.feedback import FeedbackDesk
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.service import InstructRecService
from instructrec_deploy.server.settings import DoorSettings
from instructrec_deploy.wire.requests import method_path

CANARY = "暗号 canary-7f3a"


class FakeModel:
    """Answers with the text's first word; some words make it do something else."""

    name, version, release, max_tokens = "fake", "1", "", 64

    def __init__(self) -> None:
        self.waiting: list[Future[Prediction]] = []
        self.deadlines: list[float | None] = []
        self.lent: list[str] = []
        self.desk = FeedbackDesk(None)

    def submit(self, request: Request, deadline: float | None) -> Future[Prediction]:
        self.deadlines.append(deadline)
        future: Future[Prediction] = Future()
        word = request.text.split()[0]
        if word == "full":
            raise Overloaded("the queue is full", hint="later", retry_after_ms=70)
        if word == "busy" and len(self.deadlines) < 3:
            raise Overloaded("too much to do", hint="later", retry_after_ms=1)
        if word == "wait":
            self.waiting.append(future)
        elif word == "unknown":
            future.set_exception(TaskUnknown("no such task", hint="its tasks: 意图"))
        elif word == "crash":
            future.set_exception(ValueError(CANARY))
        else:
            task = request.questions[0].task
            answer = Answer(task, word, 0.5, (LabelScore(word, 0.5),))
            future.set_result(Prediction((answer,), id=request.id, n_tokens=3))
        return future

    def find(self, question: Question) -> Instruction:
        return question.instruction or Instruction.of("own", ["a"], task=question.task)

    def is_prepared(self, instruction: Instruction) -> bool:
        return instruction.text == "own"

    def prepare(self, instruction: Instruction) -> Future[PreparedInstruction]:
        future: Future[PreparedInstruction] = Future()
        future.set_result(PreparedInstruction(instruction.key, instruction, instruction.labels))
        return future

    def lend(self, task: str, words: str, candidates: object) -> Instruction:
        self.lent.append(task)
        return Instruction.of(words or "lent", [Candidate("a")], task=task)

    def keep(self, feedback: Feedback) -> Future[Receipt]:
        return self.desk.submit(feedback)

    def status(self, limits: Limits, *, is_ready: bool, with_labels: bool) -> ModelStatus:
        return ModelStatus(model="fake", is_ready=is_ready, limits=limits)


class Setting:
    """A served fake: what a test talks to."""

    def __init__(self, service: InstructRecService, port: int) -> None:
        self.service = service
        self.model = FakeModel()
        self.metrics = Metrics()
        self.address = f"127.0.0.1:{port}"
        self.client = AsyncClient(self.address, timeout_s=5, retry=RetryPolicy(max_attempts=1))

    async def send(self, method: str, data: bytes) -> bytes:
        async with grpc.aio.insecure_channel(self.address) as channel:
            answer: bytes = await channel.unary_unary(method_path(method))(data, timeout=5)
            return answer


@asynccontextmanager
async def served(*, is_open: bool = True) -> AsyncIterator[Setting]:
    metrics = Metrics()
    service = InstructRecService(DoorSettings(max_batch_items=4, max_candidates=3), metrics)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.handlers(),))
    setting = Setting(service, server.add_insecure_port("127.0.0.1:0"))
    setting.metrics = metrics
    await server.start()
    if is_open:
        service.open([setting.model])
    try:
        yield setting
    finally:
        await setting.client.close()
        await server.stop(0)


def play(scene: Callable[[Setting], Awaitable[None]], *, is_open: bool = True) -> None:
    async def run() -> None:
        async with served(is_open=is_open) as setting:
            await scene(setting)

    asyncio.run(run())


def test_prediction_goes_there_and_back() -> None:
    async def scene(setting: Setting) -> None:
        found = await setting.client.predict("余额 多少？ 🙂", task="意图", id="mine")
        assert (found.label, found.answers[0].task, found.id) == ("余额", "意图", "mine")

    play(scene)


def test_batch_has_an_answer_or_an_error_for_each_item() -> None:
    async def scene(setting: Setting) -> None:
        found = await setting.client.predict_batch(["one", " ", "full", "crash"])
        assert isinstance(found[0], Prediction)
        assert [type(e) for e in found[1:]] == [TextEmpty, Overloaded, InternalError]

    play(scene)


@pytest.mark.parametrize(
    ("text", "question", "error"),
    [
        (" ", {}, TextEmpty),
        ("a", {"instruction": "what?", "candidates": ["x", "x"]}, LabelRepeated),
        ("a", {"instruction": "what?", "candidates": list("abcd")}, TooManyLabels),
        ("unknown", {}, TaskUnknown),
        ("full", {}, Overloaded),
    ],
)
def test_error_arrives_as_the_class_it_was(
    text: str, question: dict[str, object], error: type[Exception]
) -> None:
    async def scene(setting: Setting) -> None:
        with pytest.raises(error):
            await setting.client.predict(text, **question)  # type: ignore[arg-type]

    play(scene)


@pytest.mark.parametrize(
    "method", ["Predict", "PredictBatch", "PrepareInstruction", "GetModelStatus"]
)
def test_bytes_that_are_no_message_answer_invalid_argument(method: str) -> None:
    async def scene(setting: Setting) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await setting.send(method, b"\xff\xff\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        metadata = caught.value.trailing_metadata()
        assert metadata is not None
        assert dict(metadata)["instructrec-code"] == TextUndecodable.code

    play(scene)


def test_unexpected_error_answers_an_id_that_stands_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(setting: Setting) -> None:
        with pytest.raises(InternalError) as caught:
            await setting.client.predict("crash")
        incident = caught.value.message.removeprefix("internal error ")
        records = [r for r in caplog.records if r.message == "unexpected error"]
        assert [vars(record)["incident"] for record in records] == [incident]
        assert CANARY not in caught.value.message + caught.value.hint

    with caplog.at_level(logging.ERROR):
        play(scene)


def test_a_patient_client_asks_an_overloaded_server_again() -> None:
    async def scene(setting: Setting) -> None:
        retry = RetryPolicy(retry_overloaded=True, initial_backoff_s=100, max_backoff_s=100)
        async with AsyncClient(setting.address, timeout_s=30, retry=retry) as patient:
            # In time only because the server's own, shorter wait is kept.
            assert (await patient.predict("busy")).label == "busy"
        assert len(setting.model.deadlines) == 3

    play(scene)


def test_compressed_requests_are_read() -> None:
    async def scene(setting: Setting) -> None:
        for word in ("gzip", "deflate"):
            async with AsyncClient(setting.address, compression=word) as client:
                assert (await client.predict("余额 " * 5_000)).label == "余额"

    play(scene)


@pytest.mark.parametrize(
    "question",
    [{"instruction": "own words", "task": "意图"}, {"candidates": ["退款"], "task": "意图"}],
)
def test_what_an_instruction_leaves_out_is_lent_by_its_task(question: dict[str, object]) -> None:
    async def scene(setting: Setting) -> None:
        await setting.client.predict("a", **question)  # type: ignore[arg-type]
        assert setting.model.lent == ["意图"]

    play(scene)


def test_deadline_reaches_the_queue() -> None:
    async def scene(setting: Setting) -> None:
        now = asyncio.get_running_loop().time()
        await setting.client.predict("now", timeout_s=3)
        assert setting.model.deadlines[0] == pytest.approx(now + 3, abs=0.5)

    play(scene)


def test_caller_whose_time_is_up_is_told_and_its_work_is_cancelled() -> None:
    async def scene(setting: Setting) -> None:
        with pytest.raises(DeadlinePassed):
            await setting.client.predict("wait", timeout_s=0.05)
        await setting.service.wait_idle(2)
        assert setting.model.waiting[0].cancelled()

    play(scene)


def test_cancelled_call_cancels_its_work() -> None:
    async def scene(setting: Setting) -> None:
        call = asyncio.create_task(setting.client.predict("wait"))
        while not setting.model.waiting:
            await asyncio.sleep(0.001)
        call.cancel()
        assert await setting.service.wait_idle(2) == 0
        assert setting.model.waiting[0].cancelled()

    play(scene)


def test_call_before_the_model_is_there_is_refused_and_status_says_so() -> None:
    async def scene(setting: Setting) -> None:
        with pytest.raises(Unavailable, match="loading"):
            await setting.client.predict("early")
        assert (await setting.client.status()).is_ready is False

    play(scene, is_open=False)


def test_closing_refuses_what_is_new_and_finishes_what_was_accepted() -> None:
    async def scene(setting: Setting) -> None:
        accepted = asyncio.create_task(setting.client.predict("wait for it"))
        while not setting.model.waiting:
            await asyncio.sleep(0.001)
        setting.service.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await setting.client.predict("late")
        assert await setting.service.wait_idle(0.01) == 1
        setting.model.waiting[0].set_result(Prediction((Answer("", "done", 1.0, ()),)))
        assert (await accepted).label == "done"
        assert await setting.service.wait_idle(1) == 0

    play(scene)


def test_prepared_instruction_answers_its_id() -> None:
    async def scene(setting: Setting) -> None:
        info = await setting.client.prepare("想要什么？", ["退款", "余额"])
        assert (len(info.prepared_id), info.n_candidates, info.cached) == (32, 2, False)
        assert (await setting.client.prepare(task="意图")).cached is True

    play(scene)


def test_status_tells_the_limits() -> None:
    async def scene(setting: Setting) -> None:
        limits = (await setting.client.status()).limits
        assert (limits.max_batch_items, limits.max_candidates, limits.max_tokens) == (4, 3, 64)
        with pytest.raises(RequestError, match="1 to 4"):
            await setting.client.predict_batch(["x"] * 5)

    play(scene)


def test_calls_and_errors_are_counted() -> None:
    async def scene(setting: Setting) -> None:
        await setting.client.predict("one")
        with pytest.raises(Overloaded):
            await setting.client.predict("full")
        value = setting.metrics.registry.get_sample_value
        calls = "instructrec_requests_total"
        async with asyncio.timeout(5):  # the caller hears of a refusal before the handler ends
            while value("instructrec_requests_in_flight", {}):
                await asyncio.sleep(0)
        assert value(calls, {"method": "Predict", "status": "OK"}) == 1
        assert value(calls, {"method": "Predict", "status": "RESOURCE_EXHAUSTED"}) == 1
        assert value("instructrec_errors_total", {"code": "IR-1300"}) == 1
        assert value("instructrec_requests_in_flight", {}) == 0

    play(scene)


def test_nothing_of_a_refused_call_waits_for_the_garbage_collector() -> None:
    """What a flood of refused calls leaves in rings is collected in pauses that all others feel."""

    class Sent:
        """What a call brings."""

    class Ended(Exception):
        """A context's way to end a call."""

    class Context:
        def time_remaining(self) -> None:
            return None

        def invocation_metadata(self) -> tuple[()]:
            return ()

        async def abort(self, *_: object) -> None:
            raise Ended

    gone: list[weakref.ref[Sent]] = []

    async def handle(sent: Sent, *_: object) -> None:
        gone.append(weakref.ref(sent))
        raise Overloaded("too much to do", hint="later")

    async def call() -> None:
        service = InstructRecService(DoorSettings(), Metrics())
        answer = service.guard("Predict", handle, needs_model=False, is_open=True)
        with contextlib.suppress(Ended):
            await answer(Sent(), Context())
        assert [ref() for ref in gone] == [None]

    gc.disable()
    try:
        asyncio.run(call())
    finally:
        gc.enable()

"""The scheduler: batches across callers, preparation between batches, drops, drain and close."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InternalError,
    LabelUnknown,
    Overloaded,
    OverloadReason,
    TaskUnknown,
    Unavailable,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.runtime.admission import OverloadSettings
from instructrec_deploy.runtime.batching import BatchingSettings
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.runtime.observer import BatchStats, DropReason, Observer
from instructrec_deploy.runtime.pipeline import Outcome, Pipeline
from instructrec_deploy.runtime.prepared import PreparedSettings
from instructrec_deploy.runtime.scheduler import Scheduler

WAIT_S = 20  # for a future; far beyond what a right run needs


class Counting(Observer):
    """Keeps all it hears."""

    def __init__(self) -> None:
        self.batches: list[BatchStats] = []
        self.drops: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.n_prepared = 0
        self.most_waiting = 0

    def queued(self, n_waiting: int) -> None:
        self.most_waiting = max(self.most_waiting, n_waiting)

    def batch_done(self, stats: BatchStats) -> None:
        self.batches.append(stats)

    def dropped(self, reason: DropReason, n_items: int) -> None:
        self.drops[reason] += n_items

    def refused(self, reason: OverloadReason) -> None:
        self.refusals[reason] += 1

    def prepared(self, n_candidates: int, seconds: float) -> None:
        self.n_prepared += 1


class Gate:
    """Holds every computation back until it is opened, and remembers what was computed."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        self.computed: list[str] = []
        compute = pipeline.compute

        def held(jobs: Sequence[Job], **how: Any) -> list[Outcome]:
            self.entered.release()
            assert self.opened.wait(WAIT_S)
            self.computed += [job.request.id for job in jobs]
            return compute(jobs, **how)

        monkeypatch.setattr(pipeline, "compute", held)

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=WAIT_S)


numbers = itertools.count()


def request(text: str = "", *questions: Question, id: str = "", tenant: str = "") -> Request:
    """Of a text that no other request has, where none is given."""
    text = text or f"I lost my card {next(numbers)}"
    return replace(Request.of(text, questions or (Question(),), id=id), tenant=tenant)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Let other threads run until it is so."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture(params=[1, 2], ids=["one lane", "two lanes"])
def lanes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def pipeline(tiny_bundle: Path, lanes: int) -> Iterator[Pipeline]:
    engine = EngineSettings(n_lanes=lanes, threads_per_lane=1, provider="cpu")
    prepared = PreparedSettings(step_tokens=64)
    opened = Pipeline.open(open_bundle(tiny_bundle), engine=engine, prepared=prepared)
    opened.warm()
    yield opened
    opened.close()


@pytest.fixture
def observer() -> Counting:
    return Counting()


@pytest.fixture
def scheduler(pipeline: Pipeline, observer: Counting) -> Iterator[Scheduler]:
    opened = Scheduler(pipeline, BatchingSettings(max_queue_items=100), observer=observer)
    yield opened
    opened.close()


def test_answers_are_those_of_the_pipeline(scheduler: Scheduler, pipeline: Pipeline) -> None:
    texts = ["I lost my card", "余额查询 " * 9, "👍🏽 ok", "ＲＥＦＵＮＤ", "pin " * 200]
    futures = [scheduler.submit(request(text, id=text)) for text in texts * 5]
    for text, future in zip(texts * 5, futures, strict=True):
        found = future.result(WAIT_S)
        alone = pipeline.answer([request(text)])[0]
        assert not isinstance(alone, Exception)
        assert (found.id, found.label) == (text, alone.label)
        assert found.score == pytest.approx(alone.score, abs=1e-5)


def test_what_gathers_while_a_worker_is_busy_is_one_batch(
    scheduler: Scheduler,
    pipeline: Pipeline,
    observer: Counting,
    lanes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(pipeline, monkeypatch)
    futures = []
    for _ in range(lanes):
        futures.append(scheduler.submit(request()))
        gate.wait_entered()
    futures += [scheduler.submit(request()) for _ in range(8)]
    gate.opened.set()
    for future in futures:
        future.result(WAIT_S)
    assert scheduler.drain(WAIT_S)
    wait_until(lambda: sum(b.n_items for b in observer.batches) == 8 + lanes)
    assert max(b.n_items for b in observer.batches) >= 4
    assert all(b.n_padded_tokens >= b.n_tokens > 0 for b in observer.batches)
    assert observer.most_waiting >= 8


def test_callers_who_come_back_one_after_the_other_are_one_batch_for_each_worker(
    pipeline: Pipeline, observer: Counting, lanes: int
) -> None:
    settings = BatchingSettings(gather_ms=500)
    opened = Scheduler(pipeline, settings, observer=observer)
    for _ in range(2):
        observer.batches.clear()
        for future in [opened.submit(request()) for _ in range(6)]:
            future.result(WAIT_S)
        assert opened.drain(WAIT_S)
        opened._is_admitting = True
        wait_until(lambda: sum(b.n_items for b in observer.batches) == 6)
    assert len(observer.batches) == lanes
    opened.close()


def test_an_answered_request_is_gone_with_its_last_user(scheduler: Scheduler) -> None:
    gc.disable()  # a circle would stay
    try:
        future = scheduler.submit(request())
        assert future.result(WAIT_S).label
        seen = weakref.ref(future)
        del future
        wait_until(lambda: seen() is None)
    finally:
        gc.enable()


def test_a_wrong_request_is_refused_by_submit(scheduler: Scheduler) -> None:
    with pytest.raises(TaskUnknown):
        scheduler.submit(request("x", Question(task="no")))
    assert scheduler.n_waiting == 0


def test_an_unknown_instruction_is_prepared_once_for_all_who_ask(
    scheduler: Scheduler, observer: Counting, pipeline: Pipeline
) -> None:
    asked = Instruction.of("怎么样", [f"card {i}" for i in range(60)])
    futures = [scheduler.submit(request("card 7", Question(instruction=asked))) for _ in range(6)]
    assert len({future.result(WAIT_S).label for future in futures}) == 1
    assert (observer.n_prepared, asked.key in pipeline.cache) == (1, True)


def test_a_long_preparation_does_not_hold_up_others(
    scheduler: Scheduler, pipeline: Pipeline
) -> None:
    long = Instruction.of("what", [f"card number {i} please" for i in range(1500)])
    slow = scheduler.submit(request("card", Question(instruction=long)))
    quick = scheduler.submit(request("I lost my card"))
    assert quick.result(WAIT_S).label == "card lost"
    assert not slow.done()
    slow.cancel()


def test_several_unknown_instructions_about_one_text_are_all_prepared(
    scheduler: Scheduler,
) -> None:
    asked = [Question(instruction=Instruction.of(f"q {i}", ["a", "b"])) for i in range(5)]
    found = scheduler.submit(request("card", *asked, Question())).result(WAIT_S)
    assert len(found.answers) == 6


def test_prepare_gives_what_the_cache_then_has(scheduler: Scheduler, pipeline: Pipeline) -> None:
    asked = Instruction.of("what", ["a", "b"])
    made = scheduler.prepare(asked).result(WAIT_S)
    assert pipeline.cache.get(asked.key) is made
    assert scheduler.prepare(asked).result(0) is made


def test_prepare_refuses_at_once_what_the_model_cannot_do(head_pipeline: Pipeline) -> None:
    scheduler = Scheduler(head_pipeline)
    with pytest.raises(LabelUnknown):
        scheduler.prepare(Instruction.of("what", ["unheard of"]))
    scheduler.close()


def test_a_cancelled_request_is_never_computed(
    scheduler: Scheduler,
    pipeline: Pipeline,
    observer: Counting,
    lanes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(pipeline, monkeypatch)
    running = []
    for _ in range(lanes):
        running.append(scheduler.submit(request(id="running")))
        gate.wait_entered()
    cancelled = scheduler.submit(request(id="cancelled"))
    kept = scheduler.submit(request(id="kept"))
    assert cancelled.cancel()
    assert not running[0].cancel()
    gate.opened.set()
    kept.result(WAIT_S)
    assert scheduler.drain(WAIT_S)
    assert Counter(gate.computed) == {"running": lanes, "kept": 1}
    assert observer.drops == {"cancelled": 1}
    with pytest.raises(CancelledError):
        cancelled.result(0)


def test_an_expired_request_is_never_computed(
    scheduler: Scheduler,
    pipeline: Pipeline,
    observer: Counting,
    lanes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(pipeline, monkeypatch)
    for _ in range(lanes):
        scheduler.submit(request(id="running"))
        gate.wait_entered()
    deadline = time.monotonic() + 0.02
    late = scheduler.submit(request(id="late"), deadline=deadline)
    wait_until(lambda: time.monotonic() > deadline)
    gate.opened.set()
    with pytest.raises(DeadlinePassed):
        late.result(WAIT_S)
    assert "late" not in gate.computed
    assert observer.drops == {"expired": 1}


def test_a_request_that_comes_late_counts_as_expired(
    scheduler: Scheduler, observer: Counting
) -> None:
    with pytest.raises(DeadlinePassed):
        scheduler.submit(request(), deadline=time.monotonic() - 1)
    assert observer.drops == {"expired": 1}


def test_a_full_queue_refuses_at_once(
    pipeline: Pipeline, observer: Counting, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(pipeline, BatchingSettings(max_queue_items=3), observer=observer)
    gate = Gate(pipeline, monkeypatch)
    futures = []
    for _ in range(lanes):
        futures.append(scheduler.submit(request()))
        gate.wait_entered()
    futures += [scheduler.submit(request()) for _ in range(3)]
    with pytest.raises(Overloaded) as caught:
        scheduler.submit(request())
    assert caught.value.retry_after_ms > 0
    gate.opened.set()
    for future in futures:
        future.result(WAIT_S)
    scheduler.close()
    assert observer.refusals == {"queue": 1}


def test_what_would_wait_longer_than_the_target_is_refused_at_once(
    pipeline: Pipeline, observer: Counting, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(
        pipeline, overload=OverloadSettings(target_p99_ms=0.001), observer=observer
    )
    scheduler.submit(request()).result(WAIT_S)  # from now on the pace is known
    wait_until(lambda: scheduler.load.tokens_per_s > 0)
    gate = Gate(pipeline, monkeypatch)
    futures = [scheduler.submit(request()) for _ in range(lanes)]
    with pytest.raises(Overloaded) as caught:
        scheduler.submit(request())
    assert caught.value.reason == "target"
    gate.opened.set()
    for future in futures:
        future.result(WAIT_S)
    scheduler.close()
    assert observer.refusals == {"target": 1}
    assert scheduler.load.n_tokens == 0
    assert scheduler.load.n_late == 1 + lanes


def test_another_tenant_is_not_made_to_wait_for_a_flood(
    pipeline: Pipeline, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(pipeline, BatchingSettings(max_batch_items=1))
    gate = Gate(pipeline, monkeypatch)
    flood = [scheduler.submit(request(id="flood", tenant="flood")) for _ in range(20)]
    for _ in range(lanes):
        gate.wait_entered()
    quiet = scheduler.submit(request(id="quiet", tenant="quiet"))
    gate.opened.set()
    for future in [*flood, quiet]:
        future.result(WAIT_S)
    scheduler.close()
    # Those under way, at most one more of each lane before it is read, and its turn.
    assert gate.computed.index("quiet") <= 2 * lanes + 1


def test_drain_answers_all_that_was_admitted_and_admits_no_more(
    scheduler: Scheduler, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(pipeline, monkeypatch)
    asked = Question(instruction=Instruction.of("new", ["card", "pin"]))
    futures = [scheduler.submit(request("my card", *q)) for q in [(), (asked,)] * 10]
    assert not scheduler.drain(0.01)
    with pytest.raises(Unavailable):
        scheduler.submit(request())
    gate.opened.set()
    assert scheduler.drain(WAIT_S)
    assert all(future.done() and not future.exception() for future in futures)


def test_close_refuses_what_waits_and_loses_no_future(
    pipeline: Pipeline, observer: Counting, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(pipeline, observer=observer)
    gate = Gate(pipeline, monkeypatch)
    running = []
    for _ in range(lanes):
        running.append(scheduler.submit(request()))
        gate.wait_entered()
    asked = Question(instruction=Instruction.of("new", ["card", "pin"]))
    waiting = [scheduler.submit(request("my card", *q)) for q in [(), (asked,)] * 4]
    preparing = scheduler.prepare(Instruction.of("other", ["a", "b"]))
    closer = threading.Thread(target=scheduler.close)
    closer.start()
    for future in waiting:
        assert isinstance(future.exception(WAIT_S), Unavailable)
    assert isinstance(preparing.exception(WAIT_S), Unavailable)
    gate.opened.set()
    closer.join(WAIT_S)
    assert all(future.result(0) for future in running)
    assert observer.drops["closed"] == 8


def test_a_fault_of_ours_comes_back_as_an_id_and_the_worker_lives(
    scheduler: Scheduler,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*args: object, **kwargs: object) -> list[Outcome]:
        raise ValueError("sec" + "ret text")  # as if a text stood in it

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "compute", broken)
        error = scheduler.submit(request()).exception(WAIT_S)
    assert isinstance(error, InternalError)
    assert "secret" not in str(error) + caplog.text
    assert str(error).split()[-1] in caplog.text
    assert scheduler.submit(request("I lost my card")).result(WAIT_S).label == "card lost"


def test_a_fault_while_preparing_reaches_whoever_waits(
    scheduler: Scheduler, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> object:
        raise ValueError("no")

    asked = [Question(instruction=Instruction.of(f"q {i}", ["a", "b"])) for i in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.tokenizer, "encode_candidates", broken)
        future = scheduler.submit(request("card", *asked))
        assert isinstance(future.exception(WAIT_S), InternalError)
    assert scheduler.drain(WAIT_S)
    assert scheduler.n_waiting == 0


def test_a_blocked_or_masked_text_is_answered_like_any_other(scheduler: Scheduler) -> None:
    found = scheduler.submit(request("打我电话13800138000")).result(WAIT_S)
    assert found.action == "mask"
    assert scheduler.drain(WAIT_S)


def test_a_storm_of_submits_cancels_and_deadlines_ends_every_future(
    pipeline: Pipeline, observer: Counting
) -> None:
    scheduler = Scheduler(pipeline, BatchingSettings(max_queue_items=64), observer=observer)
    futures, refused = [], Counter[str]()
    lock = threading.Lock()

    def storm(seed: int) -> None:
        for step in range(120):
            words = "card " * (1 + (seed * 7 + step * 3) % 20)
            own = Instruction.of(f"q {step % 9}", ["card", "余额"])
            asked = Question(instruction=own) if step % 3 else Question()
            deadline = time.monotonic() + 0.002 * (step % 5) if step % 4 == 0 else None
            try:
                future = scheduler.submit(request(words, asked), deadline=deadline)
            except (Overloaded, DeadlinePassed) as error:
                with lock:
                    refused[type(error).__name__] += 1
                continue
            if step % 5 == 0:
                future.cancel()
            with lock:
                futures.append(future)

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert scheduler.drain(WAIT_S)
    assert len(futures) + refused.total() == 480
    assert all(future.done() for future in futures)
    ends = Counter("cancelled" if f.cancelled() else type(f.exception()).__name__ for f in futures)
    assert set(ends) <= {"cancelled", "NoneType", "DeadlinePassed"}
    assert sum(b.n_items for b in observer.batches) >= ends["NoneType"]
    assert scheduler.n_waiting == 0
    assert (scheduler.load.n_tokens, scheduler.load.n_tenants) == (0, 0)
    scheduler.close()

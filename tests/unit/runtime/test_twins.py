"""Requests that read the same are read once, and stay apart in everything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from instructrec_deploy.core.errors import DeadlinePassed, InternalError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.batching import BatchingSettings
from instructrec_deploy.runtime.engine import Encoding
from instructrec_deploy.runtime.observer import BatchStats, DropReason, Observer
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.scheduler import Scheduler
from instructrec_deploy.runtime.twins import Twins

WAIT_S = 20  # for a future; far beyond what a right run needs
OTHER = Question(instruction=Instruction.of("别的问题", ["是", "否"]))
TEXT = "我的卡丢了 I lost my card"


class Held(Observer):
    """The encoder: holds the first batch back until it is let go, and counts rows."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []  # of each batch
        self.n_joined = 0
        self.drops: list[DropReason] = []
        self.entered, self.opened = threading.Event(), threading.Event()
        encode = pipeline.engine.encode

        def held(ids: Any, mask: Any, **how: Any) -> Encoding:
            self.rows.append(len(ids))
            self.entered.set()
            assert self.opened.wait(WAIT_S)
            return encode(ids, mask, **how)

        monkeypatch.setattr(pipeline.engine, "encode", held)

    def batch_done(self, stats: BatchStats) -> None:
        self.n_joined += stats.n_joined

    def dropped(self, reason: DropReason, n_items: int) -> None:
        self.drops += [reason] * n_items


@pytest.fixture
def held(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Held:
    pipeline.warm()
    assert OTHER.instruction is not None
    pipeline.prepare(OTHER.instruction)
    return Held(pipeline, monkeypatch)


@pytest.fixture
def scheduler(pipeline: Pipeline, held: Held) -> Iterator[Scheduler]:
    opened = Scheduler(pipeline, BatchingSettings(max_queue_items=40), observer=held)
    yield opened
    held.opened.set()
    opened.close()


def ask(
    scheduler: Scheduler, text: str = TEXT, *questions: Question, tenant: str = "", **how: Any
) -> Future[Prediction]:
    request = Request.of(text, questions or (Question(),))
    return scheduler.submit(replace(request, tenant=tenant), **how)


def ask_first(scheduler: Scheduler, held: Held, text: str = TEXT) -> Future[Prediction]:
    """A request that is being encoded."""
    first = ask(scheduler, text)
    assert held.entered.wait(WAIT_S)
    return first


def results(held: Held, futures: Sequence[Future[Prediction]]) -> list[Prediction]:
    held.opened.set()
    return [future.result(WAIT_S) for future in futures]


def test_who_comes_while_its_text_is_being_read_joins(
    scheduler: Scheduler, held: Held, pipeline: Pipeline
) -> None:
    futures = [ask_first(scheduler, held), ask(scheduler), ask(scheduler, TEXT, OTHER, Question())]
    found = results(held, futures)
    assert held.rows == [1]
    assert scheduler.drain(WAIT_S)
    assert held.n_joined == 2
    for prediction, questions in zip(
        found, [(Question(),), (Question(),), (OTHER, Question())], strict=True
    ):
        alone = pipeline.answer([Request.of(TEXT, questions)])[0]
        assert isinstance(alone, Prediction)
        assert [a.label for a in prediction.answers] == [a.label for a in alone.answers]
        assert [a.score for a in prediction.answers] == pytest.approx(
            [a.score for a in alone.answers], abs=1e-5
        )
        assert prediction.timings.inference_ms <= prediction.timings.total_ms


def test_twins_that_wait_are_read_once_with_the_batch_of_the_first(
    scheduler: Scheduler, held: Held
) -> None:
    first = ask_first(scheduler, held, "something else")
    waiting = [ask(scheduler, text) for text in [TEXT, "余额 12", TEXT, TEXT, "余额 12"]]
    results(held, [first, *waiting])
    assert sum(held.rows) == 3


def test_a_cancelled_one_takes_no_other_with_it(scheduler: Scheduler, held: Held) -> None:
    first = ask_first(scheduler, held, "something else")
    leader, twin, third = ask(scheduler), ask(scheduler), ask(scheduler)
    assert leader.cancel()
    assert third.cancel()
    results(held, [first, twin])
    assert sum(held.rows) == 2
    assert held.drops == ["cancelled"] * 2


def test_one_that_joined_can_be_cancelled_and_one_that_is_read_for_others_cannot(
    scheduler: Scheduler, held: Held
) -> None:
    first = ask_first(scheduler, held)
    gone, kept = ask(scheduler), ask(scheduler)
    assert gone.cancel()
    assert not first.cancel()
    results(held, [first, kept])
    assert (held.rows, held.drops) == ([1], ["cancelled"])
    assert scheduler.drain(WAIT_S)
    assert (scheduler.n_waiting, scheduler.load.n_tokens) == (0, 0)


def test_one_that_joined_keeps_its_deadline(scheduler: Scheduler, held: Held) -> None:
    first = ask_first(scheduler, held)
    deadline = time.monotonic() + 0.02
    late = ask(scheduler, deadline=deadline)
    while time.monotonic() <= deadline:
        time.sleep(0.001)
    results(held, [first])
    with pytest.raises(DeadlinePassed):
        late.result(WAIT_S)
    assert held.drops == ["expired"]


def test_tenants_share_a_reading_and_nothing_else(scheduler: Scheduler, held: Held) -> None:
    first = ask_first(scheduler, held, "something else")
    one, two = ask(scheduler, tenant="one"), ask(scheduler, tenant="two")
    assert one.cancel()
    assert {p.n_tokens for p in results(held, [two])} == {two.result(0).n_tokens}
    first.result(WAIT_S)
    assert scheduler.drain(WAIT_S)
    assert scheduler.load.n_tenants == 0


def test_other_marks_and_seconds_are_other_texts(scheduler: Scheduler, held: Held) -> None:
    first = ask_first(scheduler, held)
    others = [
        Request.of(TEXT, text2="so"),
        Request.of(TEXT, head=(0, 2), tail=(3, 4)),
        Request.of(TEXT, head=(0, 2), tail=(2, 4)),
    ]
    results(held, [first, *[scheduler.submit(one) for one in others]])
    assert sum(held.rows) == 4


def test_a_reading_that_fails_fails_for_all_who_joined(
    scheduler: Scheduler, held: Held, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask_first(scheduler, held)
    joined = ask(scheduler)

    def broken(*args: Any, **how: Any) -> Any:
        raise ValueError

    monkeypatch.setattr(pipeline, "_ask_all", broken)
    held.opened.set()
    for future in (first, joined):
        assert isinstance(future.exception(WAIT_S), InternalError)
    assert scheduler.drain(WAIT_S)


def test_close_answers_those_who_joined(scheduler: Scheduler, held: Held) -> None:
    futures = [ask_first(scheduler, held)]
    closer = threading.Thread(target=scheduler.close)
    futures.append(ask(scheduler))
    held.opened.set()
    futures[0].result(WAIT_S)
    closer.start()
    closer.join(WAIT_S)
    assert futures[1].done()


def test_equal_texts_are_read_apart_where_the_settings_say_so(
    pipeline: Pipeline, held: Held
) -> None:
    scheduler = Scheduler(pipeline, BatchingSettings(join_equal=False), observer=held)
    results(held, [ask_first(scheduler, held), ask(scheduler), ask(scheduler)])
    scheduler.close()
    assert (sum(held.rows), held.n_joined) == (3, 0)


def test_equal_texts_of_one_batch_in_process_are_read_once(held: Held, pipeline: Pipeline) -> None:
    held.opened.set()
    found = pipeline.answer([Request.of(text) for text in [TEXT, "another", TEXT]])
    assert held.rows == [2]
    assert found[0].answers == found[2].answers  # type: ignore[union-attr]


def test_of_twins_the_first_that_is_left_counts() -> None:
    twins: Twins[str] = Twins()
    assert [twins.add("k", name) for name in ("a", "b", "c")] == [True, False, False]
    assert twins.remove("k", "b") is None
    assert twins.remove("k", "a") == "c"
    assert twins.remove("k", "c") is None
    assert twins.add("k", "d")
    assert (twins.add(None, "a"), twins.add(None, "b")) == (True, True)

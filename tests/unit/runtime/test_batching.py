"""The queue: who is computed together, who first, who never."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from instructrec_deploy.core.errors import DeadlinePassed, Overloaded
from instructrec_deploy.runtime.batching import BatchingSettings, BatchQueue, Entry
from tests.fake_clock import FakeClock


def queue_of(clock: FakeClock, **changes: Any) -> BatchQueue[str]:
    return BatchQueue(BatchingSettings(**changes), clock=clock)


def put(
    queue: BatchQueue[str],
    name: str,
    n_tokens: int,
    deadline_s: float | None = None,
    *,
    tenant: str = "",
) -> Entry[str]:
    queue.reserve(deadline_s, tenant=tenant)
    return queue.put(name, n_tokens=n_tokens, deadline_s=deadline_s, tenant=tenant)


def names(queue: BatchQueue[str], **how: Any) -> list[str]:
    return [entry.payload for entry in queue.take(**how).batch]


def test_a_lone_request_is_taken_at_once(clock: FakeClock) -> None:
    queue = queue_of(clock)
    put(queue, "a", 10)
    assert names(queue) == ["a"]
    assert names(queue) == []


def test_the_oldest_is_taken_with_those_nearest_in_length(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_tokens=90, call_tokens=1000)
    for name, n_tokens in [("old", 30), ("short", 5), ("like", 29), ("near", 28), ("long", 200)]:
        put(queue, name, n_tokens)
        clock.now += 0.001
    assert sorted(names(queue)) == ["like", "near", "old"]
    assert names(queue) == ["short"]
    assert names(queue) == ["long"]


def test_a_batch_closes_when_the_token_budget_is_full(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_tokens=100)
    put(queue, "a", 60)
    put(queue, "b", 60)
    assert [names(queue), names(queue)] == [["a"], ["b"]]


def test_a_single_request_may_exceed_the_budget(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_tokens=100)
    put(queue, "a", 500)
    assert names(queue) == ["a"]


def test_padding_that_costs_more_than_a_call_is_not_accepted(clock: FakeClock) -> None:
    queue = queue_of(clock, call_tokens=16)
    put(queue, "short", 5)
    put(queue, "long", 100)
    assert names(queue) == ["short"]


def test_settings_fit_the_engine_where_they_are_not_told() -> None:
    cpu, gpu = BatchingSettings().fitted(), BatchingSettings().fitted(is_gpu=True)
    assert 0 < cpu.max_batch_tokens < gpu.max_batch_tokens
    assert 0 < cpu.call_tokens < gpu.call_tokens
    assert BatchingSettings(max_batch_tokens=7).fitted(is_gpu=True).max_batch_tokens == 7


def test_free_workers_share_what_waits(clock: FakeClock) -> None:
    queue = queue_of(clock)
    for index in range(8):
        put(queue, str(index), 10)
    assert len(names(queue, n_takers=2)) == 4
    assert len(names(queue, n_takers=1)) == 4


def test_an_early_deadline_goes_first(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_items=1)
    put(queue, "patient", 10)
    put(queue, "urgent", 10, clock.now + 0.2)
    assert [names(queue), names(queue)] == [["urgent"], ["patient"]]


def test_nobody_starves_behind_requests_with_deadlines(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_items=1, patience_s=1.0)
    put(queue, "patient", 10)
    clock.now += 0.9
    put(queue, "urgent", 10, clock.now + 0.2)
    assert names(queue) == ["patient"]


def test_the_expired_is_handed_out_and_not_computed(clock: FakeClock) -> None:
    queue = queue_of(clock)
    put(queue, "late", 10, clock.now + 0.1)
    put(queue, "in time", 10, clock.now + 0.3)
    clock.now += 0.2
    taken = queue.take()
    assert [entry.payload for entry in taken.expired] == ["late"]
    assert [entry.payload for entry in taken.batch] == ["in time"]


def test_the_discarded_is_gone(clock: FakeClock) -> None:
    queue = queue_of(clock)
    entry = put(queue, "a", 10, clock.now + 1)
    assert queue.discard(entry)
    assert not queue.discard(entry)
    assert names(queue) == []


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(clock: FakeClock) -> None:
    queue = queue_of(clock, max_queue_items=2)
    put(queue, "a", 10)
    queue.reserve()
    queue.pace.note(94, 5.0)  # 50 ms a token; a call costs as much as 6
    with pytest.raises(Overloaded) as caught:
        queue.reserve()
    assert caught.value.reason == "queue"
    assert caught.value.retry_after_ms == 650  # half of 20 tokens and a call
    queue.release()
    queue.reserve()


def test_what_would_be_late_is_refused_at_once(clock: FakeClock) -> None:
    queue = queue_of(clock)
    queue.pace.note(94, 1.0)  # 10 ms a token; a call costs as much as 6
    for index in range(5):
        put(queue, str(index), 10, clock.now + 0.6 + index / 100)
    with pytest.raises(Overloaded) as caught:  # 560 ms for those before it, 160 for itself
        queue.reserve(clock.now + 0.65)
    assert caught.value.reason == "deadline"
    assert 69 <= caught.value.retry_after_ms <= 70


@pytest.mark.parametrize(("n_tokens", "is_late"), [(5, False), (500, True)])
def test_wait_is_counted_in_tokens_not_in_requests(
    clock: FakeClock, n_tokens: int, is_late: bool
) -> None:
    queue = queue_of(clock)
    queue.pace.note(994, 1.0)  # 1 ms a token
    put(queue, "first", n_tokens, clock.now + 0.55)
    with pytest.raises(Overloaded) if is_late else nullcontext():
        queue.reserve(clock.now + 0.6)


def test_company_does_not_make_the_most_urgent_late(clock: FakeClock) -> None:
    queue = queue_of(clock)
    queue.pace.note(94, 1.0)  # 10 ms a token; a call costs as much as 6
    put(queue, "urgent", 10, clock.now + 0.3)
    for index in range(4):
        put(queue, str(index), 10)
    assert len(names(queue)) == 2  # three would take 360 ms
    assert len(names(queue)) == 3


def test_what_cannot_be_in_time_has_full_company(clock: FakeClock) -> None:
    queue = queue_of(clock)
    put(queue, "urgent", 10, clock.now + 0.1)
    for index in range(4):
        put(queue, str(index), 10)
    queue.pace.note(94, 1.0)  # 160 ms alone
    assert len(names(queue)) == 5


def test_an_early_deadline_is_admitted_ahead_of_many_late_ones(clock: FakeClock) -> None:
    queue = queue_of(clock)
    queue.pace.note(94, 1.0)
    for index in range(50):
        put(queue, str(index), 10, clock.now + 60)
    put(queue, "urgent", 10, clock.now + 0.3)
    assert "urgent" in names(queue)


def test_a_flood_refuses_no_deadline_of_another_tenant(clock: FakeClock) -> None:
    queue = queue_of(clock)
    queue.pace.note(94, 1.0)
    for index in range(50):
        put(queue, str(index), 10, tenant="flood")
    clock.now += 0.01
    put(queue, "quiet", 10, clock.now + 0.5, tenant="quiet")
    with pytest.raises(Overloaded):
        put(queue, "more", 10, clock.now + 5, tenant="flood")


def test_batches_are_short_while_several_tenants_ask(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_tokens=1000, call_tokens=6)
    for index in range(40):
        put(queue, str(index), 10, tenant="flood")
    assert len(names(queue)) == 40
    put(queue, "quiet", 10, tenant="quiet")
    for index in range(40):
        put(queue, str(index), 10, tenant="flood")
    assert len(names(queue)) == 9  # 96 tokens: a call costs as much as 6
    clock.now += 60
    assert len(names(queue)) == 32


def test_of_like_ones_the_oldest_are_taken(clock: FakeClock) -> None:
    queue = queue_of(clock, max_batch_items=2)
    for name in "abc":
        put(queue, name, 10, tenant="x")
    put(queue, "d", 10, tenant="y")
    queue.take(n_takers=4)
    assert names(queue) == ["d", "b"]


def test_a_deadline_that_has_passed_is_refused(clock: FakeClock) -> None:
    with pytest.raises(DeadlinePassed):
        queue_of(clock).reserve(clock.now)


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens: nothing lost, nothing twice, budgets kept, nothing expired computed."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.settings = BatchingSettings(
            max_batch_tokens=100, max_batch_items=6, max_queue_items=20, use_admission=False
        )
        self.queue: BatchQueue[int] = BatchQueue(self.settings, clock=self.clock)
        self.waiting: dict[int, Entry[int]] = {}
        self.n_put = 0

    @rule(
        n_tokens=st.integers(1, 140),
        wait=st.none() | st.floats(0.01, 5),
        tenant=st.sampled_from("ab"),
        has_twins=st.booleans(),
    )
    def put(self, n_tokens: int, wait: float | None, tenant: str, has_twins: bool) -> None:
        deadline = None if wait is None else self.clock.now + wait
        if len(self.waiting) == self.settings.max_queue_items:
            with pytest.raises(Overloaded):
                self.queue.reserve(deadline)
            return
        self.queue.reserve(deadline)
        entry = self.queue.put(
            self.n_put,
            n_tokens=30 if has_twins else n_tokens,
            deadline_s=deadline,
            tenant=tenant,
            reading="same" if has_twins else None,
        )
        self.waiting[self.n_put] = entry
        self.n_put += 1

    @rule(seconds=st.floats(0, 2))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(n_takers=st.integers(1, 3))
    def take(self, n_takers: int) -> None:
        live = [e for e in self.waiting.values() if e.deadline_s > self.clock.now]
        most_urgent = {
            min((e for e in live if e.tenant == tenant), key=lambda e: (e.urgency_s, e.order))
            for tenant in {e.tenant for e in live}
        }
        taken = self.queue.take(n_takers=n_takers)
        for entry in taken.expired:
            assert entry.deadline_s <= self.clock.now
        for entry in taken.batch:
            assert entry.deadline_s > self.clock.now
        for entry in [*taken.expired, *taken.batch]:
            assert self.waiting.pop(entry.payload) is entry
        assert bool(most_urgent) == bool(taken.batch)
        assert not most_urgent or not most_urgent.isdisjoint(taken.batch)
        n_twins = sum(entry.reading is not None for entry in taken.batch)
        assert n_twins in (0, sum(entry.reading is not None for entry in live))
        assert taken.n_read == len(taken.batch) - max(0, n_twins - 1)
        assert taken.n_read <= self.settings.max_batch_items
        if taken.n_read > 1:
            assert taken.padded_tokens <= self.settings.max_batch_tokens

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if self.waiting:
            name = data.draw(st.sampled_from(sorted(self.waiting)))
            assert self.queue.discard(self.waiting.pop(name))

    @invariant()
    def everything_else_still_waits(self) -> None:
        assert len(self.queue) == self.queue.n_waiting == len(self.waiting)
        alone = [entry.n_tokens for entry in self.waiting.values() if entry.reading is None]
        n_same = 30 * (len(alone) < len(self.waiting))
        assert self.queue.n_waiting_tokens == sum(alone) + n_same

    def teardown(self) -> None:
        assert {entry.payload for entry in self.queue.take_all()} == set(self.waiting)
        assert len(self.queue) == 0


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = hypothesis_settings(
    max_examples=40, stateful_step_count=40, deadline=None
)


def test_a_batch_leaves_other_workers_their_share(clock: FakeClock) -> None:
    queue = queue_of(clock)
    for number in range(8):
        put(queue, str(number), 10)
    assert len(names(queue, share_tokens=40)) == 4
    assert len(names(queue, n_takers=2, n_coming=4)) == 4


def test_a_request_longer_than_the_share_is_taken_alone(clock: FakeClock) -> None:
    queue = queue_of(clock)
    put(queue, "long", 50)
    put(queue, "other", 50)
    assert names(queue, share_tokens=40) == ["long"]


def test_what_is_in_flight_makes_a_batch_for_each_worker() -> None:
    settings = BatchingSettings().fitted()
    assert settings.share_tokens(1024, 2) == 512
    assert settings.share_tokens(0, 2) == 96  # a call's cost is a sixteenth of it

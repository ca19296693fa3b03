"""Who is let in: what the target allows, and what latencies teach."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import Overloaded
from instructrec_deploy.runtime.admission import Admission, OverloadSettings, Stay, TargetShare
from instructrec_deploy.runtime.batching import BatchingSettings
from instructrec_deploy.runtime.pace import Pace
from tests.fake_clock import FakeClock
from tests.simulated import Caller, Outcome, Simulation

TARGET = OverloadSettings(target_p99_ms=1000)


def admission_of(clock: FakeClock, settings: OverloadSettings = TARGET) -> Admission:
    """One worker that computes 1,000 tokens a second."""
    pace = Pace()
    pace.note(1000, 1.0)
    return Admission(settings, pace=pace, clock=clock)


def enter(admission: Admission, n_tokens: int, *, tenant: str = "") -> Stay:
    admission.check(tenant)
    return admission.enter(Stay(n_tokens, tenant))


def fill(admission: Admission, *, tenant: str = "", n_tokens: int = 100) -> int:
    """Let requests in until one is refused; how many were."""
    for n_let_in in range(1000):
        try:
            enter(admission, n_tokens, tenant=tenant)
        except Overloaded:
            return n_let_in
    raise AssertionError("nobody is refused")


def test_of_requests_that_read_the_same_one_counts(clock: FakeClock) -> None:
    admission = admission_of(clock)
    stays = [enter(admission, 50, tenant=tenant) for tenant in ("a", "b", "b")]
    for stay in stays:
        admission.measure(stay, 100, "same")
    assert (admission.load().n_tokens, admission.load().n_tenants) == (100, 1)
    admission.leave(stays[0], is_answered=False)  # another one counts in its place
    assert (admission.load().n_tokens, admission.load().n_tenants) == (100, 1)
    for stay in stays[1:]:
        admission.leave(stay, is_answered=True)
    assert (admission.load().n_tokens, admission.load().n_tenants) == (0, 0)


def test_what_is_expected_later_than_the_target_is_refused_with_a_hint(clock: FakeClock) -> None:
    admission = admission_of(clock)
    assert fill(admission) == 9  # 800 ms of work and the one that comes behind it
    with pytest.raises(Overloaded) as caught:
        enter(admission, 1)
    assert (caught.value.reason, caught.value.retry_after_ms) == ("target", 900)


def test_without_a_target_or_a_pace_nobody_is_refused(clock: FakeClock) -> None:
    unhurried = admission_of(clock, OverloadSettings())
    unlearned = Admission(TARGET, pace=Pace(), clock=clock)
    for admission in (unhurried, unlearned):
        for _ in range(100):
            enter(admission, 1000)
        assert admission.load().limit_tokens == 0.0


def test_an_idle_worker_is_never_kept_from_work(clock: FakeClock) -> None:
    admission = admission_of(clock, OverloadSettings(target_p99_ms=1))
    stay = enter(admission, 500)
    with pytest.raises(Overloaded):
        enter(admission, 1)
    admission.leave(stay, is_answered=False)
    enter(admission, 500)


def test_what_leaves_makes_room_and_the_true_length_counts(clock: FakeClock) -> None:
    admission = admission_of(clock)
    stay = enter(admission, 5000)
    with pytest.raises(Overloaded):
        enter(admission, 1)
    admission.measure(stay, 100)
    assert fill(admission) == 8
    admission.leave(stay, is_answered=False)
    enter(admission, 1)
    assert (admission.load().n_tokens, admission.load().n_tenants) == (801, 1)


def test_a_long_text_is_let_in_as_easily_as_a_short_one(clock: FakeClock) -> None:
    admission = admission_of(clock)
    for _ in range(8):
        enter(admission, 100)
    enter(admission, 5000)


def test_a_tenant_is_let_in_beside_one_that_fills_the_limit(clock: FakeClock) -> None:
    admission = admission_of(clock)
    fill(admission, tenant="flood")
    assert fill(admission, tenant="quiet") == 5  # half of 800 ms is its own
    assert fill(admission, tenant="flood") == 0
    assert admission.load().n_tenants == 2


def test_a_tenant_does_not_pay_for_the_lateness_of_another(clock: FakeClock) -> None:
    admission = admission_of(clock)
    for _ in range(30):  # until next to nothing of the target is left
        late = enter(admission, 10, tenant="flood")
        clock.now += 5.0
        admission.leave(late, is_answered=True)
    enter(admission, 900, tenant="flood")
    with pytest.raises(Overloaded):
        enter(admission, 100, tenant="flood")
    assert fill(admission, tenant="quiet") == 4  # until it has a quarter of all


def test_all_tenants_together_are_bounded(clock: FakeClock) -> None:
    admission = admission_of(clock)
    fill(admission, tenant="first", n_tokens=900)
    for number in range(12):  # two seconds of work in all
        enter(admission, 100, tenant=str(number))
    with pytest.raises(Overloaded):
        enter(admission, 100, tenant="one more")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.integers(0, 3))))
def test_what_is_in_flight_is_what_has_not_left(steps: list[tuple[str, int, int]]) -> None:
    admission = admission_of(FakeClock())
    stays: list[Stay] = []
    for tenant, n_tokens, action in steps:
        if action < 2 or not stays:
            stays.append(admission.enter(Stay(n_tokens, tenant)))
        elif action == 2:
            admission.measure(stays[n_tokens % len(stays)], n_tokens)
        else:
            admission.leave(stays.pop(n_tokens % len(stays)), is_answered=n_tokens % 2 == 0)
        assert admission.load().n_tokens == sum(stay.n_tokens for stay in stays)
    busy = {stay.tenant for stay in stays if stay.n_tokens}
    assert busy <= set(admission._by_tenant) <= {stay.tenant for stay in stays} | busy


def note(share: TargetShare, came_s: float, now_s: float, *, is_full: bool = True) -> None:
    share.note(came_s=came_s, now_s=now_s, target_s=1.0, is_full=is_full)


def test_late_answers_cut_once_for_all_that_waited_together() -> None:
    share = TargetShare()
    for index in range(20):
        note(share, index / 100, 2.0)
    assert share.n_late == 20
    assert share.share == pytest.approx(0.72)
    note(share, 2.1, 3.2)
    assert share.share == pytest.approx(0.648)


def test_answers_in_time_raise_it_once_a_target_while_there_is_much_to_do() -> None:
    share = TargetShare()
    note(share, 0.0, 0.5, is_full=False)
    assert share.share == 0.8
    for came_s in (0.0, 0.1, 0.9, 1.0, 1.1):
        note(share, came_s, came_s + 0.5)
    assert share.share == pytest.approx(0.82)


def test_it_stays_within_bounds() -> None:
    share = TargetShare()
    for index in range(100):
        note(share, 10.0 * index, 10.0 * index + 5)
    assert share.share == TargetShare.LEAST
    for index in range(2000, 5000):
        note(share, index, index + 0.5)
    assert share.share == TargetShare.MOST


def goodput(outcome: Outcome, seconds: float, *, full: float = 10_000.0) -> float:
    """Tokens answered in a second, as a share of what the workers could do in full batches."""
    return outcome.n_tokens / seconds / full


@pytest.mark.parametrize("target_ms", [200.0, 500.0])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_three_times_the_capacity_leaves_goodput_and_the_target_whole(
    target_ms: float, noise: float
) -> None:
    server = Simulation(OverloadSettings(target_p99_ms=target_ms), noise=noise)
    (found,) = server.run([Caller(tokens_per_s=30_000)], 30.0)
    assert goodput(found, 30.0) > 0.9
    assert found.quantile(0.99) <= 1.1 * target_ms / 1000


def test_texts_of_all_lengths_keep_the_target_and_are_let_in_alike() -> None:
    server = Simulation(OverloadSettings(target_p99_ms=500))
    lengths = (10, 25, 60, 120, 250)
    found = server.run([Caller(6_000, n_tokens=length) for length in lengths], 20.0)
    assert all(one.quantile(0.99) < 0.6 for one in found)
    assert sum(goodput(one, 20.0) for one in found) > 0.9
    shares = [len(one.latencies_s) / (len(one.latencies_s) + one.n_refused) for one in found]
    assert max(shares) < 1.5 * min(shares)


def test_what_the_server_can_do_is_not_refused() -> None:
    server = Simulation(OverloadSettings(target_p99_ms=500))
    (found,) = server.run([Caller(tokens_per_s=6_000)], 30.0)
    assert found.n_refused < 0.01 * len(found.latencies_s)


def test_a_gpu_is_not_held_back_after_a_quiet_hour() -> None:
    batching = BatchingSettings().fitted(is_gpu=True)
    server = Simulation(
        OverloadSettings(target_p99_ms=100), batching, n_workers=1, worker_tokens_per_s=1e6
    )
    server.run([Caller(tokens_per_s=2_000, n_tokens=20)], 5.0)
    (found,) = server.run([Caller(tokens_per_s=500_000, n_tokens=20)], 0.5)
    assert found.n_refused < 0.01 * len(found.latencies_s)


@pytest.mark.parametrize("n_tokens", [20, 200])
def test_a_flood_costs_another_tenant_no_refusal_and_little_time(n_tokens: int) -> None:
    server = Simulation(OverloadSettings(target_p99_ms=500))
    flood = Caller(tokens_per_s=30_000, n_tokens=n_tokens, name="flood")
    quiet = Caller(tokens_per_s=2_000, n_tokens=n_tokens, name="quiet")
    flooded, found = server.run([flood, quiet], 15.0)
    assert found.n_refused == 0
    assert found.quantile(0.99) < 0.5 * flooded.quantile(0.99)
    assert flooded.quantile(0.99) < 0.75
    assert goodput(flooded, 15.0) + goodput(found, 15.0) > 0.9


def test_two_floods_get_half_each() -> None:
    server = Simulation(OverloadSettings(target_p99_ms=500))
    found = server.run([Caller(20_000, 200, name="heavy"), Caller(10_000, 40, name="light")], 20.0)
    assert goodput(found[0], 20.0) == pytest.approx(goodput(found[1], 20.0), rel=0.1)


def test_a_tenant_gets_its_share() -> None:
    server = Simulation(OverloadSettings(target_p99_ms=500))
    most, less = server.run(
        [Caller(20_000, 100, "most", share=3.0), Caller(20_000, 100, "less")], 20.0
    )
    assert goodput(most, 20.0) == pytest.approx(3 * goodput(less, 20.0), rel=0.15)
    assert most.quantile(0.99) < 0.75

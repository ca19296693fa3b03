"""Token buckets of tenants."""

from __future__ import annotations

from concurrent.futures import Future
from typing import cast

import pytest

from instructrec_deploy.core.errors import Denied, Overloaded, Unavailable
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request, guess_tokens
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.admission import OverloadSettings
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.server.access.callers import Caller, Quota
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.quotas import MAX_TENANTS, Quotas
from instructrec_deploy.server.served import Model

SHOP, BANK = Caller("1", "shop"), Caller("2", "bank")
FORTY = "x" * 152  # 40 tokens by the guess


class FakeModel:
    """Answers when told to."""

    def __init__(self) -> None:
        self.futures: list[Future[Prediction]] = []
        self.error: Exception | None = None

    def submit(self, request: Request, deadline: float | None) -> Future[Prediction]:
        if self.error is not None:
            raise self.error
        self.futures.append(Future())
        return self.futures[-1]

    def is_prepared(self, instruction: Instruction) -> bool:
        return instruction.text == "known"

    def prepare(self, instruction: Instruction) -> Future[PreparedInstruction]:
        return Future()


class Setting:
    """Quotas of 10 tokens a second and 100 at once, and what they stand before."""

    def __init__(self, tokens_per_s: float = 10.0, burst_tokens: int = 100) -> None:
        self.now = 50.0
        self.metrics = Metrics()
        settings = OverloadSettings(
            tenant_tokens_per_s=tokens_per_s, tenant_burst_tokens=burst_tokens
        )
        self.quotas = Quotas(settings, self.metrics, clock=lambda: self.now)
        self.fake = FakeModel()
        self.model = cast(Model, self.fake)

    def send(self, caller: Caller = SHOP, text: str = FORTY, *questions: Question) -> None:
        self.quotas.submit(self.model, Request.of(text, questions or (Question(),)), None, caller)

    def answer(self, n_tokens: int) -> None:
        self.fake.futures.pop(0).set_result(Prediction((), n_tokens=n_tokens))

    def n_sent(self, caller: Caller = SHOP) -> int:
        for n_sent in range(100):
            try:
                self.send(caller)
            except Overloaded:
                return n_sent
        return 100


@pytest.fixture
def setting() -> Setting:
    return Setting()


@pytest.mark.parametrize(("text", "n_tokens"), [(FORTY, 40), ("余额" * 20, 32), ("🙂", 3)])
def test_guess_counts_bytes(text: str, n_tokens: int) -> None:
    assert guess_tokens(text) == n_tokens


def test_beyond_the_burst_is_refused_until_it_has_filled(setting: Setting) -> None:
    assert setting.n_sent() == 2
    with pytest.raises(Overloaded) as caught:
        setting.send()
    assert (caught.value.reason, caught.value.retry_after_ms) == ("rate", 2000)
    setting.now += 2.0
    assert setting.n_sent() == 1
    setting.now += 3600
    assert setting.n_sent() == 2


def test_refusals_are_counted(setting: Setting) -> None:
    setting.n_sent()
    value = setting.metrics.registry.get_sample_value
    assert value("instructrec_refused_total", {"reason": "rate"}) == 1.0
    assert value("instructrec_dropped_total", {"reason": "overloaded"}) == 1.0


def test_tenants_have_buckets_of_their_own_and_keys_of_one_share_it(setting: Setting) -> None:
    setting.n_sent(SHOP)
    assert setting.n_sent(BANK) == 2
    assert setting.n_sent(Caller("9", "shop")) == 0


def test_true_length_is_paid_when_it_is_known(setting: Setting) -> None:
    setting.send()
    setting.answer(n_tokens=10)  # 30 come back
    assert setting.n_sent() == 2
    setting.answer(n_tokens=90)  # 50 are owed
    with pytest.raises(Overloaded) as caught:
        setting.send()
    assert caught.value.retry_after_ms == 8000


def test_what_is_not_answered_costs_nothing(setting: Setting) -> None:
    setting.n_sent()
    setting.fake.futures[0].cancel()
    setting.fake.futures[1].set_exception(Unavailable("closing"))
    assert setting.n_sent() == 2


def test_what_the_model_refuses_costs_nothing(setting: Setting) -> None:
    setting.fake.error = Overloaded("full")
    for _ in range(10):
        with pytest.raises(Overloaded, match="full"):
            setting.send()
    setting.fake.error = None
    assert setting.n_sent() == 2


def test_a_text_longer_than_the_bucket_is_let_in_by_a_full_one(setting: Setting) -> None:
    setting.send(SHOP, "x" * 4000)
    setting.answer(n_tokens=1002)
    with pytest.raises(Overloaded):
        setting.send()
    setting.now += 95.0
    assert setting.n_sent() == 1


def test_a_key_s_quota_comes_before_that_of_all(setting: Setting) -> None:
    assert setting.n_sent(Caller("1", "small", quota=Quota(1.0, 50.0))) == 1
    assert setting.n_sent(Caller("2", "free", quota=Quota(0.0))) == 100
    assert setting.n_sent(Caller("3", "usual", quota=Quota(20.0))) == 5  # ten seconds of it


def test_without_a_quota_nobody_is_limited() -> None:
    assert Setting(0.0, 0).n_sent() == 100


def test_instructions_that_are_not_prepared_are_charged(setting: Setting) -> None:
    new = Instruction.of("what", ["abcdefgh"] * 1 + [f"label {i}" for i in range(9)])
    known = Instruction.of("known", ["a", "b"])
    setting.send(SHOP, FORTY, Question(instruction=known))
    with pytest.raises(Overloaded):
        setting.send(SHOP, FORTY, Question(instruction=new))
    setting.quotas.prepare(setting.model, known, SHOP)
    with pytest.raises(Overloaded):
        setting.quotas.prepare(setting.model, new, SHOP)
    setting.quotas.prepare(setting.model, new, BANK)
    assert setting.n_sent(BANK) == 0


def test_who_may_not_ask_is_told_so_and_not_charged(setting: Setting) -> None:
    some = Caller("1", "shop", tasks=("intent",))
    for _ in range(10):
        with pytest.raises(Denied):
            setting.send(some, FORTY, Question(task="other"))
    assert setting.n_sent(SHOP) == 2


def test_memory_is_bounded(setting: Setting) -> None:
    for number in range(MAX_TENANTS + 10):
        setting.send(Caller("", str(number)), "hello")
    assert len(setting.quotas._buckets) == MAX_TENANTS

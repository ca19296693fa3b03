"""How much a tenant may ask: token buckets, counted in the tokens that the model reads.

A text is charged by a guess when it comes and settled by its true length when it is answered; what
is not answered costs nothing. Buckets belong to the server, whatever models it has.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from instructrec_deploy.core.errors import Overloaded
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Request, guess_tokens
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.admission import OverloadSettings
from instructrec_deploy.runtime.pace import retry_ms
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.server.access.callers import Caller, Quota
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.served import Model

MAX_TENANTS = 4096  # buckets kept; who was forgotten comes back with a full one


@dataclass(slots=True)
class Bucket:
    """What a tenant has left. It may owe: a text that was longer than guessed is paid later."""

    tokens: float
    filled_s: float

    def fill(self, quota: Quota, now_s: float) -> None:
        """Let what has flowed in since the last time be in it."""
        flowed = quota.tokens_per_s * (now_s - self.filled_s)
        self.tokens = min(quota.size, self.tokens + flowed)
        self.filled_s = now_s


class Quotas:
    """The buckets of all tenants; calls go to a model through here. Any thread.

    Args:
        settings: the quota of a tenant whose key brings none.
        metrics: count what is refused.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: OverloadSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default = Quota(settings.tenant_tokens_per_s, settings.tenant_burst_tokens)
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def submit(
        self, model: Model, request: Request, deadline: float | None, caller: Caller
    ) -> Future[Prediction]:
        """Queue a request of a caller. Instructions that are not prepared are charged, too.

        Raises:
            Denied: the caller may not ask it.
            Overloaded: too few tokens are left.
            InstructRecError: as `Model.submit`.
        """
        signed = caller.sign(request)
        quota = self._quota(caller)
        if quota is None:
            return model.submit(signed, deadline)
        own = [q.instruction for q in request.questions if q.instruction is not None]
        n_own = sum(_n_new_tokens(model, instruction) for instruction in own)
        charged = self._charge(
            caller.name, quota, guess_tokens(request.text, request.text2) + n_own
        )
        try:
            future = model.submit(signed, deadline)
        except BaseException:
            self._give_back(caller.name, quota, charged)
            raise

        def settle(done: Future[Prediction]) -> None:
            is_answered = not done.cancelled() and done.exception() is None
            spent = done.result().n_tokens + n_own if is_answered else 0
            self._give_back(caller.name, quota, charged - spent)

        future.add_done_callback(settle)
        return future

    def prepare(
        self, model: Model, instruction: Instruction, caller: Caller
    ) -> Future[PreparedInstruction]:
        """Compile an instruction for a caller; one that is prepared costs nothing.

        Raises:
            Overloaded: too few tokens are left.
            InstructRecError: as `Model.prepare`.
        """
        quota = self._quota(caller)
        n_tokens = _n_new_tokens(model, instruction) if quota else 0
        if quota and n_tokens:
            self._charge(caller.name, quota, n_tokens)
        return model.prepare(instruction)

    def _quota(self, caller: Caller) -> Quota | None:
        """Its key's own, else that of all; None where there is no limit."""
        quota = caller.quota or self._default
        return quota if quota.tokens_per_s else None

    def _charge(self, tenant: str, quota: Quota, n_tokens: float) -> float:
        """Take tokens out of a bucket; how many.

        More than a full bucket is never asked for: a full one lets a long text in, and it is
        settled when its length is known.
        """
        needed = min(n_tokens, quota.size)
        with self._lock:
            bucket = self._bucket(tenant, quota)
            missing = needed - bucket.tokens
            if missing > 0:
                self._metrics.count_refusal("rate")
                raise Overloaded(
                    f"the quota of {quota.tokens_per_s:g} tokens a second is used up",
                    hint="send less, or ask the operator for a larger quota",
                    retry_after_ms=retry_ms(missing / quota.tokens_per_s),
                    reason="rate",
                )
            bucket.tokens -= needed
        return needed

    def _give_back(self, tenant: str, quota: Quota, n_tokens: float) -> None:
        """Put tokens back, or take more where negative."""
        with self._lock:
            bucket = self._bucket(tenant, quota)
            bucket.tokens = min(quota.size, bucket.tokens + n_tokens)

    def _bucket(self, tenant: str, quota: Quota) -> Bucket:
        bucket = self._buckets.get(tenant)
        if bucket is None:
            bucket = self._buckets[tenant] = Bucket(quota.size, self._clock())
            if len(self._buckets) > MAX_TENANTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(tenant)
        bucket.fill(quota, self._clock())
        return bucket


def _n_new_tokens(model: Model, instruction: Instruction) -> int:
    """About what preparing an instruction reads: each candidate with the instruction's words."""
    if model.is_prepared(instruction):
        return 0
    n_words = guess_tokens(instruction.text)
    return sum(n_words + guess_tokens(label) for label in instruction.labels)

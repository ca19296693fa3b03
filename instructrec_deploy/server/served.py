"""The model being served: a bundle loaded, checked and warm, behind its scheduler."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from instructrec_deploy import __version__
from instructrec_deploy.core.errors import InstructRecError, OverloadReason
from instructrec_deploy.core.feedback import Feedback, Receipt
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.status import Limits, ModelStatus, TaskStatus
from instructrec_deploy.runtime.judging import check_heads
from instructrec_deploy.runtime.observer import BatchStats, DropReason, Observer
from instructrec_deploy.runtime.opening import Opening, begin_opening
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import question_of
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.runtime.scheduler import Scheduler
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.server.feedback import FeedbackDesk, open_desk
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.safety.desk import SafetyDesk, open_safety_desk
from instructrec_deploy.server.safety.reload import PolicyReload, watch_policy
from instructrec_deploy.server.settings import ServerSettings

TAKE_OVER_S = 10.0  # for preparing what callers of the version before use
log = logging.getLogger(f"{LOGGER}.server")


class Model(Protocol):
    """What the service asks of a model. No method blocks."""

    @property
    def name(self) -> str:
        """What its answers call it."""

    @property
    def version(self) -> str:
        """Of its bundle."""

    @property
    def release(self) -> str:
        """Its folder in a repository; "" without one."""

    @property
    def max_tokens(self) -> int:
        """Its window."""

    def submit(self, request: Request, deadline: float | None) -> Future[Prediction]:
        """Queue a request; `deadline` in seconds of the monotonic clock.

        Raises:
            InstructRecError: it is refused at once.
        """

    def find(self, question: Question) -> Instruction:
        """What a question asks: its own instruction, or a task's.

        Raises:
            TaskUnknown: no such task.
        """

    def is_prepared(self, instruction: Instruction) -> bool:
        """Whether it is in the cache."""

    def prepare(self, instruction: Instruction) -> Future[PreparedInstruction]:
        """Compile an instruction.

        Raises:
            InstructRecError: it is refused at once.
        """

    def lend(self, task: str, words: str, candidates: Sequence[Candidate]) -> Instruction:
        """A task as an instruction, in other words or with other candidates.

        Raises:
            TaskUnknown: no such task.
        """

    def keep(self, feedback: Feedback) -> Future[Receipt]:
        """Keep a correction; done when it is on the disk.

        Raises:
            FeedbackOff: there is no store.
            Overloaded: it is refused at once.
        """

    def status(self, limits: Limits, *, is_ready: bool, with_labels: bool) -> ModelStatus:
        """What is served."""


class MetricsObserver(Observer):
    """Counts what the scheduler tells. Its threads call it."""

    def __init__(self, metrics: Metrics) -> None:
        metric = metrics.metric
        self._metrics = metrics
        self._batch_size = metric("instructrec_batch_size")
        self._inference = metric("instructrec_inference_seconds")
        self._joined = metric("instructrec_joined_total")
        self._tokens = metric("instructrec_tokens_total")
        self._padding = metric("instructrec_padding_tokens_total")
        self._prepare = metric("instructrec_prepare_seconds")

    def batch_done(self, stats: BatchStats) -> None:
        """A batch was computed."""
        self._batch_size.observe(stats.n_items)
        self._inference.observe(stats.inference_s)
        self._joined.inc(stats.n_joined)
        self._tokens.inc(stats.n_tokens)
        self._padding.inc(stats.n_padded_tokens - stats.n_tokens)

    def dropped(self, reason: DropReason, n_items: int) -> None:
        """Requests were not computed, and why."""
        self._metrics.metric("instructrec_dropped_total", reason).inc(n_items)

    def refused(self, reason: OverloadReason) -> None:
        """A request was refused at once."""
        self._metrics.count_refusal(reason)

    def prepared(self, n_candidates: int, seconds: float) -> None:
        """An instruction was prepared."""
        self._prepare.observe(seconds)


class Served:
    """A bundle behind a scheduler (the `Model` that is real)."""

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        *,
        feedback: FeedbackDesk | None = None,
        reload: PolicyReload | None = None,
        safety: SafetyDesk | None = None,
        load_s: float = 0.0,
        release: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        manifest = pipeline.bundle.manifest
        self.name, self.version = manifest.name, manifest.version
        self.max_tokens = manifest.model.max_tokens
        self.load_s, self.release = load_s, release
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._feedback = feedback or FeedbackDesk(None)
        self._reload = reload
        self._safety = safety if safety is not None and safety.is_on else None
        self._clock = clock
        self._started_s = clock()

    def submit(self, request: Request, deadline: float | None) -> Future[Prediction]:
        """See `Model`."""
        future = self._scheduler.submit(request, deadline=deadline)
        if self._safety is not None:
            future.add_done_callback(partial(self._safety.note, request))
        return future

    def find(self, question: Question) -> Instruction:
        """See `Model`."""
        return question.instruction or self._pipeline.bundle.instruction(question.task)

    def is_prepared(self, instruction: Instruction) -> bool:
        """See `Model`."""
        return instruction.key in self._pipeline.cache

    def prepare(self, instruction: Instruction) -> Future[PreparedInstruction]:
        """See `Model`."""
        return self._scheduler.prepare(instruction)

    def lend(self, task: str, words: str, candidates: Sequence[Candidate]) -> Instruction:
        """See `Model`."""
        question = question_of(
            self._pipeline.bundle,
            instruction=words or None,
            candidates=candidates or None,
            task=task,
        )
        return self.find(question)

    def keep(self, feedback: Feedback) -> Future[Receipt]:
        """See `Model`. A correction that names no model is about this one."""
        if not (feedback.model or feedback.model_version):
            feedback = replace(feedback, model=self.name, model_version=self.version)
        return self._feedback.submit(feedback)

    def status(self, limits: Limits, *, is_ready: bool, with_labels: bool) -> ModelStatus:
        """See `Model`."""
        bundle, cache = self._pipeline.bundle, self._pipeline.cache
        book, model = bundle.tasks, bundle.manifest.model

        def describe(name: str, spec: TaskSpec) -> TaskStatus:
            return TaskStatus(
                name,
                spec.kind.value,
                len(spec.labels),
                name == book.default_task,
                spec.labels if with_labels else (),
            )

        return ModelStatus(
            model=self.name,
            model_version=self.version,
            kind=model.kind,
            precision=model.precision,
            is_ready=is_ready,
            tasks=tuple(describe(name, spec) for name, spec in book.tasks.items()),
            n_prepared=len(cache),
            prepared_bytes=cache.size_bytes,
            uptime_s=self._clock() - self._started_s,
            limits=limits,
            server_version=__version__,
        )

    @property
    def tasks(self) -> frozenset[str]:
        """Names of the bundle's tasks."""
        return frozenset(self._pipeline.bundle.tasks.tasks)

    @property
    def info(self) -> tuple[str, str, str, str]:
        """Model, version, kind, precision."""
        model = self._pipeline.bundle.manifest.model
        return self.name, self.version, model.kind, model.precision

    @property
    def policy_version(self) -> str:
        """Of the safety policy in force; "" without a filter."""
        guard = self._pipeline.guard
        return guard.policy.version if isinstance(guard, PolicyGuards) else ""

    def figures(self) -> dict[str, float]:
        """The metrics of the table that it keeps itself, by name."""
        cache, load = self._pipeline.cache, self._scheduler.load
        return {
            "instructrec_queue_depth": self._scheduler.n_waiting,
            "instructrec_in_flight_tokens": load.n_tokens,
            "instructrec_limit_tokens": load.limit_tokens,
            "instructrec_pace_tokens": load.tokens_per_s,
            "instructrec_expected_wait_seconds": load.wait_s,
            "instructrec_tenants": load.n_tenants,
            "instructrec_late_total": load.n_late,
            "instructrec_prepared_count": len(cache),
            "instructrec_prepared_bytes": cache.size_bytes,
            "instructrec_prepared_hits_total": cache.counts.n_hits,
            "instructrec_prepared_misses_total": cache.counts.n_misses,
            "instructrec_prepared_evictions_total": cache.counts.n_evictions,
        }

    def take_over(self, older: Served, *, within_s: float = TAKE_OVER_S) -> None:
        """Prepare what callers of another version use, the last used first. Blocks.

        Ids that there was no time for are prepared when they are asked for.
        """
        resolver, end_s = self._pipeline.resolver, self._clock() + within_s
        resolver.inherit(older._pipeline.resolver)
        for key in reversed(list(older._pipeline.cache.instructions())):
            left_s = end_s - self._clock()
            if left_s <= 0:
                break
            try:
                ask = resolver.resolve(Question(prepared_id=key))
                self._scheduler.prepare(ask.instruction).result(left_s)
            except (InstructRecError, TimeoutError):  # told to whoever asks for it
                continue

    def settle(self) -> None:
        """Take over the ids of the older version for good: it is about to be closed."""
        self._pipeline.resolver.settle()

    def drain(self, timeout_s: float) -> bool:
        """Wait for the accepted requests; False where some took too long. Blocks."""
        return self._scheduler.drain(timeout_s)

    def close(self) -> None:
        """End the threads and give the memory back; what still waits is refused."""
        self._scheduler.close()
        self._pipeline.close()
        self._feedback.close()
        for part in (self._reload, self._safety):
            if part is not None:
                part.close()


def load_served(
    source: Path | Opening,
    settings: ServerSettings,
    metrics: Metrics,
    *,
    name: str = "",
    release: str = "",
) -> Served:
    """Open, check and warm a bundle, and start its scheduler. Blocks.

    Args:
        source: the bundle's folder, or what `begin_opening` made of it.
        name: of the model, in place of the bundle's own.
        release: its folder in a repository.

    Raises:
        FileMissing, BundleError, ConfigError: it or the safety policy cannot be served.
        FeedbackUnusable: the file for corrections cannot be used.
        FileUnusable, SafetyKeyMissing: the audit log cannot be written.
        GoldenFailed: on this machine it does not answer as stated.
        MissingExtra: onnxruntime is not installed.
    """
    opening = (
        source
        if isinstance(source, Opening)
        else begin_opening(
            source,
            engine=settings.engine,
            prepared=settings.prepared,
            policy=settings.safety.policy,
            safety_bundle=settings.safety.bundle,
            name=name,
        )
    )
    log.info("loading", extra={"bundle": opening.folder.name, "release": release})
    pipeline, golden = opening.found.result()  # with its golden pairs, which takes the longest
    bundle = pipeline.bundle
    for warning in golden.warnings:
        log.warning(warning)
    if golden.n_pairs:
        found = {"n_pairs": golden.n_pairs, "max_difference": golden.max_difference}
        log.info("golden pairs agree", extra=found)
    safety = open_safety_desk(settings.safety, metrics, guard=pipeline.guard)
    desk = open_desk(
        settings.feedback, book=bundle.tasks, guard=pipeline.guard, check=pipeline.checks.checked
    )
    scheduler = Scheduler(
        pipeline,
        settings.batching,
        overload=settings.overload,
        observer=MetricsObserver(metrics),
    )
    load_s = time.monotonic() - opening.begun_s
    tasks = frozenset(bundle.tasks.tasks)
    asked = pipeline.judged_by or pipeline  # by the policy's heads
    check = partial(check_heads, bundle=asked.bundle, where=settings.safety.policy)
    reload = watch_policy(settings.safety, pipeline.guard, metrics, tasks=tasks, check=check)
    served = Served(
        pipeline,
        scheduler,
        feedback=desk,
        reload=reload,
        safety=safety,
        load_s=load_s,
        release=release,
    )
    metrics.metric("instructrec_load_seconds").set(served.load_s)
    return served

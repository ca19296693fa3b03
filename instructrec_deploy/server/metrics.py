"""Every metric of the server in one table. Names and labels are promises (see CONVENTIONS).

Label values are bounded: methods, statuses, the bundle's tasks, the policy's categories. Nothing a
caller writes becomes a label.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from instructrec_deploy.core.errors import InstructRecError, OverloadReason, PortInUse
from instructrec_deploy.core.result import Prediction

SECONDS = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
INLINE = "(inline)"  # the task of an instruction that is none of the bundle's
OTHER = "(other)"  # a label value past the bound
Across = Literal["sum", "max", "min"]
YOUNG_OBJECTS = 50_000  # made and not gone: some hundred texts under way have fewer
MAX_VALUES = 200  # of one label: a bundle has some tens of tasks, a policy some tens of categories


@dataclass(frozen=True, slots=True)
class Spec:
    """One line of the table."""

    name: str
    # Counter, Gauge or Histogram; CounterMetricFamily: somebody else counts, read when asked for.
    kind: type[Any]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Across = "sum"  # what several processes' values make together

    def make(self, registry: CollectorRegistry) -> Any:
        """The metric itself, in the registry."""
        extra: dict[str, Any] = {"buckets": self.buckets} if self.buckets else {}
        return self.kind(self.name, self.help, self.labels, registry=registry, **extra)


TABLE = (
    Spec("instructrec_requests_total", Counter, "Calls answered.", ("method", "status")),
    Spec(
        "instructrec_request_seconds",
        Histogram,
        "From a call's bytes to its answer's bytes.",
        ("method",),
        SECONDS,
    ),
    Spec("instructrec_requests_in_flight", Gauge, "Calls accepted and not answered yet."),
    Spec("instructrec_texts_total", Counter, "Texts answered, batch items included."),
    Spec("instructrec_errors_total", Counter, "Texts or calls refused or failed.", ("code",)),
    Spec("instructrec_queue_depth", Gauge, "Texts waiting for an inference thread."),
    Spec("instructrec_queue_seconds", Histogram, "A text's wait in the queue.", (), SECONDS),
    Spec("instructrec_batch_size", Histogram, "Texts of one model batch.", (), SIZES),
    Spec("instructrec_inference_seconds", Histogram, "One model batch.", (), SECONDS),
    Spec(
        "instructrec_joined_total",
        Counter,
        "Texts answered from the reading of an equal text in flight.",
    ),
    Spec("instructrec_tokens_total", Counter, "Tokens the model read, padding apart."),
    Spec(
        "instructrec_padding_tokens_total",
        Counter,
        "Tokens of padding the model read; an unpadded encoder in attention alone.",
    ),
    Spec("instructrec_dropped_total", Counter, "Texts not computed, and why.", ("reason",)),
    Spec("instructrec_refused_total", Counter, "Texts refused at once, and why.", ("reason",)),
    Spec("instructrec_late_total", CounterMetricFamily, "Texts answered after the target."),
    Spec("instructrec_in_flight_tokens", Gauge, "Tokens of texts accepted and not answered yet."),
    Spec("instructrec_limit_tokens", Gauge, "Tokens in flight at most, by the target; 0: none."),
    Spec("instructrec_pace_tokens", Gauge, "Tokens computed in a second, as measured lately."),
    Spec(
        "instructrec_expected_wait_seconds",
        Gauge,
        "Until all that is in flight is answered.",
        across="max",
    ),
    Spec("instructrec_tenants", Gauge, "Tenants with texts in flight.", across="max"),
    Spec("instructrec_prepare_seconds", Histogram, "Preparing an instruction.", (), SECONDS),
    Spec("instructrec_prepared_hits_total", CounterMetricFamily, "Instructions found prepared."),
    Spec("instructrec_prepared_misses_total", CounterMetricFamily, "Instructions not prepared."),
    Spec("instructrec_prepared_evictions_total", CounterMetricFamily, "Instructions let go of."),
    Spec("instructrec_prepared_bytes", Gauge, "Memory of all prepared instructions."),
    Spec("instructrec_prepared_count", Gauge, "Prepared instructions in the cache."),
    Spec("instructrec_predictions_total", Counter, "Answers by task.", ("task",)),
    Spec(
        "instructrec_safety_verdicts_total",
        Counter,
        "Safety verdicts.",
        ("direction", "action"),
    ),
    Spec(
        "instructrec_safety_findings_total",
        Counter,
        "What the safety filter saw.",
        ("category", "action"),
    ),
    Spec(
        "instructrec_safety_dry_run_findings_total",
        Counter,
        "What the safety filter would have done, were it not for a dry run.",
        ("category", "action"),
    ),
    Spec(
        "instructrec_safety_policy_info",
        Gauge,
        "1 for the policy in force.",
        ("version",),
        across="max",
    ),
    Spec("instructrec_safety_policy_reloads_total", Counter, "Changed policies.", ("outcome",)),
    Spec("instructrec_safety_cases_total", Counter, "Cases for review.", ("outcome",)),
    Spec("instructrec_safety_audit_total", Counter, "Lines for the audit log.", ("outcome",)),
    Spec("instructrec_feedback_total", Counter, "Corrections sent.", ("outcome",)),
    Spec(
        "instructrec_model_info",
        Gauge,
        "1 for each model being served.",
        ("model", "version", "kind", "precision"),
        across="max",
    ),
    Spec(
        "instructrec_model_swaps_total",
        Counter,
        "New versions swapped in, refused, or gone back from.",
        ("outcome",),
    ),
    Spec("instructrec_ready", Gauge, "1 while the server answers, else 0.", across="max"),
    Spec("instructrec_load_seconds", Gauge, "Time the model took to load and check.", across="max"),
)

# Of the process that looks after workers (`serve --workers`).
WORKERS_TABLE = (
    Spec("instructrec_workers", Gauge, "Worker processes that take new connections."),
    Spec("instructrec_worker_starts_total", Counter, "Worker processes started.", ("reason",)),
)


class ServedModel(Protocol):
    """What the table shows of a model."""

    @property
    def tasks(self) -> frozenset[str]:
        """Names of its tasks."""

    @property
    def info(self) -> tuple[str, str, str, str]:
        """Model, version, kind, precision."""

    @property
    def policy_version(self) -> str:
        """Of the safety policy in force; "" without a filter."""

    def figures(self) -> dict[str, float]:
        """The metrics of the table that it keeps itself, by name."""


class Metrics:
    """The table, alive. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._made: dict[str, Any] = {}
        self._sources: dict[str, Callable[[], float]] = {}
        self.registry.register(_Sources(self._sources))
        for spec in TABLE:
            if spec.kind is not CounterMetricFamily:
                self._made[spec.name] = spec.make(self.registry)
        self._kept = _Kept()
        self._children: dict[tuple[str, ...], Any] = {}
        self._n_values: dict[str, int] = {}
        self.tasks: frozenset[str] = frozenset()  # the bundle's: the only ones that are labels

    def metric(self, name: str, *values: str) -> Any:
        """A metric of the table, or its child for these label values (bounded in number)."""
        if not values:
            return self._made[name]
        key = (name, *values)
        child = self._children.get(key)
        if child is None:
            n_values = self._n_values.get(name, 0)
            if n_values >= MAX_VALUES:
                values = tuple(OTHER for _ in values)
            self._n_values[name] = n_values + 1
            child = self._made[name].labels(*values)
            if n_values < MAX_VALUES:
                self._children[key] = child
        return child

    def count_call(self, method: str, status: str, seconds: float, *, trace_id: str = "") -> None:
        """A call has been answered. `trace_id`: where it was traced; the exemplar of its time."""
        exemplar = {"trace_id": trace_id} if trace_id else None
        self.metric("instructrec_requests_total", method, status).inc()
        self.metric("instructrec_request_seconds", method).observe(seconds, exemplar)

    def count_refusal(self, reason: OverloadReason) -> None:
        """A text was refused at once; that is one way of not being computed."""
        self.metric("instructrec_refused_total", reason).inc()
        self.metric("instructrec_dropped_total", "overloaded").inc()

    def count_error(self, error: InstructRecError) -> None:
        """A text or a call got an error in place of an answer."""
        self.metric("instructrec_errors_total", error.code).inc()

    def count_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Texts have been answered; those of one message together, for a counter has a lock."""
        self._made["instructrec_texts_total"].inc(len(predictions))
        observe = self._made["instructrec_queue_seconds"].observe
        counts: dict[tuple[str, ...], int] = {}
        for prediction in predictions:
            observe(prediction.timings.queue_ms / 1000)
            for key in self._keys(prediction):
                counts[key] = counts.get(key, 0) + 1
        for key, n in counts.items():
            self.metric(*key).inc(n)

    def _keys(self, prediction: Prediction) -> Iterator[tuple[str, ...]]:
        """Names and label values of the counters that a prediction moves by one."""
        for answer in prediction.answers:
            task = answer.task if answer.task in self.tasks else INLINE
            yield "instructrec_predictions_total", task
        for verdict in prediction.verdicts:
            yield "instructrec_safety_verdicts_total", verdict.direction, verdict.action
            for finding in verdict.findings:
                yield "instructrec_safety_findings_total", finding.category, finding.action
                if finding.dry_run_action:
                    yield (
                        "instructrec_safety_dry_run_findings_total",
                        finding.category,
                        finding.dry_run_action,
                    )

    def show_policies(self) -> None:
        """The safety policies of the models that answer are those in force, no other."""
        info = self._made["instructrec_safety_policy_info"]
        info.clear()
        for version in {model.policy_version for model in self._kept.shown} - {""}:
            info.labels(version).set(1)

    def count_feedback(self, outcome: str) -> None:
        """A correction was accepted, was a duplicate, or was refused."""
        self.metric("instructrec_feedback_total", outcome).inc()

    def show_models(self, models: Iterable[ServedModel]) -> None:
        """These models answer from now on."""
        shown = list(models)
        self.tasks = frozenset(task for model in shown for task in model.tasks)
        info = self._made["instructrec_model_info"]
        info.clear()
        for model in shown:
            info.labels(*model.info).set(1)
        for name in self._kept.show(shown):
            self.watch(name, partial(self._kept.total, name))
        self.show_policies()

    def watch(self, name: str, source: Callable[[], float]) -> None:
        """Read a gauge or a family from a function whenever it is asked for."""
        made = self._made.get(name)
        if made is None:
            self._sources[name] = source
        else:
            made.set_function(source)


class _Kept:
    """Metrics that models keep themselves, summed; what those that are gone counted stays."""

    def __init__(self) -> None:
        self.shown: list[ServedModel] = []
        self._counted: dict[str, float] = {}  # by models that are gone

    def show(self, models: list[ServedModel]) -> set[str]:
        """From now on these models; the names of what they keep."""
        for model in self.shown:
            if model not in models:
                for name, value in model.figures().items():
                    if name.endswith("_total"):
                        self._counted[name] = self._counted.get(name, 0.0) + value
        self.shown = models
        return {name for model in models for name in model.figures()}

    def total(self, name: str) -> float:
        """Over all of them."""
        now = sum(model.figures().get(name, 0.0) for model in self.shown)
        return self._counted.get(name, 0.0) + now


class _Sources(Collector):
    """The counters of the table that somebody else keeps."""

    def __init__(self, sources: dict[str, Callable[[], float]]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[CounterMetricFamily]:
        for spec in TABLE:
            if spec.kind is CounterMetricFamily:
                source = self._sources.get(spec.name, lambda: 0.0)
                yield CounterMetricFamily(spec.name, spec.help, value=source())


@dataclass(frozen=True, slots=True)
class MetricsDoor:
    """The HTTP server that Prometheus reads from."""

    server: WSGIServer

    def close(self) -> None:
        """Stop answering and free the port."""
        self.server.shutdown()
        self.server.server_close()


def open_metrics_door(registry: CollectorRegistry, host: str, port: int) -> MetricsDoor:
    """Serve `/metrics` in a thread of its own.

    Raises:
        PortInUse: the address cannot be bound.
    """
    try:
        server, _ = start_http_server(port, addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise PortInUse(
            f"cannot serve metrics on {host}:{port} ({error.strerror or 'not a usable address'})",
            hint="choose another server.metrics_port, or 0 for none",
        ) from error
    return MetricsDoor(server)


def calm_collector() -> None:
    """Take what start-up made out of the garbage collector's sight: its pauses become short.

    Not collected first: that took 50 ms and found 800 objects of 98,000. Nearly all that a request
    makes is gone with its last reference; Python's own threshold of 700 objects is passed again and
    again by what is merely under way, and looking through that took a third of the event loop's
    time in batch messages.
    """
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    gc.freeze()
    gc.enable()

"""Traces by OpenTelemetry: a span for each call, below it one for each text, sent by OTLP."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from instructrec_deploy import __version__
from instructrec_deploy.core.failure import STATUS_NUMBERS
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.server.tracing.settings import TracingSettings
from instructrec_deploy.server.tracing.tracer import Span, Tracer

W3C = ("traceparent", "tracestate")
MAX_TEXT_SPANS = 16  # below a call; a stream has no end
OURS = ("INTERNAL", "UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED")  # faults of the server's side


class OtelSpan(Span):
    """A call as a span of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self.n_texts = 0
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}" if span.is_recording() else ""

    def end(self, status: str, code: str) -> None:
        """See `Span`."""
        self.span.set_attribute("rpc.grpc.status_code", STATUS_NUMBERS.get(status, 0))
        self.span.set_attribute("instructrec.n_texts", self.n_texts)
        if code:
            self.span.set_attribute("instructrec.code", code)
        if status in OURS:
            self.span.set_status(Status(StatusCode.ERROR, status))
        self.span.end()


class OtelTracer(Tracer):
    """Sends spans to a collector, in a thread of its own."""

    def __init__(self, settings: TracingSettings) -> None:
        resource = {"service.name": settings.service_name, "service.version": __version__}
        self._provider = TracerProvider(
            resource=Resource.create(resource),
            sampler=ParentBased(TraceIdRatioBased(settings.sample_share)),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("instructrec_deploy", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._current: ContextVar[OtelSpan | None] = ContextVar("call", default=None)

    def begin(self, method: str, context: Any) -> Span:
        """See `Tracer`. The caller's trace (W3C headers) goes on in ours."""
        metadata = context.invocation_metadata() or ()
        given = {k: v for k, v in metadata if k in W3C and isinstance(v, str)}
        span = self._tracer.start_span(
            f"instructrec/{method}",
            context=self._propagator.extract(given),
            kind=SpanKind.SERVER,
            attributes={"rpc.method": method},
        )
        made = OtelSpan(span)
        self._current.set(made)
        return made

    def note(self, prediction: Prediction) -> None:
        """See `Tracer`."""
        call = self._current.get()
        if call is None or not call.span.is_recording():
            return
        call.n_texts += 1
        if call.n_texts > MAX_TEXT_SPANS:
            return
        spent, now = prediction.timings, time.time_ns()
        text = self._tracer.start_span(
            "text",
            context=trace.set_span_in_context(call.span),
            start_time=now - int(spent.total_ms * 1e6),
            attributes={
                "instructrec.model": prediction.model,
                "instructrec.model_version": prediction.model_version,
                "instructrec.n_tokens": prediction.n_tokens,
                "instructrec.n_questions": len(prediction.answers),
                "instructrec.queue_ms": spent.queue_ms,
                "instructrec.tokenize_ms": spent.tokenize_ms,
                "instructrec.inference_ms": spent.inference_ms,
                "instructrec.blocked": any(v.action == "block" for v in prediction.verdicts),
            },
        )
        text.end(now)

    def close(self) -> None:
        """See `Tracer`."""
        self._provider.shutdown()

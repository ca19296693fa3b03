"""The trace that a call is made in (OpenTelemetry, W3C context), handed on to the server."""

from __future__ import annotations

import sys

Metadata = tuple[tuple[str, str], ...]
API = "opentelemetry.trace"  # of the extra `tracing`, or of the caller's own instrumentation


def with_trace(metadata: Metadata) -> Metadata:
    """What a call sends beside its message: the client's own, and the trace it is made in."""
    return (*metadata, *trace_headers())


def trace_headers() -> Metadata:
    """`traceparent` and `tracestate` of the span that is current; none where there is none.

    Who has not imported OpenTelemetry traces nothing, so it is not imported here first. Baggage,
    which may hold anything, stays with the caller.
    """
    if API not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return tuple(headers.items())

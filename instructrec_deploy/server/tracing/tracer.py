"""What the server asks of a tracer; by itself it traces nothing."""

from __future__ import annotations

from typing import Any

from instructrec_deploy.core.errors import MissingExtra
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.server.tracing.settings import TracingSettings


class Span:
    """A call being traced, or not."""

    trace_id = ""  # 32 hex digits where it is recorded

    def end(self, status: str, code: str) -> None:
        """The call is answered. `code`: IR-nnnn of its error, or ""."""


NO_SPAN = Span()


class Tracer:
    """Traces nothing."""

    def begin(self, method: str, context: Any) -> Span:
        """A call has come; `context` is gRPC's, or stands in for it."""
        return NO_SPAN

    def note(self, prediction: Prediction) -> None:
        """A text of the call in hand has been answered."""

    def close(self) -> None:
        """Send what is left. Blocks."""


def open_tracer(settings: TracingSettings) -> Tracer:
    """A tracer for the endpoint of the settings, or one that traces nothing.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """
    if not settings.endpoint:
        return Tracer()
    try:
        from instructrec_deploy.server.tracing.otel import OtelTracer
    except ImportError as error:
        raise MissingExtra(
            "tracing.endpoint needs OpenTelemetry, which is not installed",
            hint="pip install 'instructrec-deploy[tracing]'",
        ) from error
    return OtelTracer(settings)

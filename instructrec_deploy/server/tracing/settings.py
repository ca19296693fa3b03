"""`[tracing]`: where traces go."""

from __future__ import annotations

from pydantic import Field

from instructrec_deploy.core.settings import Section


class TracingSettings(Section):
    """What else OpenTelemetry reads stands in its own OTEL_* variables (headers, certificates)."""

    endpoint: str = ""  # of a collector, OTLP over gRPC: http://localhost:4317; "": no traces
    # Of the calls that bring no trace of their own; those that do are traced as their callers say.
    sample_share: float = Field(default=1.0, ge=0.0, le=1.0)
    service_name: str = Field(default="instructrec", min_length=1)

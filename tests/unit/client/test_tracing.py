"""Clients hand on the trace that they are called in."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

from instructrec_deploy.client.security import Security
from instructrec_deploy.client.sync import Client
from instructrec_deploy.client.tracing import trace_headers
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb


class Channel:
    """Answers nothing to everything and keeps what came along."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}

    def unary_unary(self, path: str) -> Any:
        def call(data: bytes, *, timeout: float, metadata: Any) -> bytes:
            self.metadata = dict(metadata)
            return pb.PredictResponse().SerializeToString()

        return call

    def close(self) -> None:
        pass


def test_a_call_goes_on_in_the_trace_that_is_current_and_takes_no_baggage_along() -> None:
    channel = Channel()
    held = context.attach(baggage.set_baggage("user", "Anna"))
    try:
        with (
            TracerProvider().get_tracer("test").start_as_current_span("a call") as span,
            Client(channel=channel, security=Security(api_key="k")) as client,  # type: ignore[arg-type]
        ):
            client.predict("I lost my card")
    finally:
        context.detach(held)
    made = span.get_span_context()
    assert channel.metadata == {
        "authorization": "Bearer k",
        "traceparent": f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}",
    }


def test_without_a_span_nothing_is_sent() -> None:
    assert trace.get_current_span().get_span_context().is_valid is False
    assert trace_headers() == ()


def test_who_does_not_trace_does_not_load_it() -> None:
    code = (
        "import sys; from instructrec_deploy.client.tracing import trace_headers as h; "
        "assert h() == (); assert not any(m.startswith('opentelemetry') for m in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Traces of a real server, as a collector gets them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import TaskUnknown
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import method_path
from tests.e2e.test_http import fetch
from tests.serving import free_port, running_server

CANARY = "canary-7f3a 暗号"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0)


def facts(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_callers_trace_goes_on_in_ours_without_a_word_of_the_text(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    traceparent = f"00-{TRACE}-{PARENT}-01"
    with collecting() as (collector, endpoint):
        door = {"http_port": free_port()}
        with running_server(
            tiny_bundle, tmp_path, tracing={"endpoint": endpoint}, **door
        ) as server:
            with grpc.insecure_channel(server.address) as channel:
                predict = channel.unary_unary(method_path("Predict"))
                data = pb.PredictRequest(text=CANARY, id=CANARY).SerializeToString()
                predict(data, metadata=[("traceparent", traceparent)], timeout=20)
            fetch(server, "/v1/predict", {"text": CANARY}, traceparent=traceparent)
            metrics = fetch(server, "/metrics", accept="application/openmetrics-text").text
            with Client(server.address) as client:
                own = Instruction.of(CANARY, [CANARY, "b"])
                client.predict_batch([CANARY] * 20, instruction=own)
                with pytest.raises(TaskUnknown):
                    client.predict(CANARY, task=CANARY)
            assert server.stop() == 0
        assert "canary" not in server.stdout + server.stderr
    spans = collector.spans
    calls = [span for span in spans if span.name == "instructrec/Predict"]
    followed = [span for span in calls if span.trace_id.hex() == TRACE]
    assert [span.parent_span_id.hex() for span in followed] == [PARENT] * 2  # gRPC and HTTP
    texts = [span for span in spans if span.name == "text"]
    mine = [text for text in texts if text.parent_span_id == followed[0].span_id]
    assert [facts(text)["instructrec.model"] for text in mine] == ["tiny"]
    failed = [facts(span) for span in calls if "instructrec.code" in facts(span)]
    assert [(row["instructrec.code"], row["rpc.grpc.status_code"]) for row in failed] == [
        ("IR-1201", 5)
    ]
    (batch,) = [span for span in spans if span.name == "instructrec/PredictBatch"]
    assert facts(batch)["instructrec.n_texts"] == 20
    assert sum(text.parent_span_id == batch.span_id for text in texts) == 16
    assert f'trace_id="{TRACE}"' in metrics  # the exemplar of a time
    assert "canary" not in str(collector.requests) + metrics
    assert "暗号" not in "".join(str(facts(span)) for span in spans)


def test_only_a_share_of_the_calls_is_traced_and_those_of_traced_callers(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    with collecting() as (collector, endpoint):
        tracing = {"endpoint": endpoint, "sample_share": 0.0}
        with running_server(tiny_bundle, tmp_path, tracing=tracing) as server:
            with grpc.insecure_channel(server.address) as channel:
                predict = channel.unary_unary(method_path("Predict"))
                data = pb.PredictRequest(text="a").SerializeToString()
                for flag in ("00", "01"):
                    metadata = [("traceparent", f"00-{TRACE}-{PARENT}-{flag}")]
                    predict(data, metadata=metadata, timeout=20)
                predict(data, timeout=20)
            assert server.stop() == 0
    assert len([span for span in collector.spans if span.name != "text"]) == 1


def test_a_collector_that_is_not_there_holds_up_nobody(tiny_bundle: Path, tmp_path: Path) -> None:
    tracing = {"endpoint": f"http://127.0.0.1:{free_port()}"}
    with (
        running_server(tiny_bundle, tmp_path, tracing=tracing) as server,
        Client(server.address, timeout_s=10) as client,
    ):
        assert client.predict("I lost my card").label == "card lost"
        assert server.stop() == 0

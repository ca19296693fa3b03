"""The table of metrics counts what it says, with bounded labels."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from instructrec_deploy.core.errors import PortInUse, TextEmpty
from instructrec_deploy.core.result import Answer, Finding, Prediction, Verdict
from instructrec_deploy.server.metrics import INLINE, MAX_VALUES, OTHER, Metrics, open_metrics_door


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_prediction_is_counted_by_task_verdict_and_finding() -> None:
    metrics = Metrics()
    metrics.tasks = frozenset({"intent"})
    finding = Finding("PHONE", "cn-mobile", "mask", 0, 11)
    tried = Finding("threat", "r", "flag", 0, 4, dry_run_action="block")
    prediction = Prediction(
        (Answer("intent", "a", 1.0, ()), Answer("a caller's word", "b", 1.0, ())),
        verdicts=(Verdict("mask", (finding, tried)), Verdict(direction="output")),
    )
    metrics.count_predictions((prediction,))
    for name, labels in [
        ("instructrec_texts_total", {}),
        ("instructrec_predictions_total", {"task": "intent"}),
        ("instructrec_predictions_total", {"task": INLINE}),
        ("instructrec_safety_verdicts_total", {"direction": "input", "action": "mask"}),
        ("instructrec_safety_verdicts_total", {"direction": "output", "action": "allow"}),
        ("instructrec_safety_findings_total", {"category": "PHONE", "action": "mask"}),
        ("instructrec_safety_findings_total", {"category": "threat", "action": "flag"}),
        (
            "instructrec_safety_dry_run_findings_total",
            {"category": "threat", "action": "block"},
        ),
    ]:
        assert value(metrics, name, **labels) == 1.0, name


def test_call_is_counted_by_method_and_status_and_timed() -> None:
    metrics = Metrics()
    metrics.count_call("Predict", "OK", 0.003)
    metrics.count_error(TextEmpty("empty"))
    assert value(metrics, "instructrec_requests_total", method="Predict", status="OK") == 1.0
    assert value(metrics, "instructrec_request_seconds_sum", method="Predict") == 0.003
    assert value(metrics, "instructrec_errors_total", code="IR-1101") == 1.0


def test_values_of_a_label_are_bounded() -> None:
    metrics = Metrics()
    for index in range(MAX_VALUES + 5):
        metrics.metric("instructrec_predictions_total", f"task {index}").inc()
    assert value(metrics, "instructrec_predictions_total", task=OTHER) == 5.0
    metrics.metric("instructrec_predictions_total", "task 3").inc()
    assert value(metrics, "instructrec_predictions_total", task="task 3") == 2.0


def test_gauge_is_read_when_it_is_asked_for() -> None:
    metrics = Metrics()
    waiting = [1, 2, 3]
    metrics.watch("instructrec_queue_depth", lambda: len(waiting))
    metrics.watch("instructrec_prepared_hits_total", lambda: 7)
    waiting.append(4)
    assert value(metrics, "instructrec_queue_depth") == 4.0
    assert value(metrics, "instructrec_prepared_hits_total") == 7.0


def test_metrics_are_served_over_http_on_their_own_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    door = open_metrics_door(Metrics().registry, "127.0.0.1", port)
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    finally:
        door.close()
    assert "# TYPE instructrec_requests_total counter" in text


def test_taken_port_is_said_with_a_hint() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortInUse, match=r"cannot serve metrics on 127\.0\.0\.1"):
            open_metrics_door(Metrics().registry, "127.0.0.1", other.getsockname()[1])

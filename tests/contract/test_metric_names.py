"""Metric names and labels are promises: dashboards and alerts are built on them."""

from __future__ import annotations

from instructrec_deploy.server.metrics import TABLE, WORKERS_TABLE


def test_names_and_labels_of_metrics_are_these() -> None:
    found = {f"{spec.name} {spec.kind.__name__}": spec.labels for spec in (*TABLE, *WORKERS_TABLE)}
    assert found == {
        "instructrec_requests_total Counter": ("method", "status"),
        "instructrec_request_seconds Histogram": ("method",),
        "instructrec_requests_in_flight Gauge": (),
        "instructrec_texts_total Counter": (),
        "instructrec_errors_total Counter": ("code",),
        "instructrec_queue_depth Gauge": (),
        "instructrec_queue_seconds Histogram": (),
        "instructrec_batch_size Histogram": (),
        "instructrec_inference_seconds Histogram": (),
        "instructrec_joined_total Counter": (),
        "instructrec_tokens_total Counter": (),
        "instructrec_padding_tokens_total Counter": (),
        "instructrec_dropped_total Counter": ("reason",),
        "instructrec_refused_total Counter": ("reason",),
        "instructrec_late_total CounterMetricFamily": (),
        "instructrec_in_flight_tokens Gauge": (),
        "instructrec_limit_tokens Gauge": (),
        "instructrec_pace_tokens Gauge": (),
        "instructrec_expected_wait_seconds Gauge": (),
        "instructrec_tenants Gauge": (),
        "instructrec_prepare_seconds Histogram": (),
        "instructrec_prepared_hits_total CounterMetricFamily": (),
        "instructrec_prepared_misses_total CounterMetricFamily": (),
        "instructrec_prepared_evictions_total CounterMetricFamily": (),
        "instructrec_prepared_bytes Gauge": (),
        "instructrec_prepared_count Gauge": (),
        "instructrec_predictions_total Counter": ("task",),
        "instructrec_safety_verdicts_total Counter": ("direction", "action"),
        "instructrec_safety_findings_total Counter": ("category", "action"),
        "instructrec_safety_dry_run_findings_total Counter": ("category", "action"),
        "instructrec_safety_policy_info Gauge": ("version",),
        "instructrec_safety_policy_reloads_total Counter": ("outcome",),
        "instructrec_safety_cases_total Counter": ("outcome",),
        "instructrec_safety_audit_total Counter": ("outcome",),
        "instructrec_feedback_total Counter": ("outcome",),
        "instructrec_model_info Gauge": ("model", "version", "kind", "precision"),
        "instructrec_model_swaps_total Counter": ("outcome",),
        "instructrec_ready Gauge": (),
        "instructrec_load_seconds Gauge": (),
        "instructrec_workers Gauge": (),
        "instructrec_worker_starts_total Counter": ("reason",),
    }


def test_units_end_the_names() -> None:
    for spec in (*TABLE, *WORKERS_TABLE):
        end = spec.name.rsplit("_", 1)[1]
        if spec.kind.__name__ in ("Counter", "CounterMetricFamily"):
            assert end == "total", spec.name
        if spec.kind.__name__ == "Histogram":
            assert end in ("seconds", "size"), spec.name

"""The metrics of several processes as one table."""

from __future__ import annotations

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.workers.figures import (
    Family,
    counted,
    merge,
    read_family,
    tell_figures,
)


class Shown(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self):  # type: ignore[no-untyped-def]
        return map(read_family, self._families)


def text_of(families: list[Family]) -> str:
    registry = CollectorRegistry()
    registry.register(Shown(families))
    return generate_latest(registry).decode()


def worker_table(*, n_calls: int, wait_s: float, trace_id: str = "") -> list[Family]:
    metrics = Metrics()
    for _ in range(n_calls):
        metrics.count_call("Predict", "OK", 0.003, trace_id=trace_id)
    metrics.metric("instructrec_expected_wait_seconds").set(wait_s)
    metrics.metric("instructrec_prepared_count").set(3)
    metrics.metric("instructrec_ready").set(1)
    return tell_figures(metrics.registry)


def test_counters_and_histograms_are_summed_and_gauges_by_their_rule() -> None:
    both = merge([worker_table(n_calls=2, wait_s=0.5), worker_table(n_calls=5, wait_s=0.25)])
    lines = text_of(both).splitlines()
    assert 'instructrec_requests_total{method="Predict",status="OK"} 7.0' in lines
    assert 'instructrec_request_seconds_bucket{le="0.004",method="Predict"} 7.0' in lines
    assert 'instructrec_request_seconds_bucket{le="0.002",method="Predict"} 0.0' in lines
    assert 'instructrec_request_seconds_count{method="Predict"} 7.0' in lines
    assert "instructrec_expected_wait_seconds 0.5" in lines
    assert "instructrec_prepared_count 6.0" in lines
    assert "instructrec_ready 1.0" in lines


def test_what_a_worker_counted_stays_when_it_is_gone_and_its_gauges_go() -> None:
    gone = counted(worker_table(n_calls=4, wait_s=9.0))
    lines = text_of(merge([gone, worker_table(n_calls=1, wait_s=0.0)])).splitlines()
    assert 'instructrec_requests_total{method="Predict",status="OK"} 5.0' in lines
    assert "instructrec_expected_wait_seconds 0.0" in lines
    assert "instructrec_prepared_count 3.0" in lines


def test_a_table_of_one_reads_as_the_worker_would_write_it() -> None:
    metrics = Metrics()
    metrics.count_call("Predict", "OK", 0.003)
    before = generate_latest(metrics.registry).decode()
    merged = text_of(merge([tell_figures(metrics.registry)]))
    own = [line for line in before.splitlines() if line.startswith("instructrec")]
    assert own == [line for line in merged.splitlines() if line.startswith("instructrec")]


def test_the_latest_exemplar_is_kept() -> None:
    old = worker_table(n_calls=1, wait_s=0.0, trace_id="aa")
    new = worker_table(n_calls=1, wait_s=0.0, trace_id="bb")
    registry = CollectorRegistry()
    registry.register(Shown(merge([new, old])))
    text = generate_openmetrics(registry).decode()
    assert 'trace_id="bb"' in text
    assert 'trace_id="aa"' not in text

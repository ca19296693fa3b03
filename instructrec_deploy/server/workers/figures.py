"""The metrics of several processes as one table.

A worker tells its families as JSON; here they are merged. Counters and histograms are summed, and
what workers that are gone had counted stays in the sum, so that no counter ever falls; gauges are
summed or their greatest or least value is taken, as the worker says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client.core import Exemplar, Metric
from prometheus_client.registry import Collector

from instructrec_deploy.server.metrics import TABLE, Across

# One family: name, help, type, across, samples. A sample: name, labels, value, exemplar or None.
Family = list[Any]
COUNTED = ("counter", "histogram")
# Of the processes themselves, from prometheus_client; others of theirs are alike in all.
PROCESS: dict[str, Across] = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_open_fds": "sum",
    "process_start_time_seconds": "min",
    "process_max_fds": "min",
    "python_info": "max",
}
ACROSS: dict[str, Across] = {**PROCESS, **{spec.name: spec.across for spec in TABLE}}


def tell_figures(registry: Collector) -> list[Family]:
    """The families of a registry, as `merge` takes them."""
    return [
        [
            family.name,
            family.documentation,
            family.type,
            ACROSS.get(family.name, "sum"),
            [
                [
                    sample.name,
                    dict(sample.labels),
                    sample.value,
                    None
                    if sample.exemplar is None
                    else [
                        dict(sample.exemplar.labels),
                        sample.exemplar.value,
                        sample.exemplar.timestamp,
                    ],
                ]
                for sample in family.samples
            ],
        ]
        for family in registry.collect()
    ]


def counted(families: Iterable[Family]) -> list[Family]:
    """Those that stay when their process is gone."""
    return [family for family in families if family[2] in COUNTED]


def merge(tables: Iterable[Sequence[Family]]) -> list[Family]:
    """Several tables as one; samples of the same name and labels become one."""
    merged: dict[str, Family] = {}
    places: dict[str, dict[tuple[Any, ...], list[Any]]] = {}
    for table in tables:
        for name, text, kind, across, samples in table:
            family = merged.setdefault(name, [name, text, kind, across, []])
            place = places.setdefault(name, {})
            for sample, labels, value, exemplar in samples:
                key = (sample, *sorted(labels.items()))
                found = place.get(key)
                if found is None:
                    place[key] = found = [sample, labels, value, exemplar]
                    family[4].append(found)
                    continue
                found[2] = _join(found[2], value, across)
                found[3] = max(found[3] or exemplar, exemplar or found[3], key=_moment)
    return list(merged.values())


def read_family(family: Family) -> Metric:
    """For prometheus_client's own writers."""
    name, text, kind, _, samples = family
    metric = Metric(name, text, kind)
    for sample, labels, value, exemplar in samples:
        mark = None if exemplar is None else Exemplar(*exemplar)
        metric.add_sample(sample, labels, value, exemplar=mark)
    return metric


def _join(one: float, other: float, across: Across) -> float:
    if across == "sum":
        return one + other
    return max(one, other) if across == "max" else min(one, other)


def _moment(exemplar: list[Any] | None) -> float:
    return 0.0 if exemplar is None else exemplar[2] or 0.0

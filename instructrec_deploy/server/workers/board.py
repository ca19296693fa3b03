"""The metrics of all workers, and the supervisor's own, for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from instructrec_deploy.server.metrics import WORKERS_TABLE, open_metrics_door
from instructrec_deploy.server.workers.figures import Family, counted, merge, read_family
from instructrec_deploy.server.workers.process import FIGURES_WITHIN_S, WorkerProcess


class Crew(Protocol):
    """The workers that are shown."""

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that live."""

    @property
    def n_listening(self) -> int:
        """How many take new connections."""


class MetricsBoard(Collector):
    """Answers `/metrics` in a thread; asks the workers on the event loop that it was made on.

    Raises:
        PortInUse: the address cannot be bound.
    """

    def __init__(self, crew: Crew, host: str, port: int) -> None:
        self._crew = crew
        self._loop = asyncio.get_running_loop()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._own = CollectorRegistry()
        made = {spec.name: spec.make(self._own) for spec in WORKERS_TABLE}
        made["instructrec_workers"].set_function(lambda: crew.n_listening)
        self._starts: Any = made["instructrec_worker_starts_total"]
        self._gone: list[Family] = []  # what workers that have ended had counted
        shown = CollectorRegistry()
        shown.register(self)
        self._door = open_metrics_door(shown, host, port)

    def count_start(self, reason: str) -> None:
        """See `Board`."""
        self._starts.labels(reason).inc()

    def count_out(self, worker: WorkerProcess) -> None:
        """See `Board`."""
        self._gone = merge([self._gone, counted(worker.families)])

    def close(self) -> None:
        """See `Board`."""
        self._door.close()

    def describe(self) -> list[Metric]:
        """Nothing: a registry need not collect to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `Collector`. In the door's thread."""
        asked = asyncio.run_coroutine_threadsafe(self._gather(), self._loop)
        for family in asked.result(2 * FIGURES_WITHIN_S):
            yield read_family(family)
        yield from self._own.collect()

    async def _gather(self) -> list[Family]:
        workers = [one for one in self._crew.workers if one.loaded.is_set()]
        told = await asyncio.gather(*[one.tell_figures() for one in workers])
        # Who has ended meanwhile stands in `_gone` already, or will once it is counted out.
        living = [t for one, t in zip(workers, told, strict=True) if one in self._crew.workers]
        return merge([self._gone, *living])

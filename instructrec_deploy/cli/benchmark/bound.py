"""The bound: what the engine alone reaches in process, without any server around it.

Texts are tokenized beforehand, sorted by length, run in batches of 32 by one thread a core, each
with sessions of its own and one thread inside them. No server that tokenizes and answers one by
one can be faster; the ratio to it says what serving costs. The same texts as they come, in batches
of mixed lengths, show what padding costs a bundle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.request import Request
from instructrec_deploy.runtime.engine import Encoding, EngineSettings, pad_rows
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.providers import available_cores
from instructrec_deploy.tasks.base import Ints

Batch = tuple[Ints, Ints]  # ids and mask, [B, T] each
BATCH = 32
N_TEXTS = 1_024  # texts of one pass; fewer are repeated up to this many


class Bound:
    """One bundle's engine, ready to be measured again and again."""

    def __init__(self, bundle: Path, texts: Sequence[str]) -> None:
        self.n_threads = available_cores()
        settings = EngineSettings(n_lanes=self.n_threads, threads_per_lane=1)
        self._pipeline = Pipeline.open(open_bundle(bundle), engine=settings, guard=False)
        repeated = [texts[i % len(texts)] for i in range(max(N_TEXTS, len(texts)))]
        jobs = [self._pipeline.admit(Request.of(text)) for text in repeated]
        self._pipeline.read(jobs)
        self._prepared = self._pipeline.prepare(jobs[0].asks[0].instruction)
        rows = [job.ids for job in jobs]
        self._sorted = self._cut(sorted(rows, key=len))
        self._mixed = self._cut(rows)
        self.mean_tokens = sum(map(len, rows)) / len(rows)
        self.n_candidates = len(self._prepared.labels)

    def measure(self, seconds: float, *, is_mixed: bool = False) -> float:
        """Texts per second over at least one pass and `seconds`; sorted, or as they come."""
        batches = self._mixed if is_mixed else self._sorted
        next_batch = count()
        lock = threading.Lock()
        n_done = [0] * self.n_threads
        begun = time.perf_counter()

        def work(lane: int) -> None:
            while True:
                with lock:
                    number = next(next_batch)
                is_late = time.perf_counter() - begun >= seconds
                if is_late and number >= len(batches):
                    return
                n_done[lane] += self._run(batches[number % len(batches)], lane)

        threads = [threading.Thread(target=work, args=(lane,)) for lane in range(self.n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(n_done) / (time.perf_counter() - begun)

    def close(self) -> None:
        """Give the sessions back."""
        self._pipeline.close()

    def _cut(self, rows: Sequence[list[int]]) -> list[Batch]:
        pad_id = self._pipeline.engine.model.pad_id
        return [
            pad_rows(rows[start : start + BATCH], pad_id) for start in range(0, len(rows), BATCH)
        ]

    def _run(self, batch: Batch, lane: int) -> int:
        ids, mask = batch
        engine, prepared = self._pipeline.engine, self._prepared
        encoding: Encoding = engine.encode(ids, mask, lane=lane)
        if prepared.vectors is not None:
            engine.score(
                encoding,
                prepared.vectors,
                prepared.fusion_queries,
                prepared.fusion_values,
                lane=lane,
            )
        return len(ids)

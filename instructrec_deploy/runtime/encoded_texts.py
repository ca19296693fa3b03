"""Texts read and encoded once, then scored under any number of instructions.

What a text costs is paid once; another wording of a question costs its candidates and the fusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from instructrec_deploy.core.errors import InstructRecError, InternalError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.runtime.engine import Encoding, pad_rows
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.tasks.base import Floats, Ints

BATCH_TOKENS = 4096  # padded tokens encoded at once
READ_AT_ONCE = 1024  # texts guarded and tokenized at once
ANY = Question(instruction=Instruction.of("Which label fits?", ["any"]))  # a job has a question


class EncodedTexts:
    """Texts of one instruction encoder, encoded. Memory: T x H floats a text with fusion, else H.

    Args:
        pipeline: of an instruction encoder; texts go the way of served ones, through its guard.
        requests: texts with what else is read of them, whatever they ask; those that cannot be
            asked about (empty, blocked by the policy) are left out.

    Raises:
        InternalError: the model has fixed labels, or a graph failed.
    """

    def __init__(self, pipeline: Pipeline, requests: Sequence[Request]) -> None:
        if pipeline.engine.is_fixed:
            raise InternalError("a model with fixed labels has no candidates to score")
        self._pipeline = pipeline
        jobs: list[Job] = []
        kept: list[int] = []
        for position, given in enumerate(requests):
            try:
                request = Request.of(
                    given.text, (ANY,), text2=given.text2, head=given.head, tail=given.tail
                )
                jobs.append(pipeline.admit(request))
                kept.append(position)
            except InstructRecError:
                continue
        for start in range(0, len(jobs), READ_AT_ONCE):
            pipeline.read(jobs[start : start + READ_AT_ONCE])
        open_jobs = [(p, job) for p, job in zip(kept, jobs, strict=True) if not job.is_blocked]
        self.kept = tuple(position for position, _ in open_jobs)
        self._encode([job.ids for _, job in open_jobs])

    def __len__(self) -> int:
        """Texts that were encoded."""
        return len(self.kept)

    def logits(self, instruction: Instruction, rows: Ints, *, lane: int = 0) -> Floats:
        """Scores of every candidate, priors among them, before the temperature.

        Args:
            rows: [n] positions in `kept`.

        Returns:
            [n, C].

        Raises:
            RequestError: the instruction cannot be answered.
            InternalError: a graph failed.
        """
        prepared = self._pipeline.prepare(instruction, lane=lane)
        scores = np.empty((len(rows), len(prepared.labels)))
        batches = self._batch_of[rows]
        for number in np.unique(batches):
            places = np.flatnonzero(batches == number)
            chosen = self._place_of[rows[places]].tolist()
            encoding = self._encodings[number]
            scores[places] = self._pipeline.logits(encoding, chosen, prepared, lane=lane)
        return scores

    def logits_of_all(self, instructions: Sequence[Instruction], rows: Ints) -> list[Floats]:
        """`logits` of several instructions, on all lanes."""
        n_lanes = self._pipeline.engine.n_lanes

        def score(job: tuple[int, Instruction]) -> Floats:
            return self.logits(job[1], rows, lane=job[0] % n_lanes)

        with ThreadPoolExecutor(n_lanes, thread_name_prefix="wording") as threads:
            return list(threads.map(score, enumerate(instructions)))

    def _encode(self, ids: Sequence[Sequence[int]]) -> None:
        """Batches of like length; where each text stands is kept."""
        engine = self._pipeline.engine
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        self._encodings: list[Encoding] = []
        self._batch_of = np.zeros(len(ids), np.int64)
        self._place_of = np.zeros(len(ids), np.int64)
        while order:
            n_rows = max(1, BATCH_TOKENS // len(ids[order[-1]]))
            batch = order[-n_rows:]
            del order[-n_rows:]
            self._batch_of[batch] = len(self._encodings)
            self._place_of[batch] = np.arange(len(batch))
            self._encodings.append(
                engine.encode(*pad_rows([ids[row] for row in batch], engine.model.pad_id))
            )

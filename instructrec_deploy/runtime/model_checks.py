"""What a policy asks a model about texts: names in them, and scores of their content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.result import Span
from instructrec_deploy.runtime.engine import Encoding, Engine
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.runtime.judging import judge
from instructrec_deploy.runtime.naming import find_named, name_entities
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.runtime.spans import encode_rows, find_spans
from instructrec_deploy.safety.guard import Guard, GuardedText
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.text.tokenizer import TextTokenizer

Prepare = Callable[[str, int], PreparedInstruction]  # a task of the bundle, for a lane


class Logits(Protocol):
    """Scores of texts that were read (`Pipeline.logits`)."""

    def __call__(
        self, encoding: Encoding, rows: list[int], prepared: PreparedInstruction, *, lane: int = 0
    ) -> Floats:
        """[N, C] for N rows of an encoding and the candidates of an instruction."""


class ModelChecks:
    """One bundle's model as the safety filter asks it. Safe to share between threads.

    Where the model fails, what was asked counts as a check that broke.

    Args:
        engine, tokenizer: of the bundle.
        prepare: a task as an instruction that is ready.
        logits: scores of encoded texts.
    """

    def __init__(
        self, engine: Engine, tokenizer: TextTokenizer, *, prepare: Prepare, logits: Logits
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._prepare = prepare
        self._logits = logits

    def name(self, jobs: Sequence[Job], *, lane: int = 0) -> None:
        """Find names in guarded texts, as their policies ask; one reading of each for all."""
        name_entities(jobs, partial(self._entities, lane=lane))

    def checked(self, text: str, guard: Guard, *, lane: int = 0) -> GuardedText:
        """A text going in, by rules and with names found; no scores."""
        if not guard.policy.input.entities:
            return guard.check_input(text)
        (named,) = find_named([(text, guard)], partial(self._entities, lane=lane))
        return guard.check_named(text, named)

    def judge(self, jobs: Sequence[Job], *, lane: int = 0) -> None:
        """Score texts as their heads ask; one reading of each, for this alone."""
        asked = [job for job in jobs if job.heads]
        if not asked:
            return
        passages = [job.passage() for job in asked]
        row_of = {passage: row for row, passage in enumerate(dict.fromkeys(passages))}
        found = self._tokenizer.encode_passages([*row_of], use_offsets=False)
        encoding: list[Encoding] = []

        def score(task: str, rows: list[int]) -> tuple[Instruction, Floats]:
            if not encoding:
                ids = [encoded.ids for encoded in found]
                encoding.append(encode_rows(self._engine, ids, use_lower=False, lane=lane))
            return self._scores(encoding[0], task, rows, lane)

        judge(asked, [row_of[passage] for passage in passages], score)

    def judge_encoded(
        self, jobs: Sequence[Job], places: Sequence[range], encoding: Encoding, *, lane: int = 0
    ) -> None:
        """The same with texts that have been read for their answers: each job's rows there."""
        if any(job.heads for job in jobs):
            score = partial(self._scores, encoding, lane=lane)
            judge(jobs, [rows.start for rows in places], score)

    def _scores(
        self, encoding: Encoding, task: str, rows: list[int], lane: int
    ) -> tuple[Instruction, Floats]:
        prepared = self._prepare(task, lane)
        return prepared.instruction, self._logits(encoding, rows, prepared, lane=lane)

    def _entities(self, task: str, texts: list[str], lane: int) -> list[tuple[Span, ...]]:
        prepared = self._prepare(task, lane)
        return find_spans(self._engine, self._tokenizer, texts, prepared, lane=lane)

"""The way of a batch: guard, tokenize, encode, fuse for each instruction, decode, guard again.

The Predictor and the Scheduler go this way alike; they differ in who waits for whom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from instructrec_deploy.core.bundle import TOKENIZER_FILE, Bundle
from instructrec_deploy.core.errors import BundleError, InstructRecError, TextUndecodable
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Answer, Prediction, Verdict
from instructrec_deploy.core.task import Shape, TaskKind
from instructrec_deploy.runtime.engine import Encoding, Engine, EngineSettings
from instructrec_deploy.runtime.explain import attribute, check_explainable
from instructrec_deploy.runtime.guarding import open_guard
from instructrec_deploy.runtime.heads import fixed_labels
from instructrec_deploy.runtime.jobs import Ask, GuardLike, Job, Resolver, place_rows
from instructrec_deploy.runtime.learned import open_learned_labels
from instructrec_deploy.runtime.model_checks import ModelChecks
from instructrec_deploy.runtime.outgoing import OutgoingCheck
from instructrec_deploy.runtime.prepared import (
    PreparedCache,
    PreparedInstruction,
    PreparedSettings,
    Preparer,
)
from instructrec_deploy.runtime.reading import tokenize
from instructrec_deploy.runtime.spans import answer_spans, encode_rows
from instructrec_deploy.safety.guard import Guard, GuardedText
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.classify import decode_answers
from instructrec_deploy.text.tokenizer import TextTokenizer

Outcome = Prediction | InstructRecError
Join = Callable[[], Sequence[Job]]


class Pipeline:
    """One bundle, ready to answer. Safe to share between threads.

    Args:
        bundle: an opened bundle.
        engine: its sessions.
        prepared: settings of the cache.
        guard: the safety filter; None for none.
        judge: another model that the policy's heads ask; None: this one. Closed with this one.
        clock: monotonic seconds.

    Raises:
        BundleError: the bundle's parts do not fit together.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        prepared: PreparedSettings = PreparedSettings(),
        guard: GuardLike | None = None,
        judge: Pipeline | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        model = bundle.manifest.model
        self.bundle = bundle
        self.engine = engine
        self.guard = guard
        self.judged_by = judge
        self.clock = clock
        self._outgoing = OutgoingCheck()
        self.tokenizer = TextTokenizer(
            bundle.path(TOKENIZER_FILE),
            max_tokens=model.max_tokens,
            prefix=model.text_prefix,
            question_first=model.kind == "question-answering",
        )
        labels = fixed_labels(bundle) if engine.is_fixed else ()
        self.cache = PreparedCache(prepared.max_bytes)
        self.preparer = Preparer(
            engine,
            self.tokenizer,
            prepared,
            fixed_labels=labels,
            learned=open_learned_labels(bundle),
            span_threshold=bundle.tasks.span_threshold,
        )
        self.resolver = Resolver(bundle, self.preparer, self.cache)
        # What the policy asks a model: the judge's, where there is one.
        self.checks: ModelChecks = (
            judge.checks
            if judge is not None
            else ModelChecks(
                engine, self.tokenizer, prepare=self._prepared_task, logits=self.logits
            )
        )

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        engine: EngineSettings = EngineSettings(),
        prepared: PreparedSettings = PreparedSettings(),
        guard: bool | GuardLike = True,
        safety_bundle: Bundle | None = None,
    ) -> Pipeline:
        """Open the sessions and the guard of a bundle.

        Args:
            guard: True for the bundle's own policy, False for none, or a filter.
            safety_bundle: whose model the policy's heads ask in place of the bundle's own.

        Raises:
            BundleError, MissingExtra: as `Engine`.
        """
        opened = open_guard(bundle, guard, judge=safety_bundle)
        judge = None
        if opened is not None and safety_bundle is not None:
            judge = cls(safety_bundle, Engine(safety_bundle, engine), prepared=prepared)
        return cls(bundle, Engine(bundle, engine), prepared=prepared, guard=opened, judge=judge)

    def admit(self, request: Request, *, deadline_s: float | None = None) -> Job:
        """Check a request and resolve its questions; nothing is computed yet.

        Raises:
            TextUndecodable: a text holds a lone surrogate.
            RequestError, NotFound: a question cannot be answered.
        """
        for text in (request.text, request.text2):
            if not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise TextUndecodable(
                        "the text holds a lone surrogate", hint="send valid Unicode"
                    ) from error
        check_explainable(request)
        resolve = self.resolver.resolve
        asks = tuple([resolve(question) for question in request.questions])
        read = (request.text, request.text2, request.head, request.tail)
        return Job(request, asks, self.clock(), deadline_s, *read)

    def read(self, jobs: Sequence[Job], *, use_guard: bool = True, lane: int = 0) -> None:
        """Guard and tokenize; a blocked job gets no ids."""
        start = self.clock()
        for job in jobs if use_guard else ():
            guard = self._guard_of(job, job.tasks)
            if guard is not None:
                job.guard(guard)
        if use_guard and any(job.seeks_names for job in jobs):
            self.checks.name(jobs, lane=lane)
        open_jobs = [job for job in jobs if not job.is_blocked]
        if open_jobs:
            joint_questions = self.engine.model.joint_questions
            tokenize(open_jobs, self.tokenizer, joint_questions=joint_questions)
        spent = self.clock() - start
        for job in jobs:
            job.tokenize_s = spent

    def prepare(self, instruction: Instruction, *, lane: int = 0) -> PreparedInstruction:
        """The prepared instruction, from the cache or made now.

        Raises:
            RequestError, LabelUnknown, InternalError: as `Preparer.steps`.
        """
        return self._prepared(Ask(instruction.key, instruction), lane)

    def logits(
        self, encoding: Encoding, rows: list[int], prepared: PreparedInstruction, *, lane: int = 0
    ) -> Floats:
        """Scores [n, C] of every candidate for these rows, priors included, before the temperature.

        Raises:
            BundleError: the instruction was prepared for another model.
            InternalError: the graph failed.
        """
        once = list(dict.fromkeys(rows))
        logits = self._scores(encoding, once, prepared, lane)
        if len(once) < len(rows):
            at = {row: place for place, row in enumerate(once)}
            logits = logits[[at[row] for row in rows]]
        return logits if prepared.priors is None else logits + prepared.priors

    def compute(
        self,
        jobs: Sequence[Job],
        *,
        lane: int = 0,
        use_guard: bool = True,
        join: Join = tuple,
    ) -> list[Outcome]:
        """Answer jobs that were read, in order. One that fails does not take others with it.

        Args:
            join: asked once, when the texts are encoded, for more jobs that read the same as one of
                these; they are answered from its encoding, behind the others.
        """
        blocked = [index for index, job in enumerate(jobs) if job.is_blocked]
        rest = [index for index, job in enumerate(jobs) if not job.is_blocked]
        outcomes: dict[int, Outcome] = {index: self._blocked(jobs[index]) for index in blocked}
        if rest:
            found = self._compute([jobs[index] for index in rest], lane, use_guard, join)
            rest += range(len(jobs), len(jobs) + len(found) - len(rest))
            outcomes.update(zip(rest, found, strict=True))
        return [outcomes[index] for index in range(len(outcomes))]

    def answer(
        self, requests: Sequence[Request], *, lane: int = 0, use_guard: bool = True
    ) -> list[Outcome]:
        """Everything at once, in one batch, for few requests; raises nothing."""
        outcomes: list[Outcome | None] = []
        jobs = []
        for request in requests:
            try:
                jobs.append(self.admit(request))
                outcomes.append(None)
            except InstructRecError as error:
                outcomes.append(error)
        self.read(jobs, use_guard=use_guard, lane=lane)
        computed = iter(self.compute(jobs, lane=lane, use_guard=use_guard))
        return [next(computed) if outcome is None else outcome for outcome in outcomes]

    def guarded(self, text: str, guard: Guard, *, lane: int = 0) -> GuardedText:
        """A text by itself as the policy lets it on, its heads asked too.

        Raises:
            InternalError: the graph failed.
        """
        job = Job(Request(text, ()), (), text=text)
        job.guard(guard)
        self.checks.name([job], lane=lane)
        if not job.is_blocked:
            self.checks.judge([job], lane=lane)
        return GuardedText("" if job.is_blocked else job.text, job.verdicts[0])

    def warm(self) -> None:
        """Prepare the bundle's tasks and run every lane once, so that the first caller waits not.

        Raises:
            InstructRecError: the bundle cannot answer.
        """
        if self.judged_by is not None:
            self.judged_by.warm()
        for instruction in self.resolver.own.values():
            self.prepare(instruction)
        own = next(iter(self.resolver.own.values()), None)
        if own is None and self.engine.model.kind == "question-answering":
            own = Instruction.of("ok", ["ok 好"], kind=TaskKind.QA)  # its task brings no question
        if own is None:
            return
        for lane in range(self.engine.n_lanes):
            for outcome in self.answer(
                [Request("ok 好", (Question(instruction=own),))], lane=lane, use_guard=False
            ):
                if isinstance(outcome, InstructRecError):
                    raise outcome

    def close(self) -> None:
        """Give the sessions back."""
        self.engine.close()
        if self.judged_by is not None:
            self.judged_by.close()

    def _compute(
        self, jobs: list[Job], lane: int, use_guard: bool, join: Join = tuple
    ) -> list[Outcome]:
        start = self.clock()
        fault: InstructRecError | None = None
        try:
            use_lower = any(job.seeks_spans for job in jobs)
            rows, places = place_rows(jobs)
            encoding = encode_rows(self.engine, rows, use_lower=use_lower, lane=lane)
        except InstructRecError as error:
            fault = error
        joined = join()
        jobs = [*jobs, *joined]
        for job in jobs:
            job.started_s = start
        if fault is not None:
            if len(jobs) == 1:
                return [fault]
            return [self._compute([job], lane, use_guard)[0] for job in jobs]
        if joined:
            _, places = place_rows(jobs)
        if use_guard and self.judged_by is not None:
            self.checks.judge(jobs, lane=lane)
        elif use_guard:
            self.checks.judge_encoded(jobs, places, encoding, lane=lane)
        answers, errors = self._ask_all(jobs, places, encoding, lane)
        inference_s = self.clock() - start
        return [
            self._blocked(job)
            if job.is_blocked
            else errors.get(row) or self._predict(job, answers[row], inference_s, use_guard)
            for row, job in enumerate(jobs)
        ]

    def _ask_all(
        self, jobs: list[Job], places_of: list[range], encoding: Encoding, lane: int
    ) -> tuple[list[list[Answer]], dict[int, InstructRecError]]:
        """All questions, those about the same instruction together."""
        groups: dict[str, list[tuple[int, int]]] = {}
        for row, job in enumerate(jobs):
            for place, ask in enumerate(job.asks):
                groups.setdefault(ask.key, []).append((row, place))
        found: list[dict[int, Answer]] = [{} for _ in jobs]
        errors: dict[int, InstructRecError] = {}
        for places in groups.values():
            first_row, first_place = places[0]
            try:
                prepared = self._prepared(jobs[first_row].asks[first_place], lane)
                rows = [row for row, _ in places]
                answers = self._answer(
                    encoding,
                    [jobs[row] for row in rows],
                    [jobs[row].asks[place] for row, place in places],
                    [places_of[row] for row in rows],
                    prepared,
                    lane,
                )
            except InstructRecError as error:
                errors.update((row, error) for row, _ in places)
                continue
            for (row, place), answer in zip(places, answers, strict=True):
                found[row][place] = answer
        return [[answer for _, answer in sorted(by_place.items())] for by_place in found], errors

    def _answer(
        self,
        encoding: Encoding,
        jobs: list[Job],
        asks: list[Ask],
        places: list[range],
        prepared: PreparedInstruction,
        lane: int,
    ) -> list[Answer]:
        """One question about several texts, each with its rows of the encoding."""
        instruction = prepared.instruction
        if instruction.shape is Shape.EXTRACT:
            return answer_spans(self.engine, encoding, jobs, asks, places, prepared, lane=lane)
        answers = decode_answers(
            self.logits(encoding, [rows[0] for rows in places], prepared, lane=lane),
            prepared.labels,
            temperature=instruction.temperature,
            top_ks=[job.request.top_k for job in jobs],
            task=instruction.task,
            prepared_id=prepared.key,
            decision=instruction.decision,
        )
        for index, job in enumerate(jobs):
            if job.variants:
                rows = [places[index][0], *places[index][-len(job.variants) :]]
                logits = self.logits(encoding, rows, prepared, lane=lane)
                answers[index] = attribute(answers[index], logits, instruction, job)
        return answers

    def _scores(
        self, encoding: Encoding, rows: list[int], prepared: PreparedInstruction, lane: int
    ) -> Floats:
        picked = encoding.rows(rows)
        if picked.logits is not None and prepared.columns is not None:
            if picked.logits.shape[1] <= int(prepared.columns.max()):
                raise BundleError(
                    "the encoder has fewer logits than its task has labels", hint="export it again"
                )
            return np.asarray(picked.logits[:, prepared.columns])
        if prepared.vectors is None:
            raise BundleError("the instruction was prepared for another model", hint="prepare it")
        return self.engine.score(
            picked, prepared.vectors, prepared.fusion_queries, prepared.fusion_values, lane=lane
        )

    def _prepared(self, ask: Ask, lane: int) -> PreparedInstruction:
        if ask.prepared is None:
            ask.prepared = self.cache.get_or_make(
                ask.key, lambda: self.preparer.prepare(ask.instruction, ask.key, lane=lane)
            )
        return ask.prepared

    def _predict(
        self, job: Job, answers: list[Answer], inference_s: float, use_guard: bool
    ) -> Prediction:
        verdicts = list(job.verdicts)
        for place, answer in enumerate(answers if use_guard else ()):
            guard = self._guard_of(job, (answer.task,))
            if guard is not None:
                answers[place], verdict = self._outgoing.check(guard, answer)
                if verdict is not None:
                    verdicts.append(verdict)
        return self._prediction(job, tuple(answers), tuple(verdicts), inference_s)

    def _guard_of(self, job: Job, tasks: Iterable[str]) -> GuardLike | None:
        """The guard for these tasks of a job: a policy may have words of its own for them."""
        if isinstance(self.guard, PolicyGuards):
            return self.guard.of(tasks, job.request.tenant)
        return self.guard

    def _prepared_task(self, task: str, lane: int) -> PreparedInstruction:
        return self._prepared(self.resolver.resolve(Question(task=task)), lane)

    def _blocked(self, job: Job) -> Prediction:
        """An answer without content: the text was kept from the model."""
        job.started_s = self.clock()
        answers = tuple(
            Answer(ask.instruction.task, "", 0.0, (), prepared_id=ask.key) for ask in job.asks
        )
        return self._prediction(job, answers, job.verdicts, 0.0)

    def _prediction(
        self,
        job: Job,
        answers: tuple[Answer, ...],
        verdicts: tuple[Verdict, ...],
        inference_s: float,
    ) -> Prediction:
        manifest = self.bundle.manifest
        timings = job.timings(inference_s=inference_s, now_s=self.clock())
        return job.prediction(answers, verdicts, timings, manifest.name, manifest.version)

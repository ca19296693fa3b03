"""Predict in this process: one text or many, results in order.

with Predictor("bundles/bank") as predictor:
    predictor.predict("I lost my card").label
    predictor.predict(texts, instruction="Is it urgent?", candidates=["urgent", "it can wait"])
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import overload

from instructrec_deploy.core.bundle import Bundle, open_bundle
from instructrec_deploy.core.closing import Closing
from instructrec_deploy.core.decision import PLAIN, Decision
from instructrec_deploy.core.errors import (
    InstructionMissing,
    InstructRecError,
    LabelMissing,
    Unavailable,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.question import read_question
from instructrec_deploy.core.request import MarkLike, Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.batching import BatchingSettings
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.jobs import GuardLike, Job
from instructrec_deploy.runtime.pipeline import Outcome, Pipeline
from instructrec_deploy.runtime.prepared import PreparedInstruction, PreparedSettings

WINDOW_ITEMS = 2048  # requests read and sorted at a time; bounds what a long list holds in memory


def question_of(
    bundle: Bundle,
    *,
    instruction: str | Instruction | None = None,
    candidates: Iterable[str | Candidate] | None = None,
    task: str = "",
    prepared_id: str = "",
    decision: str | Decision = "",
    threshold: float | None = None,
    none_label: str = "",
) -> Question:
    """What loose arguments ask.

    An instruction's words with a task (and no candidates) put the task's labels into these words;
    candidates with a task (and no instruction) use the task's words and temperature. `decision`,
    `threshold` and `none_label` change how the question's scores are decided.

    Raises:
        InstructionMissing, LabelMissing: one of the two came without the other and without a task.
        RequestError: two ways of asking at once.
        DecisionInvalid: a decision that is none, or does not fit the candidates.
        TaskUnknown: no such task.
    """
    asked = read_question(
        instruction=instruction,
        candidates=candidates,
        task=task,
        prepared_id=prepared_id,
        decision=decision,
        threshold=threshold,
        none_label=none_label,
    )
    if isinstance(asked, Question):
        return asked
    if asked.candidates is None:
        if not task and asked.words is not None:
            raise LabelMissing(
                "an instruction came without candidates",
                hint="pass candidates=[...], or task=... to use that task's labels",
            )
        found = bundle.instruction(task, asked.words or "")
        return Question(instruction=found.with_decision(asked.change))
    if task:
        found = _reworded(bundle, task, asked.words or "", asked.candidates)
        return Question(instruction=found.with_decision(asked.change))
    if asked.words is None:
        raise InstructionMissing(
            "candidates came without an instruction",
            hint="pass instruction=..., or task=... to use that task's words",
        )
    own = PLAIN.changed(asked.change)
    return Question(instruction=Instruction.of(asked.words, asked.candidates, decision=own))


def _reworded(bundle: Bundle, task: str, text: str, candidates: Sequence[Candidate]) -> Instruction:
    """A task with other candidates, and in other words where there are any."""
    spec = bundle.tasks.tasks.get(task)
    if spec is None:
        return bundle.instruction(task, text)  # says which there are
    return spec.relabelled(candidates).instruction(task, text)


class Predictor(Closing):
    """A bundle, answering in this process. Safe to share between threads; close it at the end.

    Args:
        bundle: an opened bundle or its folder.
        engine, batching, prepared: settings of the layers below.
        guard: True for the bundle's own safety policy, False for none, or a filter.
        safety_bundle: whose model the policy's heads ask in place of the bundle's own.

    Raises:
        FileMissing, BundleError: no bundle there, or a damaged one.
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        engine: EngineSettings = EngineSettings(),
        batching: BatchingSettings = BatchingSettings(),
        prepared: PreparedSettings = PreparedSettings(),
        guard: bool | GuardLike = True,
        safety_bundle: str | Path | None = None,
    ) -> None:
        opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.pipeline = Pipeline.open(
            opened,
            engine=engine,
            prepared=prepared,
            guard=guard,
            safety_bundle=open_bundle(safety_bundle) if safety_bundle else None,
        )
        own = self.pipeline.engine
        self._batching = batching.fitted(is_gpu=own.is_gpu, batch_tokens=own.batch_tokens)
        n_lanes = own.n_lanes
        self._is_closed = False
        self._threads = ThreadPoolExecutor(n_lanes, thread_name_prefix="predict")
        self._lanes: queue.SimpleQueue[int] = queue.SimpleQueue()
        for lane in range(n_lanes):
            self._lanes.put(lane)

    @property
    def bundle(self) -> Bundle:
        """What it answers with."""
        return self.pipeline.bundle

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a Sequence[str], and comes first
        self,
        text: str,
        *,
        instruction: str | Instruction | None = None,
        candidates: Iterable[str | Candidate] | None = None,
        task: str = "",
        prepared_id: str = "",
        top_k: int = 5,
        decision: str | Decision = "",
        threshold: float | None = None,
        none_label: str = "",
        text2: str = "",
        head: MarkLike | None = None,
        tail: MarkLike | None = None,
        explain: bool = False,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        text: Sequence[str],
        *,
        instruction: str | Instruction | None = None,
        candidates: Iterable[str | Candidate] | None = None,
        task: str = "",
        prepared_id: str = "",
        top_k: int = 5,
        decision: str | Decision = "",
        threshold: float | None = None,
        none_label: str = "",
        text2: str = "",
        head: MarkLike | None = None,
        tail: MarkLike | None = None,
        explain: bool = False,
    ) -> list[Prediction]: ...

    def predict(
        self,
        text: str | Sequence[str],
        *,
        instruction: str | Instruction | None = None,
        candidates: Iterable[str | Candidate] | None = None,
        task: str = "",
        prepared_id: str = "",
        top_k: int = 5,
        decision: str | Decision = "",
        threshold: float | None = None,
        none_label: str = "",
        text2: str = "",
        head: MarkLike | None = None,
        tail: MarkLike | None = None,
        explain: bool = False,
    ) -> Prediction | list[Prediction]:
        """Answer one question about one text or about many.

        Args:
            text: a text, or several; the result has the same form and order.
            instruction: what is asked, in words or whole; None for the task's own.
            candidates: the labels to choose from.
            task: a task of the bundle; "" for its default task.
            prepared_id: the key of an instruction prepared before.
            top_k: how many scores come back; 0 for all.
            decision: "one" of the candidates, "any" of them, or a whole `Decision` with rules.
            threshold: any: least probability of a chosen label; one: least fit of the answer.
            none_label: what the answer is called where nothing fits.
            text2: of a pair, what each text is held against.
            head, tail: of a relation, two parts of the text: (start, end) in code points.
            explain: say which words moved the answer (`Answer.attributions`); costs up to 32 more
                readings of a text.

        Raises:
            InstructRecError: the first text that cannot be answered; `predict_requests` keeps the
                others.
        """
        question = question_of(
            self.bundle,
            instruction=instruction,
            candidates=candidates,
            task=task,
            prepared_id=prepared_id,
            decision=decision,
            threshold=threshold,
            none_label=none_label,
        )
        texts = [text] if isinstance(text, str) else text
        requests = [
            Request.of(
                one, (question,), top_k=top_k, text2=text2, head=head, tail=tail, explain=explain
            )
            for one in texts
        ]
        predictions = []
        for outcome in self.predict_requests(requests):
            if isinstance(outcome, InstructRecError):
                raise outcome
            predictions.append(outcome)
        return predictions[0] if isinstance(text, str) else predictions

    def predict_requests(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer requests, in order; a request that cannot be answered has its error in place."""
        outcomes: list[Outcome] = []
        for start in range(0, len(requests), WINDOW_ITEMS):
            outcomes += self._window(requests[start : start + WINDOW_ITEMS])
        return outcomes

    def prepare(self, instruction: Instruction) -> PreparedInstruction:
        """Compile an instruction; its `key` is the `prepared_id` from now on.

        Raises:
            RequestError, LabelUnknown: it cannot be answered by this bundle.
        """
        return self.pipeline.prepare(instruction)

    def close(self) -> None:
        """Wait for what runs and give the sessions back."""
        self._is_closed = True
        self._threads.shutdown()
        self.pipeline.close()

    def _window(self, requests: Sequence[Request]) -> list[Outcome]:
        if self._is_closed:
            raise Unavailable("the predictor is closed", hint="open another one")
        outcomes: dict[int, Outcome] = {}
        jobs: list[tuple[int, Job]] = []
        for index, request in enumerate(requests):
            try:
                jobs.append((index, self.pipeline.admit(request)))
            except InstructRecError as error:
                outcomes[index] = error
        if jobs:
            self.pipeline.read([job for _, job in jobs])
        batches = list(self._batches(jobs))
        if len(batches) == 1:  # a lone batch saves the way to another thread
            results = [self._compute(batches[0])]
        else:
            results = list(self._threads.map(self._compute, batches))
        for batch, result in zip(batches, results, strict=True):
            outcomes.update(zip((index for index, _ in batch), result, strict=True))
        return [outcomes[index] for index in range(len(requests))]

    def _batches(self, jobs: list[tuple[int, Job]]) -> Iterator[list[tuple[int, Job]]]:
        """Jobs of like length together, the longest first, within the budget."""
        rest = sorted(jobs, key=lambda pair: pair[1].n_tokens)
        while rest:
            longest = max(1, rest[-1][1].n_tokens)
            n_items = max(1, self._batching.max_batch_tokens // longest)
            n_items = min(n_items, self._batching.max_batch_items)
            yield rest[-n_items:]
            del rest[-n_items:]

    def _compute(self, batch: list[tuple[int, Job]]) -> list[Outcome]:
        lane = self._lanes.get()
        try:
            return self.pipeline.compute([job for _, job in batch], lane=lane)
        finally:
            self._lanes.put(lane)

"""A request on its way: its questions resolved, its text guarded and tokenized, its times."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, Protocol

from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import InstructRecError, PreparedUnknown
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Mark, Question, Request, guess_tokens
from instructrec_deploy.core.result import Answer, Prediction, Timings, Verdict
from instructrec_deploy.core.task import Shape
from instructrec_deploy.runtime.prepared import PreparedCache, PreparedInstruction, Preparer
from instructrec_deploy.safety.guard import Guard, Named
from instructrec_deploy.safety.heads import Heads
from instructrec_deploy.safety.marks import Span, restore_span
from instructrec_deploy.text.render import Passage, render
from instructrec_deploy.text.tokenizer import Encoded

MAX_INHERITED = 10_000  # ids of older versions, each some hundred bytes and its candidates


class Guarded(Protocol):
    """What a guard says about a text."""

    @property
    def text(self) -> str:
        """The text to read: masked, or the very object that was given."""

    @property
    def verdict(self) -> Verdict:
        """What was found and decided."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of the text that was given stands in the text to read."""


class GuardLike(Protocol):
    """What the runtime asks of a safety filter (`safety.guard.Guard` is one)."""

    def check_input(self, text: str) -> Guarded:
        """Before the model reads it."""

    def check_output(self, answer: Answer) -> tuple[Answer, Verdict]:
        """Before the caller reads it."""


@dataclass(slots=True, eq=False)
class Ask:
    """One question, resolved. `prepared` is set at the latest when the job is computed."""

    key: str
    instruction: Instruction
    prepared: PreparedInstruction | None = None
    windows: list[Encoded] = field(default_factory=list)  # its own: it is read with the text
    seeks_spans: bool = field(init=False)  # whether it is answered with spans

    def __post_init__(self) -> None:
        self.seeks_spans = self.instruction.shape is Shape.EXTRACT


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way. Times are seconds of the monotonic clock."""

    request: Request
    asks: tuple[Ask, ...]
    submitted_s: float = 0.0
    deadline_s: float | None = None
    text: str = ""  # what the model reads, with the marks as they lie in it
    text2: str = ""
    head: Mark | None = None
    tail: Mark | None = None
    verdicts: tuple[Verdict, ...] = ()  # about the text, and about the second one of a pair
    guarded_by: GuardLike | None = None
    heads: Heads = field(default_factory=dict)  # what the policy asks the model about the text
    ids: list[int] = field(default_factory=list)
    windows: list[Encoded] = field(default_factory=list)  # where spans are sought: all of the text
    pieces: list[Span] = field(default_factory=list)  # of the text, to explain: code points
    variants: list[list[int]] = field(default_factory=list)  # the text without each piece
    rows: list[list[int]] = field(default_factory=list)  # all that is to be read (`lay_out`)
    truncated: bool = False
    reading: Hashable = None  # jobs of which it is equal have the same rows; set with them
    tokenize_s: float = 0.0  # guard and tokenizer, of the batch it was tokenized with
    started_s: float = 0.0  # when its computation began

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are asked; "" for an instruction of the caller's own."""
        return tuple([ask.instruction.task for ask in self.asks])

    @property
    def seeks_spans(self) -> bool:
        """Whether a question is answered with spans."""
        for ask in self.asks:  # noqa: SIM110 - `any` with a generator takes three times as long
            if ask.seeks_spans:
                return True
        return False

    @property
    def seeks_only_spans(self) -> bool:
        """Whether all questions are: then nothing of the text is left out."""
        return all(ask.seeks_spans for ask in self.asks)

    @property
    def is_plain(self) -> bool:
        """Whether it is one text that candidates are scored on, and nothing more."""
        return not (self.text2 or self.head or self.request.explain or self.seeks_spans)

    @property
    def seeks_names(self) -> bool:
        """Whether its policy has a model look for names in its texts."""
        guard = self.guarded_by
        return isinstance(guard, Guard) and bool(guard.policy.input.entities)

    def lay_out(self) -> None:
        """Set `rows` when the text is tokenized: first those that candidates are scored on."""
        own = [window.ids for ask in self.asks for window in ask.windows]
        shared = [window.ids for window in self.windows]
        scored = [self.ids] if self.has_scored_row else []
        self.rows = [*scored, *shared, *own, *self.variants]

    @property
    def is_explained(self) -> bool:
        """Whether an answer is to say which words moved it."""
        return self.request.explain and not self.seeks_only_spans

    def source(self, start: int, end: int) -> Span:
        """A range of what the model read as one of the text as sent."""
        return (
            restore_span(self.verdicts[0].findings, start, end) if self.is_masked else (start, end)
        )

    @property
    def has_scored_row(self) -> bool:
        """Whether candidates are scored on a row of its own; else on the first window, or none."""
        if self.seeks_only_spans:
            return bool(self.heads) and not self.windows
        return not self.windows or bool(self.text2 or self.head)

    def window_rows(self, ask: Ask) -> range:
        """Where the windows that a question of spans is answered from stand among the rows."""
        first = int(self.has_scored_row)
        if not ask.windows:
            return range(first, first + len(self.windows))
        first += len(self.windows)
        for other in self.asks:
            if other is ask:
                break
            first += len(other.windows)
        return range(first, first + len(ask.windows))

    @property
    def n_tokens(self) -> int:
        """Of all rows."""
        return sum(map(len, self.rows))

    def guess_tokens(self, max_tokens: int) -> int:
        """About its length before it is read; `max_tokens` is the model's window."""
        guess = guess_tokens(self.text, self.text2)
        return guess if self.seeks_spans else min(guess, max_tokens)

    @property
    def is_masked(self) -> bool:
        """Whether the guard changed the text."""
        return self.text is not self.request.text

    @property
    def is_blocked(self) -> bool:
        """Whether the guard keeps the text from the model."""
        for verdict in self.verdicts:  # noqa: SIM110 - asked often, see `seeks_spans`
            if verdict.action == "block":
                return True
        return False

    def guard(self, guard: GuardLike) -> None:
        """Have both texts checked; marks move with what was masked before or inside them."""
        request = self.request
        self.guarded_by = guard
        self._take(
            guard.check_input(request.text),
            guard.check_input(request.text2) if request.text2 else None,
        )
        if isinstance(guard, Guard):
            self.heads = guard.heads(request.text)

    def name(self, found: Sequence[Named]) -> None:
        """Take in what a model found in the texts: they are checked once more, with that."""
        guard = self.guarded_by
        if not isinstance(guard, Guard) or not any(named is None or named for named in found):
            return
        checked = [
            guard.check_named(text, named)
            for text, named in zip((self.request.text, self.request.text2), found, strict=True)
            if text
        ]
        self._take(checked[0], checked[1] if len(checked) > 1 else None)

    def _take(self, guarded: Guarded, second: Guarded | None) -> None:
        """The texts as the guard lets them on."""
        request = self.request
        self.text, self.verdicts = guarded.text, (guarded.verdict,)
        if second is not None:
            self.text2 = second.text
            self.verdicts += (replace(second.verdict, direction="text2"),)
        if self.is_masked and not self.is_blocked:
            self.head, self.tail = (
                mark and Mark(*guarded.span(mark.start, mark.end))
                for mark in (request.head, request.tail)
            )

    def passage(self) -> Passage:
        """What the encoder reads."""
        return render(self.text, text2=self.text2, head=self.head, tail=self.tail)

    def timings(self, *, inference_s: float, now_s: float) -> Timings:
        """Where its time went; it may have joined others that were being computed."""
        total_s = now_s - self.submitted_s
        waited_s = max(0.0, self.started_s - self.submitted_s - self.tokenize_s)
        return Timings(
            queue_ms=waited_s * 1000,
            tokenize_ms=self.tokenize_s * 1000,
            inference_ms=min(inference_s, total_s) * 1000,
            total_ms=total_s * 1000,
        )

    def prediction(
        self,
        answers: tuple[Answer, ...],
        verdicts: tuple[Verdict, ...],
        timings: Timings,
        model: str,
        model_version: str,
    ) -> Prediction:
        """What its caller gets."""
        return Prediction(
            answers=answers,
            id=self.request.id,
            text=self.text if self.is_masked and not self.is_blocked else "",
            truncated=self.truncated,
            n_tokens=self.n_tokens,
            verdicts=verdicts,
            timings=timings,
            model=model,
            model_version=model_version,
        )


def place_rows(jobs: Sequence[Job]) -> tuple[list[list[int]], list[range]]:
    """All rows to read, and where each job's own stand; jobs that read the same share them."""
    rows: list[list[int]] = []
    places: list[range] = []
    placed: dict[Hashable, range] = {}
    for job in jobs:
        found = placed.get(job.reading)
        if found is None:
            own = job.rows
            found = range(len(rows), len(rows) + len(own))
            rows += own
            if job.reading is not None:
                placed[job.reading] = found
        places.append(found)
    return rows, places


class Known(NamedTuple):
    """What an id stands for. `is_task`: a task of the bundle that told it, as it was there."""

    instruction: Instruction
    is_task: bool = False


class Resolver:
    """Finds what a question asks; cheap, so that a wrong request is refused at once."""

    def __init__(self, bundle: Bundle, preparer: Preparer, cache: PreparedCache) -> None:
        self._bundle = bundle
        self._preparer = preparer
        self._cache = cache
        self._tasks, self._own = _own_instructions(bundle)
        self._sound: set[str] = set()  # keys of those that the model can answer
        self._older: Resolver | None = None  # of the version before, while it still answers
        self._left: dict[str, Known] = {}  # what that version left behind

    def inherit(self, older: Resolver) -> None:
        """Answer the ids of another version, too: what they stand for is prepared again, here."""
        self._older = older

    def settle(self) -> None:
        """Take over what the older version knows, and let go of it: it answers no more."""
        if self._older is not None:
            known = self._older.known()
            self._left = dict(list(known.items())[-MAX_INHERITED:])
            self._older = None

    def recall(self, key: str) -> Known | None:
        """What an id stands for, here or in an older version; no use of the cache."""
        if key in self._own:
            return Known(self._own[key], is_task=True)
        found = self._cache.peek(key)
        if found is not None:
            return Known(found)
        return self._older.recall(key) if self._older is not None else self._left.get(key)

    def known(self) -> dict[str, Known]:
        """Everything that `recall` would find, what was used last at the end."""
        older = self._older.known() if self._older is not None else self._left
        cached = {key: Known(made) for key, made in self._cache.instructions().items()}
        own = {key: Known(made, is_task=True) for key, made in self._own.items()}
        return {**older, **cached, **own}

    @property
    def own(self) -> Mapping[str, Instruction]:
        """The bundle's tasks as instructions, by key."""
        return MappingProxyType(self._own)

    def resolve(self, question: Question) -> Ask:
        """One question.

        Raises:
            TaskUnknown, PreparedUnknown, LabelUnknown, RequestError: as their names say.
            InstructionMissing, LabelMissing: the task has none of its own.
        """
        if question.instruction is not None:
            self._preparer.check(question.instruction)
            return Ask(question.instruction.key, question.instruction)
        if question.prepared_id:
            return self._by_id(question.prepared_id)
        found = self._tasks.get(question.task or self._bundle.tasks.default_task)
        if found is not None:
            if found[0] not in self._sound:
                self._preparer.check(found[1])
                self._sound.add(found[0])
            return Ask(*found)
        instruction = self._bundle.instruction(question.task)  # says what is wrong
        return Ask(instruction.key, instruction)

    def _by_id(self, key: str) -> Ask:
        own = self._own.get(key)
        if own is not None:  # never forgotten: it can be prepared again
            return Ask(key, own)
        prepared = self._cache.get(key)
        if prepared is not None:
            return Ask(key, prepared.instruction, prepared)
        known = self.recall(key)
        if known is None:
            raise PreparedUnknown(
                "no prepared instruction of that id is here",
                hint="prepare it again; it was evicted, or prepared by another process",
            )
        task = self._tasks.get(known.instruction.task) if known.is_task else None
        if task is not None and task[1].labels == known.instruction.labels:
            return Ask(*task)  # as it is here: its words and its calibration
        self._preparer.check(known.instruction)
        return Ask(key, known.instruction)


def _own_instructions(
    bundle: Bundle,
) -> tuple[dict[str, tuple[str, Instruction]], dict[str, Instruction]]:
    """The bundle's tasks that stand by themselves: by name (with their keys), and by key."""
    by_name: dict[str, tuple[str, Instruction]] = {}
    for name in bundle.tasks.tasks:
        try:
            instruction = bundle.instruction(name)
        except InstructRecError:  # it has no labels of its own; whoever asks for it is told
            continue
        by_name[name] = (instruction.key, instruction)
    return by_name, dict(by_name.values())

"""Prepared instructions: candidates read once, kept by content, bounded in bytes.

A preparation is done in steps (one batch of candidates each), so that a worker can answer texts
between two steps of a long one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from instructrec_deploy.core.decision import DEFAULT_THRESHOLD
from instructrec_deploy.core.errors import (
    BundleError,
    LabelUnknown,
    RequestError,
    TextTooLong,
    TooManyLabels,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.manifest import SPAN_HEADS
from instructrec_deploy.core.settings import Section
from instructrec_deploy.core.tags import TagScheme
from instructrec_deploy.core.task import Shape, TaskKind
from instructrec_deploy.runtime.engine import Engine, pad_rows
from instructrec_deploy.runtime.learned import LearnedLabels
from instructrec_deploy.runtime.vectors import VectorCache, vector_key
from instructrec_deploy.tasks.base import Floats, Ints, check_kind
from instructrec_deploy.text.tokenizer import TextTokenizer

ENTRY_BYTES = 1_000  # of an entry without its arrays and labels, about
MAX_TYPES = 128  # of spans, sought at once
MAX_MEMORY_TOKENS = 1_024  # of their words: every token of a text looks at each of them


class PreparedSettings(Section):
    """The cache of prepared instructions."""

    max_bytes: int = Field(
        default=64 << 20, ge=0
    )  # about 180 sets of 77 candidates with MiniLM's fusion
    max_vector_bytes: int = Field(
        default=32 << 20, ge=0
    )  # of single candidates, for sets that overlap: about 15,000 with MiniLM; 0 keeps none
    step_tokens: int = Field(default=1024, ge=1)  # padded tokens of candidates read in one step


@dataclass(frozen=True, slots=True, eq=False)
class PreparedInstruction:
    """All that depends on an instruction alone. Its arrays are None where the model has no use.

    `vectors`, `fusion_queries`, `fusion_values`: [C, H]. `columns`: [C], which logits a model with
    fixed labels answers with. `priors`: [C], added to the logits, before the temperature.
    `memory`: [K, H], the lower states of all candidates' own words, which the span reader looks at.
    `tags`: how a token classifier's logits are read. `span_threshold`: least score of a span where
    the instruction says none.
    """

    key: str
    instruction: Instruction
    labels: tuple[str, ...]
    vectors: Floats | None = None
    fusion_queries: Floats | None = None
    fusion_values: Floats | None = None
    columns: Ints | None = None
    priors: Floats | None = None
    memory: Floats | None = None
    tags: TagScheme | None = None
    span_threshold: float = DEFAULT_THRESHOLD

    @property
    def size_bytes(self) -> int:
        """Memory it holds, about."""
        arrays = (
            self.vectors,
            self.fusion_queries,
            self.fusion_values,
            self.columns,
            self.priors,
            self.memory,
        )
        words = sum(len(c.label) + len(c.description) for c in self.instruction.candidates)
        return ENTRY_BYTES + 2 * words + sum(a.nbytes for a in arrays if a is not None)


Steps = Generator[None, None, PreparedInstruction]


class Preparer:
    """Compiles instructions for one engine.

    Args:
        fixed_labels: of a model with fixed labels, in the order of its logits, or the types that
            its tags are of; else empty.
        learned: vectors that tuning added to the tasks' own labels.
        span_threshold: least score of a span where an instruction says none.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        settings: PreparedSettings = PreparedSettings(),
        *,
        fixed_labels: tuple[str, ...] = (),
        learned: LearnedLabels = LearnedLabels(),
        span_threshold: float = DEFAULT_THRESHOLD,
    ) -> None:
        self._span_threshold = span_threshold
        self._engine = engine
        self._tokenizer = tokenizer
        self._settings = settings
        self._learned = learned
        self._kept = VectorCache(settings.max_vector_bytes)
        self._columns = {label: column for column, label in enumerate(fixed_labels)}
        tags = engine.model.tags
        self._tags = TagScheme.of(tags) if tags else None

    def check(self, instruction: Instruction) -> None:
        """Refuse at once what could not be prepared.

        Raises:
            RequestError: a kind that the model does not answer, or more than one question.
            TooManyLabels: more types than are sought at once.
            LabelUnknown: a candidate that a model with fixed labels does not have.
        """
        model = self._engine.model
        only = SPAN_HEADS.get(model.kind)
        check_kind(instruction.kind, finds_spans=model.has_reader, only=only)
        if instruction.shape is Shape.EXTRACT:
            _check_sought(instruction)
        if not self._engine.is_fixed or only is TaskKind.QA:
            return
        for position, label in enumerate(instruction.labels):
            if label not in self._columns:
                raise LabelUnknown(
                    f"candidate {position} is not among the model's {len(self._columns)} labels",
                    hint="this model has fixed labels: choose among them, or name its task",
                )

    def steps(self, instruction: Instruction, key: str, *, lane: int = 0) -> Steps:
        """Prepare, pausing after each batch of candidates; the generator's value is the result.

        Raises:
            RequestError, LabelUnknown: as `check`.
            InternalError: a graph failed.
        """
        self.check(instruction)
        labels = instruction.labels
        priors = np.array(instruction.prior_logits) if instruction.has_priors else None
        if instruction.shape is Shape.EXTRACT and self._engine.is_fixed:
            return PreparedInstruction(key, instruction, labels, tags=self._tags)
        if self._engine.is_fixed:
            columns = np.array([self._columns[label] for label in labels], np.int64)
            return PreparedInstruction(key, instruction, labels, columns=columns, priors=priors)
        vectors, memory = yield from self._read(instruction, lane)
        if memory is not None:
            return PreparedInstruction(
                key,
                instruction,
                labels,
                vectors,
                memory=memory,
                span_threshold=self._span_threshold,
            )
        vectors = self._learned.add(instruction, vectors)
        queries, values = self._engine.prepare_vectors(vectors, instruction.kind)
        return PreparedInstruction(
            key, instruction, labels, vectors, queries, values, priors=priors
        )

    def prepare(self, instruction: Instruction, key: str, *, lane: int = 0) -> PreparedInstruction:
        """Prepare in one go; errors as `steps`."""
        steps = self.steps(instruction, key, lane=lane)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                prepared: PreparedInstruction = end.value
                return prepared

    def _read(
        self, instruction: Instruction, lane: int
    ) -> Generator[None, None, tuple[Floats, Floats | None]]:
        """The candidates, read.

        Returns:
            [C, H] float32, L2-normalized: weighted means of the candidates' token states; and,
            where spans are sought, the memory [K, H].
        """
        model = self._engine.model
        use_lower = instruction.shape is Shape.EXTRACT
        words = [candidate.words for candidate in instruction.candidates]
        rows = self._tokenizer.encode_candidates(
            instruction.text, words, instruction_weight=model.instruction_weight
        )
        n_own = sum(end - start for start, end in (row.own for row in rows))
        if use_lower and n_own > MAX_MEMORY_TOKENS:
            raise TextTooLong(
                f"the words of what is sought have {n_own} tokens, the limit is "
                f"{MAX_MEMORY_TOKENS}",
                hint="shorten them, or split the request",
            )
        vectors = np.empty((len(rows), model.hidden_size), np.float32)
        own: dict[int, Floats] = {}
        keys = [vector_key(row) for row in rows]
        missing = range(len(rows)) if use_lower else self._take_kept(keys, vectors)
        order = sorted(missing, key=lambda index: len(rows[index].ids))
        while order:
            chosen = self._batch([len(rows[index].ids) for index in order], order)
            ids, mask = pad_rows([rows[index].ids for index in chosen], model.pad_id)
            weights = np.zeros(ids.shape, np.float32)
            for row, index in enumerate(chosen):
                weights[row, : len(rows[index].weights)] = rows[index].weights
            encoding = self._engine.encode(
                ids, mask, lane=lane, use_states=True, use_lower=use_lower
            )
            states, lower = encoding.token_states, encoding.lower_states
            if states is None or states.shape[2] != model.hidden_size:
                raise BundleError(
                    "the encoder's states are not of model.hidden_size", hint="export it again"
                )
            mean = np.einsum("bt,bth->bh", weights, states) / weights.sum(axis=1, keepdims=True)
            vectors[chosen] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            self._kept.keep((keys[index], vectors[index]) for index in chosen)
            if lower is not None:
                own |= {
                    index: lower[row, slice(*rows[index].own)] for row, index in enumerate(chosen)
                }
            if order:
                yield
        return vectors, np.concatenate([own[i] for i in range(len(rows))]) if use_lower else None

    def _take_kept(self, keys: list[bytes], vectors: Floats) -> list[int]:
        """Fill in the vectors that are kept; the places of the others."""
        found = self._kept.find(keys)
        for index, vector in enumerate(found):
            if vector is not None:
                vectors[index] = vector
        return [index for index, vector in enumerate(found) if vector is None]

    def _batch(self, lengths: list[int], order: list[int]) -> list[int]:
        """Take the longest candidates that fit the budget off the end of `order`."""
        n_rows = max(1, self._settings.step_tokens // lengths[-1])
        chosen = order[-n_rows:]
        del order[-n_rows:]
        return chosen


def _check_sought(instruction: Instruction) -> None:
    n_sought = len(instruction.candidates)
    if instruction.kind is TaskKind.QA and n_sought != 1:
        raise RequestError(
            f"{n_sought} questions in one", hint="send each as a question of its own about the text"
        )
    if n_sought > MAX_TYPES:
        raise TooManyLabels(
            f"{n_sought} types to look for, the limit is {MAX_TYPES}", hint="split the request"
        )


@dataclass(slots=True)
class CacheCounts:
    """What the cache did since it was made."""

    n_hits: int = 0
    n_misses: int = 0
    n_evictions: int = 0


class PreparedCache:
    """Prepared instructions by key: least recently used out first, bounded in bytes, thread-safe.

    What is larger than the whole bound is handed to its asker and not kept.
    """

    def __init__(self, max_bytes: int = PreparedSettings().max_bytes) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[PreparedInstruction, int]] = OrderedDict()
        self._under_way: dict[str, Future[PreparedInstruction]] = {}
        self._size_bytes = 0
        self.counts = CacheCounts()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether it is there; neither counted nor a use."""
        return key in self._entries

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return self._size_bytes

    def instructions(self) -> dict[str, Instruction]:
        """What is there by key, least recently used first; neither counted nor a use."""
        with self._lock:
            return {key: made.instruction for key, (made, _) in self._entries.items()}

    def peek(self, key: str) -> Instruction | None:
        """What was prepared under that key; neither counted nor a use."""
        with self._lock:
            entry = self._entries.get(key)
            return entry[0].instruction if entry else None

    def get(self, key: str) -> PreparedInstruction | None:
        """The entry, now the most recently used; None where it is not there."""
        with self._lock:
            return self._get(key)

    def put(self, prepared: PreparedInstruction) -> None:
        """Keep it, and let go of the least recently used beyond the bound."""
        size = prepared.size_bytes
        with self._lock:
            old = self._entries.pop(prepared.key, None)
            if old is not None:
                self._size_bytes -= old[1]
            if size > self._max_bytes:
                return
            self._entries[prepared.key] = (prepared, size)
            self._size_bytes += size
            while self._size_bytes > self._max_bytes:
                _, (_, gone) = self._entries.popitem(last=False)
                self._size_bytes -= gone
                self.counts.n_evictions += 1

    def get_or_make(self, key: str, make: Callable[[], PreparedInstruction]) -> PreparedInstruction:
        """The entry, made where missing; threads that want the same one wait for the first.

        Raises:
            Exception: what `make` raised, in every thread that waited; nothing is kept then.
        """
        with self._lock:
            found = self._get(key)
            if found is not None:
                return found
            waiting = self._under_way.get(key)
            if waiting is None:
                own: Future[PreparedInstruction] = Future()
                self._under_way[key] = own
        if waiting is not None:
            return waiting.result()
        try:
            made = make()
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            self.put(made)
            own.set_result(made)
            return made
        finally:
            with self._lock:
                del self._under_way[key]

    def _get(self, key: str) -> PreparedInstruction | None:
        entry = self._entries.get(key)
        if entry is None:
            self.counts.n_misses += 1
            return None
        self.counts.n_hits += 1
        self._entries.move_to_end(key)
        return entry[0]

"""An instruction with its candidates: what is asked about a text, independent of any text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from instructrec_deploy.core.decision import PLAIN, Decision
from instructrec_deploy.core.errors import (
    DecisionInvalid,
    InstructionMissing,
    InstructionUnreadable,
    LabelMissing,
    LabelRepeated,
    LabelsAlike,
    NoneLabelTaken,
    PriorInvalid,
    RequestError,
    TextTooLong,
    TextUndecodable,
    TooManyLabels,
)
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind, parse_kind
from instructrec_deploy.core.words import fold_words, is_readable

MAX_CANDIDATES = 2_000  # a request; more belongs to retrieval, not to a prepared instruction
MAX_CANDIDATE_CHARS = 2_000
MAX_INSTRUCTION_CHARS = 2_000
PRIOR_HINT = (
    "a prior is a logarithm, such as log(1 + how often it was chosen), within -1000 to 1000"
)
NUMBERED = "candidates are numbered from 0"
MAX_PRIOR = 1_000.0  # of a logarithm; beyond it a sum with a score says nothing any more


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible answer. `description` is read by the model in place of the bare label.

    `prior` is the logarithm of how likely or popular the candidate is before any text was read,
    up to a constant shared by all: its logit gains `prior_weight * prior`.
    """

    label: str
    description: str = ""
    prior: float = 0.0

    @property
    def words(self) -> str:
        """What the query tower reads."""
        return self.description or self.label


@dataclass(frozen=True, slots=True)
class Instruction:
    """What is asked. Build it with `Instruction.of`, which checks it.

    `key` is a content hash: the same instruction has the same key in every process.
    """

    text: str
    candidates: tuple[Candidate, ...]
    kind: TaskKind = TaskKind.CLASSIFICATION
    temperature: float = 1.0  # divides the logits before the softmax
    task: str = ""  # the bundle's task it came from; "" when it came with the request
    decision: Decision = PLAIN  # how scores become the answer
    prior_weight: float = 1.0  # of the candidates' priors; a task's own is learned
    _key: str = field(default="", init=False, repr=False, compare=False)  # `key`, once asked for

    @classmethod
    def of(
        cls,
        text: str,
        candidates: Iterable[str | Candidate],
        *,
        kind: TaskKind | str = TaskKind.CLASSIFICATION,
        temperature: float = 1.0,
        task: str = "",
        prior_weight: float = 1.0,
        max_candidates: int = MAX_CANDIDATES,
        decision: Decision = PLAIN,
        allowed: Iterable[str] = (),
    ) -> Instruction:
        """Check and build.

        Args:
            decision: one of the candidates, any of them, none; and the rules that hold.
            allowed: labels of the candidates that may be answered this time, where something is
                known beforehand (say, which relations fit the types of two marked entities); the
                others keep their place and are never chosen. Empty: all.

        Raises:
            InstructionMissing: the instruction is empty.
            InstructionUnreadable: it holds no word.
            LabelMissing, LabelRepeated, TooManyLabels, TextTooLong, TextUndecodable: as their
                names say.
            LabelsAlike: two candidates differ by case, width or white space at most.
            DecisionInvalid, NoneLabelTaken: the decision does not fit the candidates.
            PriorInvalid: a prior or its weight is not finite, or beyond 1000.
            RequestError: there is no such kind.
        """
        if not text.strip():
            raise InstructionMissing(
                "the instruction is empty",
                hint="say what to do with the text, or name a task of the bundle",
            )
        if len(text) > MAX_INSTRUCTION_CHARS:
            raise TextTooLong(
                f"the instruction has {len(text)} characters, the limit is {MAX_INSTRUCTION_CHARS}",
                hint="shorten the instruction; long material belongs into the text",
            )
        if not is_readable(text):
            raise InstructionUnreadable(
                "the instruction holds no word, only punctuation or symbols",
                hint="say in words what to do with the text",
            )
        found = as_candidates(candidates)
        _check_candidates(found, max_candidates)
        _check_unicode(text, found)
        if not _is_prior(prior_weight):
            raise PriorInvalid(f"the weight of the priors is {prior_weight:g}", hint=PRIOR_HINT)
        if allowed:
            decision = replace(decision, allowed=tuple(allowed))
        if decision is not PLAIN:
            _check_decision(decision, [c.label for c in found])
        return cls(text.strip(), found, parse_kind(kind), temperature, task, decision, prior_weight)

    def with_decision(self, change: Decision) -> Instruction:
        """The same question with what a request says about its decision.

        Raises:
            DecisionInvalid, NoneLabelTaken: that does not fit the candidates.
        """
        if change is PLAIN:
            return self
        decision = self.decision.changed(change)
        _check_decision(decision, self.labels)
        return replace(self, decision=decision)

    @property
    def shape(self) -> Shape:
        """What its answers look like."""
        return SHAPES[self.kind]

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates' labels, in order."""
        return tuple(c.label for c in self.candidates)

    @property
    def prior_logits(self) -> tuple[float, ...]:
        """What each candidate's logit gains; empty where no candidate has a prior."""
        if not self.has_priors:
            return ()
        return tuple(self.prior_weight * c.prior for c in self.candidates)

    @property
    def has_priors(self) -> bool:
        """Whether a prior changes the answer."""
        return bool(self.prior_weight) and any(c.prior for c in self.candidates)

    @property
    def key(self) -> str:
        """Content hash (32 hex digits): the id of the prepared instruction."""
        if not self._key:
            object.__setattr__(self, "_key", self._hash())
        return self._key

    def _hash(self) -> str:
        content: list[Any] = [
            self.text,
            [[c.label, c.description] for c in self.candidates],
            self.kind.value,
            self.temperature,
            self.task,
        ]
        if not self.decision.is_plain:
            content.append(astuple(self.decision))
        if priors := self.prior_logits:
            content.append({"priors": priors})
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:32]


def as_candidates(candidates: Iterable[str | Candidate]) -> tuple[Candidate, ...]:
    """Labels and candidates as candidates.

    Raises:
        RequestError: one string came in place of a list; its letters are hardly meant.
    """
    if isinstance(candidates, str):
        raise RequestError(
            "the candidates are one string, not a list", hint='pass a list: ["yes", "no"]'
        )
    return tuple(c if isinstance(c, Candidate) else Candidate(c) for c in candidates)


def _check_unicode(text: str, candidates: Sequence[Candidate]) -> None:
    try:
        text.encode()
        for candidate in candidates:
            candidate.label.encode()
            candidate.description.encode()
    except UnicodeEncodeError as error:
        raise TextUndecodable(
            "the instruction or a candidate holds a lone surrogate", hint="send valid Unicode"
        ) from error


def check_count(n_candidates: int, max_candidates: int) -> None:
    """Refuse more candidates than the limit.

    Raises:
        TooManyLabels: as its name says.
    """
    if n_candidates > max_candidates:
        raise TooManyLabels(
            f"{n_candidates} candidates, the limit is {max_candidates}",
            hint="narrow the candidates down first (retrieval), or split the request",
        )


def _is_prior(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= MAX_PRIOR


def _check_candidates(candidates: Sequence[Candidate], max_candidates: int) -> None:
    if not candidates:
        raise LabelMissing(
            "the instruction has no candidates",
            hint="pass the labels to choose from, or name a task of the bundle that has its own",
        )
    check_count(len(candidates), max_candidates)
    seen: dict[str, int] = {}
    folded: dict[str, int] = {}
    for position, candidate in enumerate(candidates):
        if not candidate.label.strip():
            raise LabelMissing(
                f"candidate {position} is empty", hint=f"give every candidate a name; {NUMBERED}"
            )
        if max(len(candidate.label), len(candidate.description)) > MAX_CANDIDATE_CHARS:
            raise TextTooLong(
                f"candidate {position} has more than {MAX_CANDIDATE_CHARS} characters",
                hint=f"shorten it; {NUMBERED}",
            )
        if not _is_prior(candidate.prior):
            raise PriorInvalid(
                f"the prior of candidate {position} is {candidate.prior:g}", hint=PRIOR_HINT
            )
        if candidate.label in seen:
            raise LabelRepeated(
                f"candidate {position} repeats candidate {seen[candidate.label]}",
                hint=f"give every candidate once; {NUMBERED}",
            )
        seen[candidate.label] = position
        words = {fold_words(candidate.label), fold_words(candidate.words)}
        alike = [folded[word] for word in words if word in folded]
        if alike:
            raise LabelsAlike(
                f"candidate {position} reads like candidate {min(alike)}, but for case, width or "
                "spaces",
                hint=f"drop one of them, or describe each in words of its own; {NUMBERED}",
            )
        folded |= dict.fromkeys(words, position)


def _check_decision(decision: Decision, labels: Sequence[str]) -> None:
    decision.check()
    if len(decision.none_label) > MAX_CANDIDATE_CHARS:
        raise TextTooLong(
            f"none_label has more than {MAX_CANDIDATE_CHARS} characters", hint="shorten it"
        )
    faults = decision.faults(labels, is_private=True)
    if not faults:
        return
    keys = {key for key, _ in faults}
    kind = NoneLabelTaken if keys == {"none_label"} else DecisionInvalid
    raise kind(
        "; ".join(f"{key}: {what}" for key, what in faults),
        hint=f"use labels of the candidates; {NUMBERED}",
    )

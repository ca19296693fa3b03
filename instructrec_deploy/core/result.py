"""What comes back: scores, the safety verdict, timings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


class LabelScore(NamedTuple):  # cheap to make: each answer has some
    """One candidate's probability after the temperature.

    One of them: a softmax over the candidates (and "none of these" where the task learned it); of
    a label with children it is the sum of theirs. Any of them: each by itself, a sigmoid.
    """

    label: str
    score: float


class Finding(NamedTuple):  # cheap to make: a hostile text has thousands
    """One thing the safety filter saw. Offsets are code points into the text as sent.

    Into the second text, where the verdict's direction is text2.
    """

    category: str  # EMAIL, PHONE, CREDIT_CARD, CN_ID, ... or a content category
    rule: str  # which rule fired
    action: str  # what the policy did about it: allow, flag, mask, block
    start: int = -1  # -1 for both: about the whole text
    end: int = -1
    score: float = 1.0
    stand_in: str = ""  # what stands in place of a masked value; "": [CATEGORY]
    dry_run_action: str = ""  # in a dry run: what would have been done
    review: bool = False  # a person is to look at it

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output; no word of the text."""
        return {
            "category": self.category,
            "rule": self.rule,
            "action": self.action,
            "dry_run_action": self.dry_run_action,
            "review": self.review,
            "start": self.start,
            "end": self.end,
            "score": round(self.score, 4),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy decided. `action`: allow, flag, mask or block, the strongest of all.

    `direction`: input (the text), text2 (the second text of a pair) or output. `dry_run_action`: in
    a dry run, what would have been done; `action` is what was done: nothing, or a flag.
    """

    action: str = "allow"
    findings: tuple[Finding, ...] = ()
    policy_version: str = ""
    direction: str = "input"
    dry_run_action: str = ""

    @property
    def review(self) -> bool:
        """Whether a person is to look at the case."""
        return any(finding.review for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one request's way through the server."""

    queue_ms: float = 0.0
    tokenize_ms: float = 0.0
    inference_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the text that answers: an entity, or the answer to a question.

    Offsets are code points into the text as sent, half-open. `label` is the type that the span
    was found for; "" for an answer to a question. `text` is what the model read there: masked where
    the policy masked it. `score` is the model's probability that it is right.
    """

    start: int
    end: int
    label: str
    text: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output; `type` as in data files."""
        return {
            "start": self.start,
            "end": self.end,
            "type": self.label,
            "text": self.text,
            "score": round(self.score, 6),
        }


@dataclass(frozen=True, slots=True)
class Attribution:
    """How much probability the answer loses without a piece of the text; below 0: it gains.

    Offsets are code points into the text as sent, half-open.
    """

    start: int
    end: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {"start": self.start, "end": self.end, "score": round(self.score, 6)}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question about the text. Empty (`label == ""`) where blocked.

    Of entities `label` is the type of the surest span, of a question the answer itself.

    `labels`: one of them: the label alone; any of them: all that were chosen, best first. None
    where the answer abstained: `label` then is the question's word for "none of these" (or "")
    and `score` its probability where the task learned one, else that of the best candidate.
    """

    task: str
    label: str
    score: float
    scores: tuple[LabelScore, ...]  # best first, at most the request's top_k
    prepared_id: str = ""
    labels: tuple[str, ...] = ()
    abstained: bool = False  # nothing fits well enough: no guess
    spans: tuple[Span, ...] = ()  # of an extracting task
    attributions: tuple[Attribution, ...] = ()  # where the request asked to explain

    def moved(self, place: Callable[[int, int], tuple[int, int]]) -> Answer:
        """The same answer with its spans put where `place` says."""
        spans = []
        for span in self.spans:
            start, end = place(span.start, span.end)
            spans.append(replace(span, start=start, end=end))
        return replace(self, spans=tuple(spans))


@dataclass(frozen=True, slots=True)
class Prediction:
    """All answers about one text.

    `text` is set only where the policy masked something: the masked text, which is also what
    the model read. `truncated` says that the text was longer than the model's window.
    """

    answers: tuple[Answer, ...]
    id: str = ""
    text: str = ""
    truncated: bool = False
    n_tokens: int = 0
    verdicts: tuple[Verdict, ...] = ()
    timings: Timings = field(default_factory=Timings)
    model: str = ""
    model_version: str = ""

    @property
    def label(self) -> str:
        """The best label of the first answer ("" where blocked)."""
        return self.answers[0].label if self.answers else ""

    @property
    def score(self) -> float:
        """The first answer's probability."""
        return self.answers[0].score if self.answers else 0.0

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the first answer."""
        return self.answers[0].labels if self.answers else ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans of the first answer."""
        return self.answers[0].spans if self.answers else ()

    @property
    def abstained(self) -> bool:
        """Whether the first answer is "none of these"."""
        return self.answers[0].abstained if self.answers else False

    @property
    def action(self) -> str:
        """The strongest action of all verdicts: allow, flag, mask or block."""
        order = ("allow", "flag", "mask", "block")
        return max((v.action for v in self.verdicts), key=order.index, default="allow")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        first = self.answers[0] if self.answers else None
        return {
            "id": self.id,
            "label": self.label,
            "labels": list(self.labels),
            "abstained": self.abstained,
            "score": round(self.score, 6),
            "scores": {s.label: round(s.score, 6) for s in first.scores} if first else {},
            "spans": [span.to_dict() for span in self.spans],
            "attributions": [one.to_dict() for one in first.attributions] if first else [],
            "answers": [
                {
                    "task": a.task,
                    "label": a.label,
                    "labels": list(a.labels),
                    "abstained": a.abstained,
                    "score": round(a.score, 6),
                    "scores": {s.label: round(s.score, 6) for s in a.scores},
                    "spans": [span.to_dict() for span in a.spans],
                    "attributions": [one.to_dict() for one in a.attributions],
                    "prepared_id": a.prepared_id,
                }
                for a in self.answers
            ],
            "action": self.action,
            "text": self.text,
            "truncated": self.truncated,
            "n_tokens": self.n_tokens,
            "safety": [
                {
                    "direction": v.direction,
                    "action": v.action,
                    "dry_run_action": v.dry_run_action,
                    "policy_version": v.policy_version,
                    "findings": [finding.to_dict() for finding in v.findings],
                }
                for v in self.verdicts
            ],
            "timings_ms": {
                "queue": round(self.timings.queue_ms, 3),
                "tokenize": round(self.timings.tokenize_ms, 3),
                "inference": round(self.timings.inference_ms, 3),
                "total": round(self.timings.total_ms, 3),
            },
            "model": self.model,
            "model_version": self.model_version,
        }

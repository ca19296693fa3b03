"""How scores become an answer: one of the candidates, any of them, none; and what rules hold.

A rule is knowledge the model need not learn: a child label needs its parent, two labels exclude
each other, a relation fits certain types of entities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from instructrec_deploy.core.errors import DecisionInvalid
from instructrec_deploy.core.near import did_you_mean
from instructrec_deploy.core.words import fold_words

DecisionKind = Literal["one", "any"]
KINDS: tuple[str, ...] = ("one", "any")
DEFAULT_THRESHOLD = 0.5
Pairs = tuple[tuple[str, str], ...]
Types = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What decoding needs to know. `Decision.of` builds one from plain dictionaries.

    Over a task's own decision, a `kind` of "" and a threshold of None change nothing; where they
    stand alone they are "one" and 0.5.
    """

    kind: str = ""
    threshold: float | None = None  # any: least probability of a label; one: least fit
    thresholds: tuple[tuple[str, float], ...] = ()  # any: labels with a threshold of their own
    offset: float | None = None  # any, learned: the logit whose probability is one half
    none_label: str = ""  # what "none of these" is called
    none_logit: float | None = None  # one, learned: what the best candidate competes with
    min_confidence: float = 0.0  # the best probability below it: no answer rather than a guess
    parents: Pairs = ()  # (child, parent): the child implies the parent
    exclusive: tuple[tuple[str, ...], ...] = ()  # any: at most one label of each group
    head_types: Types = ()  # (label, types its head may have); a label without entry fits any
    tail_types: Types = ()
    allowed: tuple[str, ...] = ()  # only these may be answered; (): all

    @classmethod
    def of(
        cls,
        kind: str = "",
        *,
        threshold: float | None = None,
        none_label: str = "",
        thresholds: Mapping[str, float] | None = None,
        min_confidence: float = 0.0,
        parents: Mapping[str, str] | None = None,
        exclusive: Iterable[Iterable[str]] = (),
        head_types: Mapping[str, Iterable[str]] | None = None,
        tail_types: Mapping[str, Iterable[str]] | None = None,
        allowed: Iterable[str] = (),
    ) -> Decision:
        """A caller's own decision; `Instruction.of` checks its names against the candidates.

        Args:
            kind: "one", "any", or "" for what the task says ("one" without a task).
            threshold: any: the least probability of a chosen label. one: the least fit (the best
                candidate's probability, where a task has not learned better).
            none_label: what the answer is called where nothing fits.
            min_confidence, parents, exclusive, head_types, tail_types, allowed: docs/tasks.md.

        Raises:
            DecisionInvalid: an unknown kind, or a threshold that is no probability.
        """
        made = cls(
            kind=kind,
            threshold=threshold,
            none_label=none_label,
            thresholds=tuple((thresholds or {}).items()),
            min_confidence=min_confidence,
            parents=tuple((parents or {}).items()),
            exclusive=tuple(tuple(group) for group in exclusive),
            head_types=freeze_types(head_types or {}),
            tail_types=freeze_types(tail_types or {}),
            allowed=tuple(allowed),
        )
        made.check()
        return made

    @property
    def is_any(self) -> bool:
        """Whether several labels may be right at once."""
        return self.kind == "any"

    @property
    def has_none(self) -> bool:
        """Whether a single label's answer may be "none of these"."""
        return bool(self.none_label) or self.threshold is not None

    @property
    def is_plain(self) -> bool:
        """Whether the answer is the best candidate, whatever it is."""
        return self is PLAIN or not (
            self.is_any
            or self.has_none
            or self.min_confidence
            or self.parents
            or self.head_types
            or self.tail_types
            or self.allowed
        )

    @property
    def is_sendable(self) -> bool:
        """Whether a request can carry all of it; the rest belongs into `tasks.toml`."""
        return Decision(self.kind, self.threshold, none_label=self.none_label) == self

    def changed(self, by: Decision) -> Decision:
        """This decision with what a request says about it; its rules come in place of these."""
        is_same = (by.kind == "any" if by.kind else self.is_any) == self.is_any
        is_own = is_same and by.threshold is None
        return replace(
            self,
            kind=by.kind or self.kind,
            threshold=self.threshold if is_own else by.threshold,
            # a request's threshold is meant for every label
            thresholds=by.thresholds or (self.thresholds if is_own else ()),
            offset=self.offset if by.offset is None else by.offset,
            none_label=by.none_label or self.none_label,
            none_logit=self.none_logit if by.none_logit is None else by.none_logit,
            min_confidence=by.min_confidence or self.min_confidence,
            parents=by.parents or self.parents,
            exclusive=by.exclusive or self.exclusive,
            head_types=by.head_types or self.head_types,
            tail_types=by.tail_types or self.tail_types,
            allowed=by.allowed or self.allowed,
        )

    def restricted(self, labels: Sequence[str]) -> Decision:
        """Without what it says about labels that are not among these."""
        known = set(labels)
        groups = (tuple(name for name in group if name in known) for group in self.exclusive)
        return replace(
            self,
            thresholds=tuple(pair for pair in self.thresholds if pair[0] in known),
            parents=tuple(pair for pair in self.parents if known.issuperset(pair)),
            exclusive=tuple(group for group in groups if len(group) > 1),
            head_types=tuple(pair for pair in self.head_types if pair[0] in known),
            tail_types=tuple(pair for pair in self.tail_types if pair[0] in known),
        )

    def check(self) -> None:
        """Refuse what is wrong whatever the candidates are.

        Raises:
            DecisionInvalid: an unknown kind, or a threshold that is no probability.
        """
        if self.kind not in ("", *KINDS):
            raise DecisionInvalid(
                "the decision is neither 'one' nor 'any'",
                hint="one: the best candidate; any: every candidate that fits",
            )
        for name, value in (("threshold", self.threshold), ("min_confidence", self.min_confidence)):
            if value is not None and not 0.0 <= value <= 1.0:
                raise DecisionInvalid(
                    f"{name} is {value:g}", hint="it is a probability: 0 to 1, 0.5 where not given"
                )

    def faults(self, labels: Sequence[str], *, is_private: bool = False) -> list[tuple[str, str]]:
        """What is wrong with it, as (key, what), all at once.

        Args:
            labels: the candidates; empty where they are not known yet: names go unchecked then.
            is_private: name candidates by their position; for a caller's own.
        """
        return list(_Check(self, labels, is_private).faults())


PLAIN = Decision()


def as_decision(
    decision: str | Decision = "", threshold: float | None = None, none_label: str = ""
) -> Decision:
    """What loose arguments say about a decision; PLAIN where they say nothing.

    Raises:
        DecisionInvalid: as `Decision.of`.
    """
    base = decision if isinstance(decision, Decision) else PLAIN
    kind = "" if isinstance(decision, Decision) else decision
    if not (kind or none_label) and threshold is None:
        return base
    said = Decision.of(kind, threshold=threshold, none_label=none_label)
    return said if base is PLAIN else base.changed(said)


class RuleFaults(ValueError):
    """Faults of a decision that stands in a file, as (key, what)."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {what}" for key, what in faults))
        self.faults = tuple(faults)


def freeze_types(types: Mapping[str, Iterable[str]]) -> Types:
    """A dictionary of types as a decision holds it."""
    return tuple((label, tuple(found)) for label, found in types.items())


def ancestors(label: str, parents: Mapping[str, str]) -> list[str]:
    """Parent, its parent and so on; where they go round in a circle, each of them once."""
    found: list[str] = []
    while (parent := parents.get(label)) is not None and parent not in found:
        found.append(parent)
        label = parent
    return found


class _Check:
    """One look at a decision: which names are unknown, which rules contradict each other."""

    def __init__(self, decision: Decision, labels: Sequence[str], is_private: bool) -> None:
        self._decision = decision
        self._labels = labels
        self._known = set(labels)
        self._is_private = is_private

    def faults(self) -> Iterator[tuple[str, str]]:
        decision = self._decision
        yield from self._none()
        for table in ("thresholds", "head_types", "tail_types"):
            for name, value in getattr(decision, table):
                yield from self._name(f"{table}.{self._quoted(name)}", name)
                if value == ():
                    yield f"{table}.{self._quoted(name)}", "no type is named"
        for name, level in decision.thresholds:
            if not 0.0 <= level <= 1.0:
                yield f"thresholds.{self._quoted(name)}", f"{level:g} is no probability"
        for child, parent in decision.parents:
            yield from self._name(f"parents.{self._quoted(child)}", child)
            yield from self._name(f"parents.{self._quoted(child)}", parent)
        yield from self._cycles()
        for position, group in enumerate(decision.exclusive):
            yield from self._group(f"exclusive.{position}", group)
        for position, name in enumerate(decision.allowed):
            yield from self._name(f"allowed.{position}", name)

    def _none(self) -> Iterator[tuple[str, str]]:
        decision = self._decision
        folded = fold_words(decision.none_label)
        if folded and any(fold_words(label) == folded for label in self._labels):
            yield "none_label", "it is one of the labels; it names the answer where none fits"
        if decision.none_logit is not None and not decision.none_label:
            yield "none_logit", "it needs a none_label"

    def _cycles(self) -> Iterator[tuple[str, str]]:
        parents = dict(self._decision.parents)
        seen: set[str] = set()
        for label in parents:
            above = ancestors(label, parents)
            if label in above and label not in seen:
                ring = above[: above.index(label) + 1]
                seen.update(ring)
                path = " -> ".join(self._quoted(name) for name in (label, *ring))
                yield "parents", f"they go round in a circle: {path}"

    def _group(self, key: str, group: Sequence[str]) -> Iterator[tuple[str, str]]:
        for name in group:
            yield from self._name(key, name)
        if len(set(group)) < 2 or len(set(group)) < len(group):
            yield key, "a group has at least two different labels"
        parents = dict(self._decision.parents)
        for name in dict.fromkeys(group):
            for above in ancestors(name, parents):
                if above in group and above != name:
                    child, parent = self._quoted(name), self._quoted(above)
                    yield key, f"{child} implies {parent}, so they cannot exclude each other"

    def _name(self, key: str, name: str) -> Iterator[tuple[str, str]]:
        if not self._labels or name in self._known:
            return
        if self._is_private:
            yield key, "it names no candidate"
            return
        meant = did_you_mean(name, self._labels)
        yield key, f"{name!r} is no label{meant and ', '}{meant}"

    def _quoted(self, name: str) -> str:
        if not self._is_private:
            return repr(name) if " " in name or "." in name else name
        return str(self._labels.index(name)) if name in self._known else "?"

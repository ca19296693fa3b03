"""The items of a ranking task, and how many users chose each of them in training rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.words import fold_words
from instructrec_deploy.evaluation.requests import Items, candidate_of, candidates_of
from instructrec_deploy.evaluation.targets import relevant_of

OWN_ITEMS = 100  # most chosen ones, which a task ranks where a request brings no candidates
DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known of items before any history is read.

    A candidate's prior is log(1 + users who chose it). The row's own user is not counted: his
    choice is what the model is to foresee, and a count that holds it would give it away.
    """

    items: Items | None  # by label; None: the rows' candidates are whole
    known: Items  # all items, or those that stand in training rows
    counts: Counter[str]  # label -> users
    chosen: Mapping[str, frozenset[str]]  # user -> labels

    @classmethod
    def of(cls, train: Sequence[Example], items: Items | None = None) -> Catalogue:
        """Count.

        Args:
            train: training rows; a row without a `user` is a user of its own.
            items: what the ids among the candidates stand for; None: candidates are whole.

        Raises:
            RowInvalid: a row's candidates or target are unusable.
        """
        chosen: defaultdict[str, set[str]] = defaultdict(set)
        found: dict[str, Candidate] = {}
        for example in train:
            own = {c.label: c for c in (*_history(example, items), *candidates_of(example, items))}
            found |= own
            chosen[user_of(example)] |= {c.label for c in _history(example, items)}
            chosen[user_of(example)] |= relevant_of(example)
        counts = Counter(label for labels in chosen.values() for label in labels)
        by_user = {user: frozenset(own) for user, own in chosen.items()}
        return cls(items, items or found, counts, by_user)

    def candidates(self, example: Example) -> tuple[Candidate, ...]:
        """A row's own candidates with their priors, whatever counts came with them.

        Raises:
            RowInvalid: as `candidates_of`.
        """
        own = self.chosen.get(user_of(example), frozenset())
        return tuple(
            replace(candidate, prior=self._prior(candidate.label, own))
            for candidate in candidates_of(example, self.items)
        )

    def seen(self, example: Example) -> frozenset[str]:
        """What a row's user chose, as far as training rows and the row's history say."""
        own = self.chosen.get(user_of(example), frozenset())
        return own | {candidate.label for candidate in _history(example, self.items)}

    def complete(self, spec: TaskSpec) -> TaskSpec:
        """The task with the most chosen items as its own candidates, and with all priors."""
        labels, descriptions = spec.labels, dict(spec.descriptions)
        if not labels:
            found: dict[str, Candidate] = {}
            words: set[str] = set()
            for label, _ in sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])):
                item = self.known.get(label, Candidate(label))
                folded = {fold_words(label), fold_words(item.words)}
                if words.isdisjoint(folded) and len(found) < OWN_ITEMS:  # alike ones are refused
                    found[label] = item
                    words |= folded
            labels = tuple(found)
        for label in labels:
            if label in self.known and self.known[label].description:
                descriptions.setdefault(label, self.known[label].description)
        priors = {label: self._prior(label, frozenset()) for label in sorted(self.counts)}
        changes = {
            "labels": labels,
            "descriptions": descriptions,
            "priors": {label: round(p, DECIMALS) for label, p in (priors | spec.priors).items()},
        }
        return spec.model_copy(update=changes)

    def _prior(self, label: str, own: frozenset[str]) -> float:
        return math.log1p(self.counts[label] - (label in own))


def user_of(example: Example) -> str:
    """Whose history a row is."""
    user = example.extra.get("user")
    return str(user) if isinstance(user, str | int) else f"row {example.id or example.text}"


def _history(example: Example, items: Items | None) -> list[Candidate]:
    history = example.extra.get("history")
    known = items or {}
    found = [candidate_of(one) for one in history] if isinstance(history, list) else []
    return [known.get(candidate.label, candidate) for candidate in found]

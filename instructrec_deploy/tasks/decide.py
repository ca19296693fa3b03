"""Logits to answers where more is asked than the best candidate: any of, none of these, rules.

Shapes: B texts, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from instructrec_deploy.core.decision import DEFAULT_THRESHOLD, Decision, Types, ancestors
from instructrec_deploy.core.errors import DecisionInvalid
from instructrec_deploy.core.result import Answer, LabelScore
from instructrec_deploy.core.words import fold_words
from instructrec_deploy.tasks.base import Floats, Ints, broken_model, softmax

Bools = npt.NDArray[np.bool_]
MarkTypes = tuple[str, str]  # of a text's marked head and tail; "" where not stated


class Decider:
    """A decision made ready for one list of candidates: positions in place of names.

    Args:
        decision: what is to be decided; its names are among the labels.
        labels: C labels, in the order of the logits.
        temperature: divides the logits; above 0.

    Raises:
        DecisionInvalid: any of a single candidate, where no `offset` was learned.
    """

    def __init__(
        self, decision: Decision, labels: Sequence[str], *, temperature: float = 1.0
    ) -> None:
        if decision.is_any and decision.offset is None and len(labels) < 2:
            raise DecisionInvalid(
                "any of a single candidate: there is nothing to compare it with",
                hint='add a candidate ("something else"), or ask a task tuned with decision any',
            )
        self.decision = decision
        self.labels = tuple(labels)
        self._temperature = temperature
        self._place = {label: column for column, label in enumerate(labels)}
        parents = dict(decision.parents)
        self._above = {
            self._place[child]: [self._place[name] for name in ancestors(child, parents)]
            for child in parents
        }
        self._levels = _levels(self._above)
        self._leaves = np.ones(len(labels), bool)
        self._leaves[[self._place[parent] for parent in parents.values()]] = False
        self._groups = [self._columns(group) for group in decision.exclusive]
        self._groups_of: dict[int, list[int]] = {}
        for number, group in enumerate(self._groups):
            for column in group.tolist():
                self._groups_of.setdefault(column, []).append(number)
        level = DEFAULT_THRESHOLD if decision.threshold is None else decision.threshold
        self._thresholds = np.full(len(labels), level)
        for label, own in decision.thresholds:
            self._thresholds[self._place[label]] = own
        self._own = np.ones(len(labels), bool)
        if decision.allowed:
            self._own[:] = False
            self._own[self._columns(decision.allowed)] = True
            self._own = self._with_parents(self._own)

    def allowed(self, types: Sequence[MarkTypes], n_rows: int) -> Bools:
        """Which candidates may be answered.

        Args:
            types: for each text the types of its two marks; empty where no text states any.
            n_rows: B.

        Returns:
            [B, C]. A label is allowed only where its parents are.
        """
        if not any(head or tail for head, tail in types):
            return np.broadcast_to(self._own, (n_rows, len(self.labels)))
        rows: dict[MarkTypes, Bools] = {}
        for pair in set(types):
            heads = self._fitting(self.decision.head_types, pair[0])
            tails = self._fitting(self.decision.tail_types, pair[1])
            rows[pair] = self._with_parents(self._own & heads & tails)
        return np.stack([rows[pair] for pair in types])

    def probabilities(self, logits: Floats, allowed: Bools | None = None) -> tuple[Floats, Floats]:
        """Probabilities that keep to the rules.

        One of them: only leaves compete, in a softmax, with "none of these" where that was
        learned; a parent has the sum of its children. Any of them: each by itself, by a sigmoid;
        a parent has at least its best child's. Where no offset was learned a logit by itself means
        nothing: a candidate then has its odds against the average of the others.

        Args:
            logits: [B, C].
            allowed: [B, C]; None for those the decision allows.

        Returns:
            [B, C] float64, 0 where not allowed; and [B], the probability of "none of these", 0
            where it was not learned.

        Raises:
            InternalError: a logit is not a number.
        """
        if allowed is None:
            allowed = self.allowed((), len(logits))
        scaled = logits.astype(np.float64)
        if self.decision.is_any:
            found: Floats = self._each(scaled) * allowed
            for children, parents in self._levels:
                np.maximum.at(found.T, parents, found.T[children])
            return found, np.zeros(len(found))
        competing = allowed & self._leaves
        learned = self.decision.none_logit
        columns = np.full((len(logits), len(self.labels) + 1), -np.inf)
        columns[:, :-1] = np.where(competing, scaled / self._temperature, -np.inf)
        columns[:, -1] = -np.inf if learned is None else learned
        is_open = competing.any(axis=1)
        found = np.zeros(columns.shape)
        found[is_open] = softmax(columns[is_open])
        scores, none = found[:, :-1], found[:, -1]
        for children, parents in self._levels:
            np.add.at(scores.T, parents, scores.T[children])
        return scores, none

    def choose(
        self, scores: Floats, none: Floats, allowed: Bools | None = None
    ) -> list[tuple[int, ...]]:
        """The columns that are the answer, best first; none of them where it abstains.

        Args:
            scores, none: as `probabilities` gives them.
            allowed: as it was given there.
        """
        if allowed is None:
            allowed = self.allowed((), len(scores))
        if self.decision.is_any:
            return self._choose_any(scores, allowed)
        best, top, fit = self._best(scores, none)
        stays = (fit < self._least_fit()) | (top < self.decision.min_confidence)
        stays |= ~(allowed & self._leaves).any(axis=1)
        return [
            () if is_none else (column,)
            for column, is_none in zip(best.tolist(), stays.tolist(), strict=True)
        ]

    def best_scores(self, scores: Floats) -> Floats:
        """[B]: the probability of the candidate that comes first, chosen or not."""
        return np.asarray((scores if self.decision.is_any else scores[:, self._leaves]).max(axis=1))

    def margins(self, scores: Floats, none: Floats) -> Floats:
        """[B]: how far a probability may move before the answer may be another one."""
        decision = self.decision
        found = [np.full(len(scores), np.inf)]
        if decision.is_any:
            best = scores.max(axis=1)
            found.append(np.abs(scores - self._thresholds).min(axis=1))
            found += [_lead(scores[:, group]) for group in self._groups]
        else:
            _, best, fit = self._best(scores, none)
            found.append(_lead(scores[:, self._leaves]))
            if decision.has_none:
                found.append(np.abs(fit - self._least_fit()))
        if decision.min_confidence:
            found.append(np.abs(best - decision.min_confidence))
        return np.asarray(np.minimum.reduce(found))

    def _choose_any(self, scores: Floats, allowed: Bools) -> list[tuple[int, ...]]:
        chosen = (scores >= self._thresholds) & allowed
        passing = chosen.copy() if self._groups else chosen
        for children, parents in self._levels:
            np.logical_or.at(chosen.T, parents, chosen.T[children])
        order = np.argsort(-scores, axis=1, kind="stable")
        for row in np.flatnonzero(self._clashes(chosen)):
            chosen[row] = self._settle([c for c in order[row].tolist() if passing[row, c]])
        best = np.where(chosen, scores, -1.0).max(axis=1)
        chosen[best < self.decision.min_confidence] = False
        ranked = np.take_along_axis(chosen, order, axis=1)
        return [
            tuple(columns[taken].tolist()) for columns, taken in zip(order, ranked, strict=True)
        ]

    def _clashes(self, chosen: Bools) -> Bools:
        """[B]: whether two labels of a group that exclude each other are chosen."""
        found = np.zeros(len(chosen), bool)
        for group in self._groups:
            found |= chosen[:, group].sum(axis=1) > 1
        return found

    def _settle(self, ranked: Sequence[int]) -> Bools:
        """The best label first, each with its parents, unless a better one excludes it."""
        taken: set[int] = set()
        used: set[int] = set()  # groups that have their one label
        for column in ranked:
            wanted = [c for c in (column, *self._above.get(column, ())) if c not in taken]
            groups = [g for c in wanted for g in self._groups_of.get(c, ())]
            if used.isdisjoint(groups) and len(set(groups)) == len(groups):
                taken.update(wanted)
                used.update(groups)
        chosen = np.zeros(len(self.labels), bool)
        chosen[list(taken)] = True
        return chosen

    def _best(self, scores: Floats, none: Floats) -> tuple[Ints, Floats, Floats]:
        """[B] each: the best leaf, its probability, and its fit.

        The fit is the probability; where "none of these" was learned, the share of the two that
        is the best leaf's.
        """
        best = np.where(self._leaves, scores, -1.0).argmax(axis=1)
        top = np.take_along_axis(scores, best[:, None], axis=1)[:, 0]
        if self.decision.none_logit is None:
            return best, top, top
        both = top + none
        return best, top, np.divide(top, both, out=np.zeros_like(top), where=both > 0)

    def _least_fit(self) -> float:
        decision = self.decision
        if not decision.has_none:
            return 0.0
        return DEFAULT_THRESHOLD if decision.threshold is None else decision.threshold

    def _each(self, logits: Floats) -> Floats:
        """[B, C] -> [B, C]: each candidate's probability by itself."""
        if self.decision.offset is not None:
            if not np.isfinite(logits).all():
                raise broken_model()
            centred = (logits - self.decision.offset) / self._temperature
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * centred))  # a sigmoid that cannot overflow
        share = softmax(logits / self._temperature)
        own = share * (logits.shape[1] - 1)
        return np.asarray(own / (own + (1.0 - share)))

    def _columns(self, names: Iterable[str]) -> Ints:
        return np.array([self._place[name] for name in names], np.int64)

    def _fitting(self, rules: Types, kind: str) -> Bools:
        """[C]: labels that have no rule about types, or one that names this type."""
        fits = np.ones(len(self.labels), bool)
        if kind:
            wanted = fold_words(kind)
            for label, kinds in rules:
                fits[self._place[label]] = wanted in map(fold_words, kinds)
        return fits

    def _with_parents(self, allowed: Bools) -> Bools:
        """[C]: without the labels one of whose parents is not allowed."""
        closed = allowed.copy()
        for column, above in self._above.items():
            closed[column] &= allowed[above].all()
        return closed


def decide_answers(
    logits: Floats,
    labels: Sequence[str],
    decision: Decision,
    *,
    temperature: float = 1.0,
    top_ks: Sequence[int],
    task: str = "",
    prepared_id: str = "",
    types: Sequence[MarkTypes] = (),
) -> list[Answer]:
    """Answers to one question about several texts, decided by its rules.

    Args:
        logits: [B, C], the columns in the order of `labels`.
        top_ks: for each text how many scores come back; 0 means all.
        types: for each text the types of its marked head and tail; empty where none states any.

    Returns:
        B answers. Candidates that were not allowed have no score.

    Raises:
        DecisionInvalid: as `Decider`.
        InternalError: a logit is not a number.
    """
    decider = Decider(decision, labels, temperature=temperature)
    allowed = decider.allowed(types, len(logits))
    scores, none = decider.probabilities(logits, allowed)
    chosen = decider.choose(scores, none, allowed)
    names = tuple(labels)
    listed = np.where(allowed, scores, -1.0)
    is_learned = decision.none_logit is not None and not decision.is_any
    if is_learned:
        names = (*names, decision.none_label)
        listed = np.concatenate([listed, none[:, None]], axis=1)
    order = np.argsort(-listed, axis=1, kind="stable")
    ranked = np.take_along_axis(listed, order, axis=1)
    tops = none if is_learned else decider.best_scores(scores)  # said of an answer that abstains
    answers = []
    for row, (columns, values, picked, top_k) in enumerate(
        zip(order.tolist(), ranked.tolist(), chosen, top_ks, strict=True)
    ):
        pairs = zip(columns[: top_k or None], values[: top_k or None], strict=True)
        found = tuple(LabelScore(names[column], score) for column, score in pairs if score >= 0)
        words = tuple(names[column] for column in picked)
        label, score = decision.none_label, float(tops[row])
        if picked:
            label, score = words[0], float(scores[row, picked[0]])
        answers.append(Answer(task, label, score, found, prepared_id, words, not picked))
    return answers


def _levels(above: Mapping[int, Sequence[int]]) -> list[tuple[Ints, Ints]]:
    """Children and their parents, the deepest first, so that one pass reaches the top."""
    by_depth: dict[int, list[tuple[int, int]]] = {}
    for child, found in above.items():
        by_depth.setdefault(len(found), []).append((child, found[0]))
    return [
        (np.array([c for c, _ in pairs]), np.array([p for _, p in pairs]))
        for _, pairs in sorted(by_depth.items(), reverse=True)
    ]


def _lead(scores: Floats) -> Floats:
    """[B, K] -> [B]: how far the best is ahead of the next; infinite where there is no other."""
    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    ranked = np.sort(scores, axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])

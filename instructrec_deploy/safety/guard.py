"""The guard: what the policy says about a text going in and about the labels going out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal

from instructrec_deploy.core.result import Answer, Finding, Verdict
from instructrec_deploy.safety import word_model
from instructrec_deploy.safety.disguises import disguised
from instructrec_deploy.safety.heads import Finders, Heads
from instructrec_deploy.safety.keys import SafetyKeys
from instructrec_deploy.safety.lexicon import Lexicon, mark_quoted
from instructrec_deploy.safety.masking import mask_text, masked_span
from instructrec_deploy.safety.match import Match, moved
from instructrec_deploy.safety.operators import Numbers, Operators
from instructrec_deploy.safety.overlaps import resolve_overlaps
from instructrec_deploy.safety.pending import first_open
from instructrec_deploy.safety.personal_data import find_personal_data, open_personal_data
from instructrec_deploy.safety.policy import (
    DirectionPolicy,
    PersonalDataPolicy,
    Policy,
    default_policy,
)
from instructrec_deploy.safety.presidio import open_presidio
from instructrec_deploy.safety.restore import TOKEN_CATEGORY, find_tokens, open_token
from instructrec_deploy.safety.spellings import Edit, apart, spelled
from instructrec_deploy.safety.steps import STRENGTH, Action, Step, step_at
from instructrec_deploy.text.normalize import fold, lower_in_place

Direction = Literal["input", "output"]

_log = logging.getLogger(__name__)
BROKEN_CHECK = "guard_failure"  # the category of what a check that broke counts as
Named = Sequence[Match] | None  # what a model found in a text; None: it broke
# What a broken check can raise. Its message may hold the text, so only its type is logged.
BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# By place: through a name it takes twice as long, and a hostile text has thousands.
_ACTION, _DRY_RUN_ACTION = itemgetter(2), itemgetter(7)


@dataclass(frozen=True, slots=True)
class GuardedText:
    """A checked text: the very object that came in, or masked, or "" where it is blocked."""

    text: str
    verdict: Verdict

    @property
    def is_blocked(self) -> bool:
        """Whether the text must not reach the model."""
        return self.verdict.action == "block"

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of the text as sent stands in `text`; never shorter than what masks it."""
        return masked_span(start, end, self.verdict.findings)


class Guard:
    """Checks texts against a policy. Immutable after construction, so threads may share it.

    What the policy says about single tasks and callers is for `PolicyGuards`.

    Raises:
        SafetyKeyMissing, MissingExtra: an operator of the policy needs what is not there.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        lexicon: Lexicon | None = None,
        keys: SafetyKeys | None = None,
    ) -> None:
        self.policy = policy or default_policy()
        version, shared = self.policy.version, lexicon or Lexicon()
        self._input = Checker(self.policy.input, shared, "input", version, keys)
        self._output = Checker(self.policy.output, shared, "output", version, keys)

    def check_input(self, text: str) -> GuardedText:
        """Check a text on its way in; where nothing is masked, the same object comes back."""
        return self.check_text(text, "input")

    def check_text(self, text: str, direction: Direction) -> GuardedText:
        """Check a text by itself, going in or out."""
        checker = self.checker(direction)
        guarded, findings = checker.check(text)
        return GuardedText(guarded, checker.verdict(findings))

    def check_named(self, text: str, named: Named) -> GuardedText:
        """Check a text going in of which a model has told what it found."""
        guarded, findings = self._input.check(text, named=named)
        return GuardedText(guarded, self._input.verdict(findings))

    def checker(self, direction: Direction) -> Checker:
        """What checks the texts of one direction."""
        return self._input if direction == "input" else self._output

    def heads(self, text: str) -> Heads:
        """What is to be asked about a text of the model that reads it, by task of the bundle."""
        return {n: head for n, head in self.policy.input.heads.items() if head.is_for(text)}

    def finders(self, text: str) -> Finders:
        """Who is to look for names in a text, by task of the bundle."""
        entities = self.policy.input.entities
        return {n: one for n, one in entities.items() if one.is_for(text)} if entities else {}

    def judged(self, verdict: Verdict, scores: Mapping[str, float | None]) -> Verdict:
        """A verdict on a text with what its heads say: scores by head, None where one broke."""
        return self._input.judged(verdict, self.policy.input.heads, scores)

    def check_output(self, answer: Answer) -> tuple[Answer, Verdict]:
        """Check the labels of an answer, and the words of its spans, on their way out.

        A blocked one empties the whole answer. Spans of findings count code points of the best
        label; a finding about another label has none (-1).
        """
        texts, findings, numbers = {}, [], Numbers()
        for label in dict.fromkeys(
            (
                answer.label,
                *answer.labels,
                *(score.label for score in answer.scores),
                *(word for span in answer.spans for word in (span.label, span.text)),
            )
        ):
            guarded, found = self._output.check(label, numbers)
            if found:
                texts[label] = guarded
                is_best = label == answer.label
                findings += [f if is_best else f._replace(start=-1, end=-1) for f in found]
        verdict = self._output.verdict(tuple(dict.fromkeys(findings)))
        if verdict.action == "block":
            return replace(answer, label="", score=0.0, scores=(), labels=(), spans=()), verdict
        if verdict.action != "mask":
            return answer, verdict
        scores = tuple(s._replace(label=texts.get(s.label, s.label)) for s in answer.scores)
        label, *labels = (texts.get(word, word) for word in (answer.label, *answer.labels))
        spans = tuple(
            replace(s, label=texts.get(s.label, s.label), text=texts.get(s.text, s.text))
            for s in answer.spans
        )
        changed = replace(answer, label=label, labels=tuple(labels), scores=scores, spans=spans)
        return changed, verdict


class Checker:
    """One direction of the policy, made ready."""

    def __init__(
        self,
        policy: DirectionPolicy,
        lexicon: Lexicon,
        direction: Direction,
        version: str,
        keys: SafetyKeys | None,
    ) -> None:
        self._steps = policy.steps()
        personal = PersonalDataPolicy.model_fields.keys()
        self._operators = Operators(
            {n: policy.operator(n) for n in personal if _can(self._steps[n], "mask")}, keys
        )
        self._kept = frozenset(name for name in personal if policy.operator(name) == "keep")
        # Tokens of what goes out are ours; one that comes in would be restored for whoever sent it.
        self._escapes = direction == "input" and self._operators.is_restorable
        sought = {n for n, steps in self._steps.items() if _can(steps, "flag", "mask", "block")}
        self._types = frozenset(sought & personal)
        self._categories = frozenset(sought - personal)
        self._reviewed = frozenset(policy.review)
        self._plain = {n: act for n in sought if (act := self._only_action(n))}
        self._is_dry_run = policy.dry_run
        self._strong = frozenset(n for n in sought if _can(self._steps[n], "mask", "block"))
        self._lexicon = lexicon
        has_words = policy.word_model and word_model.CATEGORY in self._categories
        self._words = word_model.shipped_model() if has_words else None
        self._presidio = open_presidio(policy.presidio) if policy.presidio else None
        self._on_failure: Action = "block" if policy.fail == "closed" else "flag"
        self._clean = Verdict(policy_version=version, direction=direction)

    def check(
        self, text: str, numbers: Numbers | None = None, *, named: Named = ()
    ) -> tuple[str, tuple[Finding, ...]]:
        """The text as it may go on, and why.

        Args:
            numbers: of the texts that belong to it.
            named: what a model found in it, in code points of the text; None: it broke.
        """
        try:
            findings = self._find(text, named) if named else self.find(text)
            if findings:
                findings = self.apply(text, findings, numbers or Numbers())
        except BROKEN as fault:
            findings = (self.failure(fault),)
        if named is None:
            findings = (*findings, self.failure())
        if not findings:
            return text, ()
        actions = set(map(_ACTION, findings))
        if "block" in actions:
            return "", findings
        return mask_text(text, findings) if "mask" in actions else text, findings

    def verdict(self, findings: tuple[Finding, ...]) -> Verdict:
        """The verdict on these findings."""
        if not findings:
            return self._clean
        action = max(set(map(_ACTION, findings)), key=STRENGTH.__getitem__)
        undone = set(map(_DRY_RUN_ACTION, findings)) - {""}
        dry_run_action = max(undone, key=STRENGTH.__getitem__, default="")
        clean = self._clean
        return Verdict(action, findings, clean.policy_version, clean.direction, dry_run_action)

    def judged(self, verdict: Verdict, heads: Heads, scores: Mapping[str, float | None]) -> Verdict:
        """The verdict with what heads say about the whole text."""
        found = []
        for name, score in scores.items():
            finding = self.failure() if score is None else heads[name].finding(name, score)
            if finding is not None:
                found.append(self._tried(finding))
        if not found:
            return verdict
        whole = self.verdict((*verdict.findings, *found))
        return replace(whole, direction=verdict.direction)

    def _tried(self, finding: Finding) -> Finding:
        if finding.action in self._reviewed:
            finding = finding._replace(review=True)
        is_undone = self._is_dry_run and not finding.dry_run_action
        return _undone(finding) if is_undone else finding

    def failure(self, fault: Exception | None = None) -> Finding:
        """What a check that broke counts as."""
        _log.error("safety check failed: %s", type(fault).__name__ if fault else "model")
        finding = Finding(BROKEN_CHECK, "internal", self._on_failure)
        return _undone(finding) if self._is_dry_run else finding

    def apply(
        self, text: str, findings: tuple[Finding, ...], numbers: Numbers
    ) -> tuple[Finding, ...]:
        """The findings in a text with what stands in their place; in a dry run, flags."""
        if self._is_dry_run:
            return tuple(map(_undone, findings))
        return self._operators.apply(text, findings, numbers) if self._operators else findings

    def open(self, text: str, lower: str, start: int) -> tuple[int, int]:
        """Where the first stretch of a folded text begins that more text could turn into a finding.

        Or change as one: first of those that change the text (mask, block), then of all; the text's
        length where there is none. What was decided before `start` is left aside.
        """
        strong = open_personal_data(text, lower, self._types & self._strong, start)
        every = min(strong, open_personal_data(text, lower, self._types - self._strong, start))
        if self._escapes:
            strong = min(strong, open_token(text, start))
        if self._categories:
            groups = (self._categories & self._strong, self._categories)
            content = self._lexicon.open(lower, groups, start)
            strong, every = min(strong, content[0]), min(every, content[1])
        if self._words is not None:
            word = first_open(word_model.SHAPES, lower, lower, start)
            every = min(every, word)
            strong = min(strong, word) if word_model.CATEGORY in self._strong else strong
        return strong, min(strong, every)

    @property
    def is_streamable(self) -> bool:
        """Whether it is known where what it finds may begin: not of Presidio's recognizers."""
        return self._presidio is None

    def edits(self, text: str, lower: str) -> list[Edit]:
        """What undoes spellings and disguises in a folded text: none may be cut in two."""
        return [*spelled(text, lower), *apart(text), *disguised(lower, self._lexicon.words)]

    def find(self, text: str) -> tuple[Finding, ...]:
        """The findings in a text, by start, without overlaps."""
        return resolve_overlaps(self.find_all(text))

    def _find(self, text: str, named: Sequence[Match]) -> tuple[Finding, ...]:
        """The same with what a model found, but for what the rules tell as something else."""
        found = self.find_all(text)
        codes = {name: code for code, name in enumerate(sorted(self._types), 1)}
        known = bytearray(len(text))
        for category, _, _, start, end, *_ in found:
            if category in codes:
                known[start:end] = bytes((codes[category],)) * (end - start)
        for hit in named:
            code = codes.get(hit.category)
            if code is None or not set(known[hit.start : hit.end]) <= {0, code}:
                continue
            step = step_at(self._steps[hit.category], hit.score)
            if step is not None:
                found.append(self._finding(hit, step))
        return resolve_overlaps(found)

    def find_all(self, text: str) -> list[Finding]:
        """The findings in a text, in no order, also those that others overlap."""
        folded = fold(text)
        hits = find_personal_data(folded.text, self._types) if self._types else []
        if self._presidio is not None:
            found_there = self._presidio.find(folded.text)
            hits += [hit for hit in found_there if hit.category in self._types]
        if self._categories:
            lower = lower_in_place(folded.text)
            listed = self._lexicon.find(lower, self._categories)
            hits += listed
            if self._words is not None:
                hits += mark_quoted(lower, self._words.find(lower, listed))
        if not folded.is_aligned:
            hits = [moved(hit, *folded.span(hit.start, hit.end)) for hit in hits]
        plain, new = self._plain, tuple.__new__  # without the constructor's call: half the time
        found: list[Finding] = [
            new(Finding, (name, rule, plain[name], start, end, score, "", "", False))
            for name, rule, start, end, is_quoted, score in hits
            if name in plain and not is_quoted
        ]
        if len(found) < len(hits):
            rest = [hit for hit in hits if hit.is_quoted or hit.category not in plain]
            found += [
                self._finding(hit, step)
                for hit in rest
                if (step := step_at(self._steps[hit.category], hit.score)) is not None
            ]
        if self._escapes:
            found += [Finding(TOKEN_CATEGORY, "token", "mask", *span) for span in find_tokens(text)]
        return found

    def _only_action(self, name: str) -> Action | None:
        """What happens whatever the score, where nobody is to look at it: most types."""
        steps = self._steps[name]
        if len(steps) > 1 or steps[0].threshold > 0 or steps[0].review:
            return None
        action = steps[0].action
        action = "flag" if action == "mask" and name in self._kept else action
        return None if action in self._reviewed else action

    def _finding(self, hit: Match, step: Step) -> Finding:
        action = step.action
        if hit.is_quoted and STRENGTH[action] > STRENGTH["flag"]:
            action = "flag"  # somebody reports what was said
        if action == "mask" and hit.category in self._kept:
            action = "flag"
        review = step.review or action in self._reviewed
        return Finding(hit.category, hit.rule, action, hit.start, hit.end, hit.score, review=review)


def _can(steps: tuple[Step, ...], *actions: Action) -> bool:
    return any(step.action in actions for step in steps)


def _undone(finding: Finding) -> Finding:
    """The finding in a dry run: flagged, with what would have been done."""
    return finding._replace(action="flag", stand_in="", dry_run_action=finding.action)

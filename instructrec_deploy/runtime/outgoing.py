"""Answers on their way out, checked by the guard.

Labels come back again and again, so those that were clean once are not looked at again; words of
the text, which spans hold, are.
"""

from __future__ import annotations

from instructrec_deploy.core.result import Answer, Verdict
from instructrec_deploy.runtime.jobs import GuardLike

MAX_CLEAN_LABELS = 20_000  # remembered as clean; some megabytes of words at most


class OutgoingCheck:
    """Checks answers and remembers, for each guard, which labels it found clean.

    A label that one policy lets pass may be another's to mask. Threads may share it.
    """

    def __init__(self) -> None:
        # By id, for a guard need not be hashable; with the guard, so that no other gets its id.
        self._clean: dict[int, tuple[GuardLike, set[str]]] = {}
        self._n_labels = 0

    @property
    def n_labels(self) -> int:
        """How many are remembered, at most."""
        return self._n_labels

    def check(self, guard: GuardLike, answer: Answer) -> tuple[Answer, Verdict | None]:
        """The answer as it may go out, and the verdict where there is something to say."""
        if answer.spans:
            checked, verdict = guard.check_output(answer)
            return checked, verdict if _says_something(verdict) else None
        labels = (answer.label, *answer.labels, *[label for label, _ in answer.scores])
        known = self._clean.get(id(guard))
        if known is not None and known[1].issuperset(labels):
            return answer, None
        checked, verdict = guard.check_output(answer)
        if _says_something(verdict):
            return checked, verdict
        if self._n_labels > MAX_CLEAN_LABELS:  # those of replaced policies go, too
            self._clean, self._n_labels = {}, 0
        self._clean.setdefault(id(guard), (guard, set()))[1].update(labels)
        self._n_labels += len(set(labels))  # counts some twice, which only empties it sooner
        return checked, None


def _says_something(verdict: Verdict) -> bool:
    return bool(verdict.findings) or verdict.action != "allow"

"""Findings that overlap: which of them stands."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.steps import STRENGTH

# By place: through a name it takes twice as long, and a hostile text has thousands.
_START = itemgetter(3)


def _shortness(finding: Finding) -> int:
    return finding[3] - finding[4]


def _strength(finding: Finding) -> int:
    return STRENGTH[finding[2]]


def resolve_overlaps(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings without overlaps, by start: the strongest action wins, then the longest span.

    Of equals the one that stands first wins, then the one that was found first. What wins over
    one that a person is to look at is for that person, too.
    """
    ordered = list(findings)
    if _stand_apart(ordered):
        return tuple(ordered)
    ordered.sort(key=_START)
    if _stand_apart(ordered):  # most texts
        return tuple(ordered)
    kept: list[Finding] = []
    together: list[Finding] = []  # each overlaps one before it
    end = -1
    for finding in ordered:
        _, _, _, start, stop, *_ = finding
        if start >= end and together:
            kept += together if len(together) == 1 else _strongest(together, end)
            together = []
        together.append(finding)
        if stop > end:
            end = stop
    kept += _strongest(together, end)
    return tuple(kept)


def _stand_apart(findings: list[Finding]) -> bool:
    """Whether each begins where the one before has ended, or later."""
    end = -1
    for finding in findings:
        if finding[3] < end:
            return False
        end = finding[4]
    return True


def _strongest(together: list[Finding], end: int) -> list[Finding]:
    """Those that stand, of findings by start that end where the last of them does."""
    ranked = sorted(together, key=_shortness)
    if len({finding[2] for finding in together}) > 1:
        ranked.sort(key=_strength, reverse=True)  # of equals the order stays
    kept: list[Finding] = []
    reviewed: list[Finding] = []
    floor = together[0].start
    taken = bytearray(end - floor)
    is_taken = taken.find
    for finding in ranked:
        start, stop = finding[3] - floor, finding[4] - floor
        if is_taken(1, start, stop) < 0:
            taken[start:stop] = b"\1" * (stop - start)
            kept.append(finding)
        elif finding.review:
            reviewed.append(finding)
    for lost in reviewed:
        kept = [_for_review(f) if f.start < lost.end and lost.start < f.end else f for f in kept]
    return sorted(kept, key=_START)


def _for_review(finding: Finding) -> Finding:
    return finding if finding.review else finding._replace(review=True)

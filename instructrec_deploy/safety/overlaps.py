"""Findings that overlap: which of them stands."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.steps import STRENGTH

_START = attrgetter("start")


def resolve_overlaps(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings without overlaps, by start: the strongest action wins, then the longest span.

    Of equals the one that stands first wins, then the one that was found first. What wins over
    one that a person is to look at is for that person, too.
    """
    ordered = sorted(findings, key=_START)
    end = -1
    for _, _, _, start, stop, *_ in ordered:
        if start < end:
            break
        end = stop
    else:  # most texts
        return tuple(ordered)
    kept: list[Finding] = []
    together: list[Finding] = []  # each overlaps one before it
    end = -1
    for finding in ordered:
        if finding.start >= end and together:
            kept += together if len(together) == 1 else _strongest(together)
            together = []
        together.append(finding)
        end = max(end, finding.end)
    kept += _strongest(together)
    return tuple(kept)


def _strongest(together: list[Finding]) -> list[Finding]:
    ranked = sorted(together, key=lambda f: (-STRENGTH[f[2]], f[3] - f[4], f[3]))
    kept: list[Finding] = []
    reviewed: list[Finding] = []
    floor = min(finding.start for finding in together)
    taken = bytearray(max(finding.end for finding in together) - floor)
    for finding in ranked:
        start, end = finding[3] - floor, finding[4] - floor
        if taken.find(1, start, end) < 0:
            taken[start:end] = b"\1" * (end - start)
            kept.append(finding)
        elif finding.review:
            reviewed.append(finding)
    for lost in reviewed:
        kept = [_for_review(f) if f.start < lost.end and lost.start < f.end else f for f in kept]
    return sorted(kept, key=_START)


def _for_review(finding: Finding) -> Finding:
    return finding if finding.review else finding._replace(review=True)

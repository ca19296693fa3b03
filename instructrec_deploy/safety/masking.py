"""What a text looks like with its findings masked, and where its parts stand then."""

from __future__ import annotations

from collections.abc import Iterable

from instructrec_deploy.core.result import Finding


def mask_text(text: str, findings: Iterable[Finding]) -> str:
    """Put its stand-in in place of each finding to be masked; the same object if there is none.

    `findings` are sorted by start and do not overlap.
    """
    parts: list[str] = []
    done = 0
    names: dict[str, str] = {}  # what stands in place of a type's values
    for finding in findings:
        category, _, action, start, end, _, put, *_ = finding
        if action == "mask" and start >= 0:
            put = put or names.get(category) or names.setdefault(category, stand_in(finding))
            parts += (text[done:start], put)
            done = end
    return "".join((*parts, text[done:])) if parts else text


def masked_span(start: int, end: int, findings: Iterable[Finding]) -> tuple[int, int]:
    """Where the half-open span [start, end) of a text stands after `mask_text`.

    A span that takes in a part of a masked value takes in all that stands in its place. `findings`
    are sorted by start and do not overlap.
    """
    moved_start, moved_end = start, end
    for finding in findings:
        if not is_masked(finding) or finding.start >= end:
            continue
        grown = len(stand_in(finding)) - (finding.end - finding.start)
        if finding.end <= start:
            moved_start += grown
        elif finding.start < start:
            moved_start += finding.start - start
        moved_end += grown + max(0, finding.end - end)
    return moved_start, moved_end


def changes(finding: Finding) -> bool:
    """Whether the text does not go on as it is where this finding stands."""
    return finding.action in ("mask", "block")


def is_masked(finding: Finding) -> bool:
    """Whether something stands in its place."""
    return finding.action == "mask" and finding.start >= 0


def stand_in(finding: Finding) -> str:
    """What stands in its place."""
    return finding.stand_in or f"[{finding.category.upper()}]"

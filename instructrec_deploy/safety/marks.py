"""Where marks of a text stand after masking, and where those of a masked text stood before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.guard import mask_text

Span = tuple[int, int]


def move_spans(text: str, findings: Sequence[Finding], spans: Iterable[Span]) -> list[Span | None]:
    """Spans of a text as spans of `mask_text(text, findings)`; None where masking cuts into one.

    A span that holds a masked stretch whole goes on around its placeholder; one that ends inside
    such a stretch, or lies inside it, has lost what it marked.

    Args:
        text: as it was sent.
        findings: sorted by start, not overlapping, as a verdict has them.
        spans: half-open code points of `text`, not empty.
    """
    masked = [f for f in findings if f.action == "mask" and f.start >= 0]
    return [_move(text, masked, start, end) for start, end in spans]


def restore_span(findings: Sequence[Finding], start: int, end: int) -> Span:
    """A span of a masked text as a span of the text as sent.

    A span that touches a placeholder covers all that was masked there.

    Args:
        findings: sorted by start, not overlapping, as a verdict has them.
        start, end: half-open code points of the masked text.
    """
    left, right, shift = start, end, 0
    for finding in findings:
        if finding.action != "mask" or finding.start < 0:
            continue
        first = finding.start + shift  # of the placeholder
        last = first + len(mask_text("x" * finding.end, [finding])) - finding.start
        if start >= last:
            left = start - last + finding.end
        elif start >= first:
            left = finding.start
        if end > last:
            right = end - last + finding.end
        elif end > first:
            right = finding.end
        shift += (last - first) - (finding.end - finding.start)
    return left, right


def _move(text: str, masked: Sequence[Finding], start: int, end: int) -> Span | None:
    touched = [f for f in masked if f.start < end and start < f.end]
    if any(f.start < start or f.end > end for f in touched):
        return None
    return _place(text, masked, start), _place(text, masked, end)


def _place(text: str, masked: Sequence[Finding], offset: int) -> int:
    """An offset that lies in no masked stretch, counted in the masked text."""
    return len(mask_text(text[:offset], [f for f in masked if f.end <= offset]))

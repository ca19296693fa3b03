"""Where marks of a text stand after masking, and where those of a masked text stood before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.masking import is_masked, masked_span, stand_in

Span = tuple[int, int]


def move_spans(findings: Sequence[Finding], spans: Iterable[Span]) -> list[Span | None]:
    """Spans of a text as spans of its masked form; None where masking cuts into one.

    A span that holds a masked stretch whole goes on around its placeholder; one that ends inside
    such a stretch, or lies inside it, has lost what it marked.

    Args:
        findings: of the text, sorted by start, not overlapping, as a verdict has them.
        spans: half-open code points of the text, not empty.
    """
    masked = [finding for finding in findings if is_masked(finding)]
    return [
        None if _is_cut(masked, start, end) else masked_span(start, end, masked)
        for start, end in spans
    ]


def restore_span(findings: Sequence[Finding], start: int, end: int) -> Span:
    """A span of a masked text as a span of the text as sent.

    A span that touches a placeholder covers all that was masked there.

    Args:
        findings: sorted by start, not overlapping, as a verdict has them.
        start, end: half-open code points of the masked text.
    """
    left, right, shift = start, end, 0
    for finding in filter(is_masked, findings):
        first = finding.start + shift  # of the placeholder
        last = first + len(stand_in(finding))
        if start >= last:
            left = start - last + finding.end
        elif start >= first:
            left = finding.start
        if end > last:
            right = end - last + finding.end
        elif end > first:
            right = finding.end
        shift = last - finding.end
    return left, right


def _is_cut(masked: Sequence[Finding], start: int, end: int) -> bool:
    """Whether one end of the span lies inside something masked."""
    touched = (f for f in masked if f.start < end and start < f.end)
    return any(f.start < start or f.end > end for f in touched)

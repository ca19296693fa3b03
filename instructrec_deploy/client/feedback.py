"""What a correction is made of on the client's side, for both clients."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from instructrec_deploy.core.errors import FeedbackInvalid
from instructrec_deploy.core.feedback import Feedback, SpanMark, Target
from instructrec_deploy.core.result import Prediction

Span = SpanMark | Mapping[str, Any]  # or {"type": ..., "start": 0, "end": 4}


def build_feedback(
    text: str,
    label: str | Iterable[str] = (),
    *,
    spans: Iterable[Span] | None = None,
    task: str = "",
    prediction: Prediction | None = None,
    text2: str = "",
    head: Span | None = None,
    tail: Span | None = None,
    lang: str = "",
    source: str = "",
) -> Feedback:
    """A correction from loose arguments; the server checks it against the task and its limits.

    Args:
        text: as it was sent.
        label: the right label (or labels).
        spans: the right spans, for a task that answers with spans; [] where there is nothing.
        task: of the bundle; "": the task of the prediction, else the default one.
        prediction: what the model said, as `predict` returned it; its first answer is corrected.
        text2: the second text of a pair.
        head, tail: the marks of a relation.
        lang, source: in which language, and who says so.

    Raises:
        FeedbackInvalid, TextEmpty, TextUndecodable: as `Feedback.of`.
    """
    if not isinstance(text, str):
        raise FeedbackInvalid(f"the text is a {type(text).__name__}", hint="pass a str")
    labels = (label,) if isinstance(label, str) else tuple(label)
    answer = prediction.answers[0] if prediction and prediction.answers else None
    return Feedback.of(
        text,
        Target(labels, None if spans is None else tuple(as_span(span) for span in spans)),
        max_text_chars=sys.maxsize,
        task=task or (answer.task if answer else ""),
        predicted=Target((answer.label,)) if answer and answer.label else Target(),
        model=prediction.model if prediction else "",
        model_version=prediction.model_version if prediction else "",
        text2=text2,
        head=None if head is None else as_span(head),
        tail=None if tail is None else as_span(tail),
        lang=lang,
        source=source,
    )


def as_span(span: Span) -> SpanMark:
    """A span however it was written.

    Raises:
        FeedbackInvalid: it has no whole numbers `start` and `end`.
    """
    if isinstance(span, SpanMark):
        return span
    start, end, kind = span.get("start"), span.get("end"), span.get("type", "")
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(kind, str):
        raise FeedbackInvalid(
            "a span has no whole numbers `start` and `end`",
            hint='write {"type": "person", "start": 0, "end": 4}',
        )
    return SpanMark(start, end, kind)

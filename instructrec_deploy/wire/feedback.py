"""Corrections on the wire, both directions. Only reading checks, as with requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from instructrec_deploy.core.errors import TextUndecodable
from instructrec_deploy.core.feedback import Feedback, Receipt, SpanMark, Target
from instructrec_deploy.core.status import Limits
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import DEFAULT_LIMITS

SAME_NAMES = ("text", "task", "text2", "model", "model_version", "lang", "source")


def write_feedback(feedback: Feedback) -> pb.FeedbackRequest:
    """A correction; its id and time are the server's to give.

    Raises:
        TextUndecodable: a string has lone surrogates, which UTF-8 cannot hold.
    """
    try:
        return pb.FeedbackRequest(
            labels=feedback.right.labels,
            spans=_write_spans(feedback.right.spans),
            predicted_labels=feedback.predicted.labels,
            predicted_spans=_write_spans(feedback.predicted.spans),
            head=None if feedback.head is None else _write_span(feedback.head),
            tail=None if feedback.tail is None else _write_span(feedback.tail),
            **{name: getattr(feedback, name) for name in SAME_NAMES},
        )
    except UnicodeEncodeError as error:
        raise TextUndecodable(
            "a string has lone surrogates, which are not Unicode text",
            hint="decode the bytes with errors='replace' before sending them",
        ) from error


def read_feedback(message: pb.FeedbackRequest, limits: Limits = DEFAULT_LIMITS) -> Feedback:
    """A correction, checked.

    Raises:
        TextEmpty, TextTooLong, FeedbackInvalid: what `Feedback.of` raises.
    """
    fields: dict[str, Any] = {name: getattr(message, name) for name in SAME_NAMES}
    text = fields.pop("text")
    return Feedback.of(
        text,
        _read_target(message.labels, message.spans if message.HasField("spans") else None),
        max_text_chars=limits.max_text_chars,
        predicted=_read_target(
            message.predicted_labels,
            message.predicted_spans if message.HasField("predicted_spans") else None,
        ),
        head=_read_span(message.head) if message.HasField("head") else None,
        tail=_read_span(message.tail) if message.HasField("tail") else None,
        **fields,
    )


def write_receipt(receipt: Receipt) -> pb.FeedbackResponse:
    """What became of a correction."""
    return pb.FeedbackResponse(id=receipt.id, outcome=receipt.outcome, text=receipt.text)


def read_receipt(message: pb.FeedbackResponse) -> Receipt:
    """What became of a correction."""
    return Receipt(message.id, message.outcome, message.text)


def _write_spans(spans: tuple[SpanMark, ...] | None) -> pb.FeedbackSpans | None:
    return None if spans is None else pb.FeedbackSpans(spans=map(_write_span, spans))


def _write_span(span: SpanMark) -> pb.FeedbackSpan:
    return pb.FeedbackSpan(start=span.start, end=span.end, type=span.type)


def _read_target(labels: Iterable[str], spans: pb.FeedbackSpans | None) -> Target:
    found = None if spans is None else tuple(_read_span(span) for span in spans.spans)
    return Target(tuple(labels), found)


def _read_span(message: pb.FeedbackSpan) -> SpanMark:
    return SpanMark(message.start, message.end, message.type)

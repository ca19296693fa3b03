"""Span answers of a batch: windows read together with what is sought, decoded, told as sent.

Shapes: R rows (windows of all texts), T tokens, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.core.result import Answer, Span
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.runtime.engine import Encoding, Engine, pad_rows
from instructrec_deploy.runtime.heads import head_scores
from instructrec_deploy.runtime.jobs import Ask, Job
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.extract import Window, decode_entities, decode_reply
from instructrec_deploy.tasks.tags import decode_tagged
from instructrec_deploy.text.tokenizer import Encoded, TextTokenizer

MAX_ROW_TOKENS = 8_192  # padded tokens of windows computed at a time: bounds what a long text holds


def encode_rows(
    engine: Engine, rows: Sequence[Sequence[int]], *, use_lower: bool, lane: int
) -> Encoding:
    """Read rows of ids in one batch; where windows of long texts are among them, in parts.

    Raises:
        InternalError: the graph failed.
    """
    ids, mask = pad_rows(rows, engine.model.pad_id)
    step = max(1, MAX_ROW_TOKENS // ids.shape[1]) if use_lower else len(ids)
    parts = [
        engine.encode(ids[at : at + step], mask[at : at + step], lane=lane, use_lower=use_lower)
        for at in range(0, len(ids), step)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def answer_spans(
    engine: Engine,
    encoding: Encoding,
    jobs: Sequence[Job],
    asks: Sequence[Ask],
    places: Sequence[range],
    prepared: PreparedInstruction,
    *,
    lane: int,
) -> list[Answer]:
    """One answer for each job.

    Args:
        encoding: of all rows of the batch.
        jobs: the texts that were asked.
        asks: for each job the question, which they share.
        places: for each job its rows.
        prepared: what is sought.

    Raises:
        InternalError: the graph failed.
        BundleError: the instruction was prepared for another model.
    """
    rows = [
        own[row]
        for job, ask, own in zip(jobs, asks, places, strict=True)
        for row in job.window_rows(ask)
    ]
    once = list(dict.fromkeys(rows))
    of_row = dict(zip(once, _scores(engine, encoding.rows(once), prepared, lane), strict=True))
    scores = (of_row[row] for row in rows)
    answers = []
    for job, ask in zip(jobs, asks, strict=True):
        windows = [
            Window(next(scores)[: len(window.ids)], window.offsets)
            for window in ask.windows or job.windows
        ]
        answer = _decode(job.text, windows, prepared, top_k=job.request.top_k)
        answers.append(answer.moved(job.source) if job.is_masked else answer)
    return answers


def find_spans(
    engine: Engine,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    prepared: PreparedInstruction,
    *,
    lane: int = 0,
) -> list[tuple[Span, ...]]:
    """The entities of texts by themselves, all that are sought.

    Raises:
        InternalError, BundleError: as `answer_spans`.
    """
    windows = [tokenizer.encode_windows(text) for text in texts]
    found = read_windows(engine, windows, prepared, lane=lane)
    return [
        _decode(text, own, prepared, top_k=0).spans for text, own in zip(texts, found, strict=True)
    ]


def read_windows(
    engine: Engine,
    texts: Sequence[Sequence[Encoded]],
    prepared: PreparedInstruction,
    *,
    lane: int = 0,
) -> list[list[Window]]:
    """The scores behind the spans: each text's windows, all texts in one batch.

    Raises:
        InternalError, BundleError: as `answer_spans`.
    """
    rows = [window.ids for windows in texts for window in windows]
    encoding = encode_rows(engine, rows, use_lower=True, lane=lane)
    scores = iter(_scores(engine, encoding, prepared, lane))
    return [[Window(next(scores)[: len(w.ids)], w.offsets) for w in windows] for windows in texts]


def _scores(engine: Engine, encoding: Encoding, prepared: PreparedInstruction, lane: int) -> Floats:
    """[R, T, C, 3]; of a head [R, T, G], or [R, T, 1, 2] where it answers questions."""
    if encoding.logits is not None:
        return head_scores(encoding.logits, prepared)
    if prepared.vectors is None or prepared.memory is None:
        raise BundleError("the instruction was prepared for another model", hint="prepare it")
    n_tokens = encoding.mask.shape[1] + len(prepared.memory)
    step = max(1, MAX_ROW_TOKENS // n_tokens)
    n_rows = len(encoding.mask)
    parts = [
        engine.read_spans(
            encoding.rows(range(at, min(at + step, n_rows))),
            prepared.vectors,
            prepared.memory,
            lane=lane,
        )
        for at in range(0, n_rows, step)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _decode(
    text: str, windows: Sequence[Window], prepared: PreparedInstruction, *, top_k: int
) -> Answer:
    """The answer in code points of the text that was read."""
    instruction = prepared.instruction
    if instruction.kind is TaskKind.QA:
        return decode_reply(
            windows, text, top_k=top_k, task=instruction.task, prepared_id=prepared.key
        )
    if prepared.tags is not None:
        return decode_tagged(
            windows,
            prepared.tags,
            prepared.labels,
            text,
            decision=instruction.decision,
            top_k=top_k,
            task=instruction.task,
            prepared_id=prepared.key,
        )
    return decode_entities(
        windows,
        prepared.labels,
        text,
        decision=instruction.decision,
        default_threshold=prepared.span_threshold,
        top_k=top_k,
        task=instruction.task,
        prepared_id=prepared.key,
    )


def _joined(parts: Sequence[Encoding]) -> Encoding:
    def whole(arrays: Sequence[Floats | None]) -> Floats | None:
        found = [array for array in arrays if array is not None]
        return np.concatenate(found) if found else None

    return Encoding(
        np.concatenate([part.mask for part in parts]),
        whole([part.token_states for part in parts]),
        whole([part.pooled for part in parts]),
        whole([part.logits for part in parts]),
        whole([part.lower_states for part in parts]),
    )

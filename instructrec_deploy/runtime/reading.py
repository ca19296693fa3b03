"""Texts to ids: each is tokenized once, however many ways it is asked about."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.runtime.explain import cut_text
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.text.tokenizer import TextTokenizer

PLAIN = True, False, False  # the flags in the reading of a plain text


def tokenize(
    jobs: Sequence[Job], tokenizer: TextTokenizer, *, joint_questions: bool = False
) -> None:
    """Give jobs their ids, the windows where spans are sought, the variants to explain.

    Most are plain: their texts are read as they are, and that is all. A text that spans are sought
    in is read in windows; candidates are scored on the first of them, which holds what the text
    alone would be cut to. A pair, or a text with marks, has a rendering of its own for candidates.

    Args:
        jobs: guarded.
        tokenizer: of the model.
        joint_questions: the model reads a question with the text: it gets windows of its own.

    Raises:
        TextUndecodable: a text holds a lone surrogate.
    """
    plain = [job for job in jobs if job.is_plain]
    found = tokenizer.encode_texts([job.text for job in plain], use_offsets=False) if plain else ()
    for job, encoded in zip(plain, found, strict=True):
        job.ids, job.truncated = encoded.ids, encoded.truncated
        job.rows = [encoded.ids]
        job.reading = job.text, "", None, None, (), PLAIN
    if len(plain) < len(jobs):
        others = [job for job in jobs if not job.is_plain]
        _tokenize_others(others, tokenizer, joint_questions=joint_questions)


def _tokenize_others(
    jobs: Sequence[Job], tokenizer: TextTokenizer, *, joint_questions: bool
) -> None:
    for job in jobs:
        for ask in job.asks:
            second = words_behind(ask.instruction, joint_questions=joint_questions)
            if second:
                ask.windows = tokenizer.encode_windows(job.text, second=second)
            elif ask.seeks_spans and not job.windows:
                job.windows = tokenizer.encode_windows(job.text)
    rendered = [job for job in jobs if job.has_scored_row]
    if rendered:
        passages = [job.passage() for job in rendered]
        found = tokenizer.encode_passages(passages, use_offsets=False)
        for job, encoded in zip(rendered, found, strict=True):
            job.ids, job.truncated = encoded.ids, encoded.truncated
    for job in jobs:
        if job.windows and not job.has_scored_row:
            job.ids = job.windows[0].ids
            job.truncated = len(job.windows) > 1 and not job.seeks_only_spans
        if job.is_explained:
            cut_text(job, tokenizer)
        job.lay_out()
        job.reading = _reading(job)


def _reading(job: Job) -> Hashable:
    """What the rows of a job follow from."""
    own = tuple([ask.key for ask in job.asks if ask.windows])
    flags = job.has_scored_row, job.seeks_spans, job.is_explained
    return job.text, job.text2, job.head, job.tail, own, flags


def words_behind(instruction: Instruction, *, joint_questions: bool) -> str:
    """What stands behind each window of the text: the question, where the model reads it so."""
    if joint_questions and instruction.kind is TaskKind.QA:
        return instruction.candidates[0].words
    return ""

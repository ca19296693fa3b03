"""Texts to ids: each is tokenized once, however many ways it is asked about."""

from __future__ import annotations

from collections.abc import Sequence

from instructrec_deploy.runtime.explain import cut_text
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.text.tokenizer import TextTokenizer


def tokenize(jobs: Sequence[Job], tokenizer: TextTokenizer) -> None:
    """Give jobs their ids, the windows where spans are sought, the variants to explain.

    A text that spans are sought in is read in windows; candidates are scored on the first of them,
    which holds what the text alone would be cut to. A pair, or a text with marks, has a rendering
    of its own for candidates.

    Raises:
        TextUndecodable: a text holds a lone surrogate.
    """
    for job in jobs:
        if job.seeks_spans:
            job.windows = tokenizer.encode_windows(job.text)
    rendered = [job for job in jobs if not job.windows or job.window_start]
    if rendered:
        passages = [job.passage() for job in rendered]
        found = tokenizer.encode_passages(passages, use_offsets=False)
        for job, encoded in zip(rendered, found, strict=True):
            job.ids, job.truncated = encoded.ids, encoded.truncated
    for job in jobs:
        if job.windows and not job.window_start:
            job.ids = job.windows[0].ids
            job.truncated = len(job.windows) > 1 and not job.seeks_only_spans
        if job.is_explained:
            cut_text(job, tokenizer)

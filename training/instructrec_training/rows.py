"""Tokenized examples and how a batch of them is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate


@dataclass(frozen=True, slots=True)
class Row:
    """A text as the model reads it, with what is right about it.

    A long text that is searched for spans becomes several rows, one for each window.
    """

    ids: list[int]
    label: int  # position of the right candidate; -1: none of them, several, or spans
    text: str  # all that is read, as one: rows that are read alike have the same
    labels: tuple[int, ...] = ()  # positions of all right candidates, of "any" and ranking tasks
    offsets: tuple[tuple[int, int], ...] = ()  # code points of each id; of span tasks only
    spans: tuple[tuple[int, int, int], ...] = ()  # (candidate, first token, last token)
    words: tuple[str, ...] = ()  # the row's own question; empty: the task's labels are asked
    candidates: tuple[Candidate, ...] = ()  # the row's own, with priors; of ranking tasks only
    seen: frozenset[str] = frozenset()  # labels of items that its user is known to have chosen
    is_outside: bool = False  # the task's "none of these" is right
    share: float = 1.0  # how often it is shown, against its task's other rows
    example: Example | None = None  # where it comes from; windows of one text share it


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids of B rows -> ids [B, T] int64 and mask [B, T] int64, T the longest."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask

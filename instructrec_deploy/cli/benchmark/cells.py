"""The cells of a comparison: how many texts a call brings, and how long they are.

Shapes: B texts of a call, T tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from instructrec_deploy.runtime.engine import pad_rows
from instructrec_deploy.tasks.base import Ints

Batch = tuple[Ints, Ints]  # ids and mask, [B, T] each
Order = Literal["fixed", "mixed", "sorted"]
N_REAL_TEXTS = 128  # of one pass over real lengths: four batches of 32


@dataclass(frozen=True, slots=True)
class Cell:
    """One shape of work."""

    batch: int  # texts of a call
    order: Order  # fixed: texts of one length; mixed: real texts as they come; sorted: by length
    length: int = 0  # fixed: tokens of each text, control tokens included

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.batch} x {self.length or self.order}"

    @property
    def n_texts(self) -> int:
        """Texts of one pass."""
        return self.batch if self.order == "fixed" else N_REAL_TEXTS


def make_cells(batches: Sequence[int], lengths: Sequence[int]) -> list[Cell]:
    """Every batch size with every length, with real texts, and with real texts sorted by length."""
    fixed = [Cell(batch, "fixed", length) for batch in batches for length in lengths]
    mixed = [Cell(batch, "mixed") for batch in batches]
    ordered = [Cell(batch, "sorted") for batch in batches if batch > 1]
    return [*fixed, *mixed, *ordered]


def make_batches(
    cell: Cell, rows: Sequence[Sequence[int]], *, frame: tuple[list[int], list[int]], pad_id: int
) -> list[Batch]:
    """The batches of one pass over a cell.

    Args:
        cell: what is wanted.
        rows: token ids of real texts, in a random order.
        frame: the control ids before and after every text.
        pad_id: fills up what is shorter.

    Returns:
        One batch of texts of the wanted length, put together from the rows' tokens; or
        `N_REAL_TEXTS` rows (repeated where there are fewer), cut into batches.
    """
    if cell.order == "fixed":
        return [pad_rows(_texts_of(cell, rows, *frame), pad_id)]
    chosen = list(itertools.islice(itertools.cycle(rows), N_REAL_TEXTS))
    if cell.order == "sorted":
        chosen.sort(key=len)
    return cut(chosen, cell.batch, pad_id)


def cut(rows: Sequence[Sequence[int]], batch: int, pad_id: int) -> list[Batch]:
    """Rows of token ids as padded batches, in order."""
    return [pad_rows(rows[at : at + batch], pad_id) for at in range(0, len(rows), batch)]


def _texts_of(
    cell: Cell, rows: Sequence[Sequence[int]], head: list[int], tail: list[int]
) -> list[list[int]]:
    inner = [token for row in rows for token in row[len(head) : len(row) - len(tail)]]
    tokens = itertools.cycle(inner or [0])
    n_own = cell.length - len(head) - len(tail)
    return [[*head, *itertools.islice(tokens, n_own), *tail] for _ in range(cell.batch)]

"""The texts that are measured with: a shipped list, or those of a data file."""

from __future__ import annotations

from pathlib import Path

from instructrec_deploy.cli.shipped import find_data
from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.requests import text_of

SHIPPED_TEXTS = Path(__file__).with_name("texts.txt")
MAX_TEXTS = 2_000  # of a data file: more change no figure


def load_texts(data: str = "") -> list[str]:
    """English and Chinese customer messages of 1 to 60 words, or a data file's first texts.

    Raises:
        FileMissing, RowInvalid: the data file is not usable.
    """
    if not data:
        return SHIPPED_TEXTS.read_text(encoding="utf-8").splitlines()
    rows = read_examples(find_data(data))
    step = max(1, len(rows) // MAX_TEXTS)
    texts = [text_of(row) for row in rows[::step]]
    if not all(text.strip() for text in texts):
        raise RowInvalid(f"{data}: some texts are empty", hint="remove those rows")
    return texts

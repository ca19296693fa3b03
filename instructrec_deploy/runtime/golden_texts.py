"""Golden pairs of a bundle that writes: are its tokens as likely here as where it was exported?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from instructrec_deploy.core.bundle import GOLDEN_FILE, Bundle, read_text
from instructrec_deploy.core.errors import BundleError, GoldenFailed
from instructrec_deploy.runtime.golden import MAX_FAULTS, GoldenReport
from instructrec_deploy.runtime.writer import Writer


class GoldenText(NamedTuple):
    """One line: a text, tokens behind it, and the log probability of each, given those before."""

    text: str
    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]


def check_golden_texts(bundle: Bundle, writer: Writer) -> GoldenReport:
    """Run the golden pairs. Differences are of log probabilities.

    Tokens are given, not chosen: where two are nearly as likely, another processor may choose the
    other one and be right.

    Raises:
        GoldenFailed: a log probability differs by more than the bundle's `score_tolerance`. The
            message names lines, never texts.
        BundleError: a line is not a pair.
    """
    tolerance = bundle.manifest.score_tolerance
    pairs = read_golden_texts(bundle)
    if not pairs:
        warning = f"{GOLDEN_FILE} is empty: nothing proves that this machine answers right"
        return GoldenReport(0, 0.0, tolerance, (warning,))
    worst, faults = 0.0, []
    for number, pair in enumerate(pairs, 1):
        ids = writer.tokenizer.encode_texts([pair.text], use_offsets=False)[0].ids
        found = writer.log_probabilities(ids, pair.ids)
        difference = float(np.abs(found - np.array(pair.log_probabilities)).max())
        worst = max(worst, difference)
        if not difference <= tolerance:
            faults.append(f"line {number}: a log probability differs by {difference:.2g}")
    if faults:
        raise GoldenFailed(
            f"{len(faults)} of {len(pairs)} golden pairs fail (tolerance {tolerance:g}): "
            + "; ".join(faults[:MAX_FAULTS]),
            hint="this machine computes otherwise than the one it was exported on: "
            "export the bundle here, or use fp32",
        )
    return GoldenReport(len(pairs), worst, tolerance)


def golden_lines(pairs: Sequence[GoldenText]) -> str:
    """The content of golden.jsonl."""
    rows = [
        {
            "text": pair.text,
            "ids": list(pair.ids),
            "log_probabilities": [round(value, 6) for value in pair.log_probabilities],
        }
        for pair in pairs
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_golden_texts(bundle: Bundle) -> list[GoldenText]:
    """The pairs of a bundle that writes.

    Raises:
        BundleError: a line is not one.
    """
    content = read_text(bundle.path(GOLDEN_FILE)).split("\n")
    n_words = bundle.manifest.model.generation
    most = n_words.n_vocabulary if n_words else 0
    return [_pair(number, line, most) for number, line in enumerate(content, 1) if line.strip()]


def _pair(number: int, line: str, n_vocabulary: int) -> GoldenText:
    try:
        raw: Any = json.loads(line)
        text, ids = raw["text"], tuple(int(token) for token in raw["ids"])
        likely = tuple(float(value) for value in raw["log_probabilities"])
        is_pair = isinstance(text, str) and len(ids) == len(likely) > 0
        is_pair &= all(0 <= token < n_vocabulary for token in ids)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _broken(number) from error
    if not is_pair:
        raise _broken(number)
    return GoldenText(text, ids, likely)


def _broken(number: int) -> BundleError:
    return BundleError(
        f"{GOLDEN_FILE} line {number}: not a golden pair", hint="export the bundle again"
    )

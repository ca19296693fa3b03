"""Metrics of extractive question answering: exact match and F1, in English and in Chinese."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from instructrec_deploy.evaluation.figures import N_RESAMPLES, Figures, mean_intervals

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN_CHAR = re.compile(f"[{_HAN}]")
_LETTER = re.compile(r"[^\W\d_]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# A Han character; a number with its points; a word with its points and apostrophes; a sign.
_CMRC_TOKEN = re.compile(
    rf"[{_HAN}]|\d+(?:[.,]\d+)+|(?:(?![{_HAN}])\w)+(?:[.'](?:(?![{_HAN}])\w)+)*|[^\w\s]"
)


@dataclass(frozen=True, slots=True)
class Replied:
    """A question's predicted answer beside the right ones."""

    text: str | None  # "": answered with nothing; None: blocked or failed
    references: tuple[str, ...]  # empty: the passage holds no answer
    is_chinese: bool


def question_metrics(
    rows: Sequence[Replied], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Figures:
    """`exact_match` and `f1`, means over the questions of the best reference each.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no questions")
    columns = np.array([exact_and_f1(row) for row in rows], dtype=np.float64)
    values = mean_intervals(["exact_match", "f1"], columns, seed=seed, n_resamples=n_resamples)
    facts = {
        "n_unanswerable": sum(not row.references for row in rows),
        "n_no_answer": sum(row.text is not None and not row.text.strip() for row in rows),
    }
    return Figures(len(rows), values, facts)


def exact_and_f1(row: Replied) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 of one answer, each against the reference that suits it best.

    Answering with nothing is right (both 1) where there is no reference, and wrong (both 0) where
    there is one; an answer where there is no reference is wrong, and so is a failed row.
    """
    if row.text is None:
        return 0.0, 0.0
    is_silent = not row.text.strip()
    if is_silent or not row.references:
        is_right = float(is_silent and not row.references)
        return is_right, is_right
    compare = _compare_chinese if row.is_chinese else _compare_english
    each = [compare(row.text, reference) for reference in row.references]
    return max(exact for exact, _ in each), max(f1 for _, f1 in each)


def reads_as_chinese(lang: str, text: str) -> bool:
    """Which of the two definitions holds for a row: by its `lang`, else by the passage's letters.

    Without a `lang`, Chinese is a passage of which at least half the letters are Han characters.
    """
    if lang:
        return lang.lower().startswith("zh")
    n_han = len(_HAN_CHAR.findall(text))
    return n_han > 0 and 2 * n_han >= len(_LETTER.findall(text))


def _compare_english(predicted: str, reference: str) -> tuple[float, float]:
    """As SQuAD: lower case, without ASCII punctuation and articles; F1 over the bags of words.

    Where nothing is left of either text, F1 is exact match, as in SQuAD 2.0.

    Source: Rajpurkar et al., arXiv:1606.05250 and arXiv:1806.03822, evaluation scripts.
    """
    left, right = _english_words(predicted), _english_words(reference)
    exact = float(left == right)
    if not left or not right:
        return exact, exact
    return exact, _f1((Counter(left) & Counter(right)).total(), len(left), len(right))


def _english_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_ASCII_PUNCTUATION)).split()


def _compare_chinese(predicted: str, reference: str) -> tuple[float, float]:
    """As CMRC 2018: lower case, without its list of signs; F1 of the longest common run of tokens.

    Every Han character is a token. The original cuts what stands between them with NLTK; we keep
    numbers and words with inner points whole and let signs stand alone, which needs no package.
    It also knows Han characters up to U+9FA5 only; we take all of them. Where nothing is left of
    either text, F1 is exact match.

    Source: Cui et al., arXiv:1810.07366; github.com/ymcui/cmrc2018, cmrc2018_evaluate.py (v5).
    """
    plain = [
        text.lower().strip().translate(_NO_CMRC_PUNCTUATION) for text in (predicted, reference)
    ]
    exact = float(plain[0] == plain[1])
    left, right = (_CMRC_TOKEN.findall(text) for text in plain)
    if not left or not right:
        return exact, exact
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return exact, _f1(matcher.find_longest_match().size, len(left), len(right))


def _f1(n_common: int, n_predicted: int, n_right: int) -> float:
    return 2 * n_common / (n_predicted + n_right)

"""Entities from a tag for each word, as the heads of token-classification checkpoints give it.

Shapes: T tokens of a window, G tags, W words of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from instructrec_deploy.core.decision import PLAIN, Decision
from instructrec_deploy.core.result import Answer, Span
from instructrec_deploy.core.tags import PLACES, TagScheme
from instructrec_deploy.tasks.base import Floats, softmax
from instructrec_deploy.tasks.extract import Bools, Window, answer_of, word_borders


@dataclass(frozen=True, slots=True)
class TaggedWords:
    """The words of a text that a model read: borders in code points, tag probabilities [W, G]."""

    starts: Sequence[int]
    ends: Sequence[int]
    chances: Floats

    @property
    def margins(self) -> Floats:
        """[W]: by how much the likeliest tag of each word is ahead of the next."""
        ranked = np.sort(self.chances, axis=1)
        return np.asarray(ranked[:, -1] - ranked[:, -2])


def read_words(windows: Sequence[Window], text: str) -> TaggedWords:
    """Each word once, as its first token is tagged where most of the text stands around it.

    Only the first token of a word was tuned to have a tag. Windows overlap: of two that hold a
    word the one counts that has more tokens on the nearer side of it.

    Args:
        windows: of one text, with scores [T, G].
        text: what the offsets point into.

    Raises:
        InternalError: a score is not a number.
    """
    best: dict[tuple[int, int], tuple[float, Floats]] = {}
    for number, window in enumerate(windows):
        seen: dict[tuple[int, int], int] = {}  # of tokens that share a character the first
        for place, (start, end) in enumerate(window.offsets):
            if end > start:
                seen.setdefault((start, end), place)
        places = list(seen.values())
        for token, place in seen.items():
            left = np.inf if number == 0 else place - places[0]
            right = np.inf if number == len(windows) - 1 else places[-1] - place
            depth = float(min(left, right))
            if token not in best or depth > best[token][0]:
                best[token] = depth, window.scores[place]
    tokens = sorted(best)
    opens, _ = word_borders(tokens, text)
    starts: list[int] = []
    ends: list[int] = []
    rows = []
    for (start, end), is_open in zip(tokens, opens.tolist(), strict=True):
        if not starts or (is_open and start >= ends[-1]):
            starts.append(start)
            ends.append(end)
            rows.append(best[start, end][1])
        else:
            ends[-1] = max(ends[-1], end)
    n_tags = windows[0].scores.shape[-1] if windows else 0
    scores = np.stack(rows) if rows else np.zeros((0, n_tags), np.float32)
    return TaggedWords(starts, ends, softmax(scores) if rows else scores)


def find_tagged(
    windows: Sequence[Window],
    scheme: TagScheme,
    text: str,
    *,
    labels: AbstractSet[str],
    threshold: float = 0.0,
) -> list[Span]:
    """Entities in the order of the text: the likeliest tag of each word, joined.

    A span's score is the mean over its words of the probability of its type, all its tags taken
    together.

    Args:
        windows: of one text, with scores [T, G]; they may overlap.
        scheme: of the head.
        text: what the offsets point into.
        labels: types that are asked for; others that the head finds are left out.
        threshold: least score, 0 to 1.

    Raises:
        InternalError: a score is not a number.
    """
    words = read_words(windows, text)
    spans = []
    for first, last, kind in scheme.chunks(words.chances.argmax(axis=1).tolist()):
        columns = [i for i, known in enumerate(scheme.kinds) if known == kind]
        score = float(words.chances[first : last + 1, columns].sum(axis=1).mean())
        if kind in labels and score >= threshold:
            start, end = words.starts[first], words.ends[last]
            spans.append(Span(start, end, kind, text[start:end], score))
    return spans


def decode_tagged(
    windows: Sequence[Window],
    scheme: TagScheme,
    labels: Sequence[str],
    text: str,
    *,
    decision: Decision = PLAIN,
    top_k: int = 0,
    task: str = "",
    prepared_id: str = "",
) -> Answer:
    """The entities of a text as an answer, as `decode_entities` gives it.

    Args:
        windows, scheme, labels, text: as `find_tagged`.
        decision: its threshold is the least score of a span; without one all that are found stay.
        top_k: how many types have their score told; 0 means all that were found.

    Raises:
        InternalError: a score is not a number.
    """
    least = decision.threshold or 0.0
    spans = find_tagged(windows, scheme, text, labels=set(labels), threshold=least)
    return answer_of(spans, decision=decision, top_k=top_k, task=task, prepared_id=prepared_id)


def word_tags(
    offsets: Sequence[tuple[int, int]],
    text: str,
    spans: Sequence[tuple[int, int, str]],
    scheme: TagScheme,
) -> list[int]:
    """The right tag of each token of a window that a word begins with; -1 of any other.

    Args:
        offsets: of the tokens, in code points.
        text: what they point into.
        spans: right entities (start, end, type) in code points; one that the head has no tag for
            counts as outside.
        scheme: of the head. Where it has no tag for "outside", words outside stay -1.
    """
    opens, _ = word_borders(offsets, text)
    outside = -1 if scheme.outside is None else scheme.outside
    tags = [-1] * len(offsets)
    firsts: list[int] = []
    end_before = -1
    for place, (start, end) in enumerate(offsets):
        if end > start and opens[place] and start >= end_before:
            firsts.append(place)
            tags[place] = outside
            end_before = end
    for start, end, kind in spans:
        within = [p for p in firsts if offsets[p][0] < end and offsets[p][1] > start]
        for number, place in enumerate(within):
            # An entity that a window holds a part of begins or ends in another one.
            begins = number == 0 and not text[start : offsets[place][0]].strip()
            ends = (
                number == len(within) - 1
                and not text[_word_end(offsets, place, opens) : end].strip()
            )
            tag = scheme.tag(kind, PLACES[begins, ends])
            tags[place] = outside if tag is None else tag
    return tags


def _word_end(offsets: Sequence[tuple[int, int]], place: int, opens: Bools) -> int:
    """Where the word ends that begins with a token."""
    end = offsets[place][1]
    for after in range(place + 1, len(offsets)):
        if offsets[after][1] <= offsets[after][0] or (opens[after] and offsets[after][0] >= end):
            break
        end = max(end, offsets[after][1])
    return end

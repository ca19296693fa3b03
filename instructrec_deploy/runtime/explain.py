"""Which words moved an answer: the text is read again without each of them, in the same batch.

Leaving out one piece at a time is occlusion (Zeiler and Fergus, arXiv:1311.2901; on words Li et
al., "Understanding neural networks through representation erasure", arXiv:1612.08220). It asks the
very model that is served and needs no gradient, so it is the same in int8. A text is cut into
MAX_PIECES pieces at most, which bounds its cost. How faithful: docs/explanations.md.

Shapes: V variants of a text, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Answer, Attribution
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.decide import Decider
from instructrec_deploy.tasks.extract import word_borders
from instructrec_deploy.text.tokenizer import Encoded, TextTokenizer

MAX_PIECES = 32  # of a text: words, or runs of words where there are more
Piece = tuple[int, int]  # half-open range of tokens


def check_explainable(request: Request) -> None:
    """Refuse what is not explained.

    Raises:
        RequestError: a pair, or a text with marks.
    """
    if request.explain and (request.text2 or request.head is not None):
        raise RequestError(
            "a text with text2 or marks is not explained", hint="send it without explain"
        )


def cut_pieces(encoded: Encoded, text: str) -> list[Piece]:
    """The words of a text as ranges of its tokens; runs of words where there are too many.

    Args:
        encoded: the text as the model reads it, with offsets.
        text: what the offsets lead into.
    """
    opens, _ = word_borders(encoded.offsets, text)
    readable = [place for place, (start, end) in enumerate(encoded.offsets) if end > start]
    starts = [place for place in readable if opens[place] or place == readable[0]]
    if not starts:
        return []
    n_words = -(-len(starts) // MAX_PIECES)
    starts = starts[::n_words]
    return list(zip(starts, [*starts[1:], readable[-1] + 1], strict=True))


def without(ids: Sequence[int], piece: Piece) -> list[int]:
    """The ids of a text that lacks a piece."""
    return [*ids[: piece[0]], *ids[piece[1] :]]


def cut_text(job: Job, tokenizer: TextTokenizer) -> None:
    """Give a job the variants of its text that lack one piece each."""
    (encoded,) = tokenizer.encode_texts([job.text])
    for first, last in cut_pieces(encoded, job.text):
        job.pieces.append((encoded.offsets[first][0], encoded.offsets[last - 1][1]))
        job.variants.append(without(encoded.ids, (first, last)))


def attribute(answer: Answer, logits: Floats, instruction: Instruction, job: Job) -> Answer:
    """The answer with how much probability it loses without each piece.

    Args:
        answer: whose label is explained; of one that abstained, the best candidate.
        logits: [1 + V, C]: of the whole text, then without each piece.
        instruction: what was asked.
        job: with its pieces.
    """
    labels = list(instruction.labels)
    named = [answer.label, *(score.label for score in answer.scores)]
    column = next((labels.index(label) for label in named if label in labels), None)
    if column is None:
        return answer
    decider = Decider(instruction.decision, labels, temperature=instruction.temperature)
    whole, *rest = decider.probabilities(logits)[0][:, column].tolist()
    told = [
        Attribution(*job.source(*piece), whole - chance)
        for piece, chance in zip(job.pieces, rest, strict=True)
    ]
    return replace(answer, attributions=tuple(told))

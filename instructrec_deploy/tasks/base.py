"""Array types of the serving path, and which answer shapes are served.

Shapes, here and in every file that works on arrays: B texts, T tokens, H hidden size, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructrec_deploy.core.errors import InternalError, RequestError
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind

Floats = NDArray[np.floating[Any]]  # float32 from the graphs, float64 for probabilities
Ints = NDArray[np.int64]


def check_kind(kind: TaskKind, *, finds_spans: bool, only: TaskKind | None = None) -> None:
    """Refuse a kind whose answers a model cannot give.

    Args:
        finds_spans: whether the model has a span reader.
        only: the one kind that the model's head answers; None where it has no such head.

    Raises:
        RequestError: `kind` is answered by text, or by spans and the model finds none.
    """
    shapes = {Shape.CLASSIFY, Shape.EXTRACT} if finds_spans else {Shape.CLASSIFY}
    kinds = [only] if only else [k for k, shape in SHAPES.items() if shape in shapes]
    if kind not in kinds:
        served = ", ".join(kinds)
        raise RequestError(
            f"this model does not answer tasks of kind {kind.value!r}",
            hint=f"kinds that it does: {served}",
        )


def softmax(logits: Floats) -> Floats:
    """[B, C] -> [B, C] float64; each row sums to 1. -inf takes a candidate out.

    Raises:
        InternalError: a logit is not a number; the model or its graph is broken.
    """
    top = logits.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        raise broken_model()
    grown = np.exp(logits.astype(np.float64) - top)
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def broken_model() -> InternalError:
    """What to raise where a score is not a number."""
    return InternalError(
        "the model gave no finite score", hint="check the bundle: `instructrec bundle verify`"
    )

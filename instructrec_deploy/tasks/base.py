"""Array types of the serving path, and which answer shapes are served.

Shapes, here and in every file that works on arrays: B texts, T tokens, H hidden size, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind

Floats = NDArray[np.floating[Any]]  # float32 from the graphs, float64 for probabilities
Ints = NDArray[np.int64]


def check_kind(kind: TaskKind) -> None:
    """Refuse a kind whose answers have a shape that is not served yet.

    Raises:
        RequestError: `kind` is answered by spans or by text.
    """
    if SHAPES[kind] is not Shape.CLASSIFY:
        served = ", ".join(k for k, shape in SHAPES.items() if shape is Shape.CLASSIFY)
        raise RequestError(
            f"tasks of kind {kind.value!r} cannot be answered yet",
            hint=f"kinds that can: {served}",
        )

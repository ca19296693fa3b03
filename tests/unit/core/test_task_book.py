"""What a bundle's tasks say together."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.manifest import TaskBook


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [([], 0.5), ([0.2], 0.2), ([0.35, 0.1, 0.2], 0.2), ([0.4, 0.1], 0.1)],
)
def test_types_of_ones_own_have_the_median_threshold(
    thresholds: list[float], expected: float
) -> None:
    tasks = {
        f"t{n}": {"kind": "ner", "labels": ["a"], "threshold": t} for n, t in enumerate(thresholds)
    }
    tasks["other"] = {"kind": "classification", "labels": ["a", "b"], "threshold": 0.9}
    book = TaskBook.model_validate({"tasks": tasks})
    assert book.span_threshold == expected

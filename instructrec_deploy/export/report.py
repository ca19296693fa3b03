"""What an export made, whatever the model does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from instructrec_deploy.core.errors import ParityFailed
from instructrec_deploy.core.manifest import Precision

Check = tuple[str, float, float, bool]  # name, value, limit, whether the limit is a floor


class Measured(Protocol):
    """What a parity gate measured."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""


Parity = TypeVar("Parity", bound=Measured)


@dataclass(frozen=True)  # typing notes the parameter on each one: no slots
class Report(Generic[Parity]):
    """What an export made."""

    out: Path
    name: str
    version: str
    precision: Precision
    size_bytes: int
    n_parameters: int
    n_golden: int
    parity: Parity
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage
    mixture: Mapping[str, Any] | None = None  # what int8 costs by parts, where it was measured

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        mixture = {} if self.mixture is None else {"mixture": dict(self.mixture)}
        return mixture | {
            "out": str(self.out),
            "name": self.name,
            "version": self.version,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "n_parameters": self.n_parameters,
            "n_golden": self.n_golden,
            "parity": self.parity.to_dict(),
            "seconds": {stage: round(s, 2) for stage, s in self.seconds.items()},
        }


def judge(fault: str, checks: tuple[Check, ...]) -> None:
    """Hold figures against their limits.

    Args:
        fault: what is wrong where one does not hold; a figure that is no number does not.
        checks: the figures.

    Raises:
        ParityFailed: with all figures, those that failed marked.
    """
    lines, is_failed = [], False
    for name, value, limit, is_floor in checks:
        passed = value >= limit if is_floor else value <= limit
        is_failed |= not passed
        sign = "at least" if is_floor else "at most"
        lines.append(f"{name} {value:.4g} ({sign} {limit:g}{'' if passed else ', FAILED'})")
    if is_failed:
        raise ParityFailed(
            f"{fault}: " + "; ".join(lines),
            hint="try precision fp32; if that fails too, the model has a part this export "
            "does not know: please report it",
        )

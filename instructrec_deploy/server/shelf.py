"""The models that answer, by name: one object, replaced as a whole when a version changes.

A call picks its model once, and nothing of the call is done by another one: that is what makes a
swap atomic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instructrec_deploy.core.errors import ModelUnknown, RequestError
from instructrec_deploy.core.status import Limits
from instructrec_deploy.server.memo import InstructionMemo
from instructrec_deploy.server.served import Model
from instructrec_deploy.server.settings import DoorSettings


@dataclass(frozen=True, slots=True)
class Stand:
    """A model with what is kept for its callers."""

    model: Model
    limits: Limits
    memo: InstructionMemo


class Shelf:
    """The models being served.

    Args:
        models: those that answer; of several versions of one name, the newest comes last.
        settings: what a request may hold.
        default: who answers where a request names no model; "": the only one.
    """

    def __init__(
        self, models: Sequence[Model], settings: DoorSettings, *, default: str = ""
    ) -> None:
        self._by_name: dict[str, list[Stand]] = {}
        for model in models:
            limits = settings.limits(model.max_tokens)
            stand = Stand(model, limits, InstructionMemo(lend=model.lend))
            self._by_name.setdefault(model.name, []).append(stand)
        names = list(self._by_name)
        self.default = default or (names[0] if len(names) == 1 else "")
        """The model of requests that name none; "" where they must name one."""

    def __iter__(self) -> Iterator[Stand]:
        """Every model, by name, the newest version of a name last."""
        for stands in self._by_name.values():
            yield from stands

    def pick(self, name: str = "", version: str = "") -> Stand:
        """The model that a request names; without a version the newest.

        Raises:
            ModelUnknown: there is none of that name or version.
            RequestError: none is named, there are several, and none of them is the default.
        """
        if not (name or self.default):
            raise RequestError(
                "several models are served, and the request names none",
                hint="set `model` (and `model_version`); GetModelStatus lists them",
            )
        stands = self._by_name.get(name or self.default)
        if not stands:
            raise ModelUnknown(
                "no such model is served", hint="GetModelStatus lists those there are"
            )
        if not version:
            return stands[-1]
        for stand in reversed(stands):
            if version in (stand.model.version, stand.model.release):
                return stand
        raise ModelUnknown(
            "no such version of the model is served",
            hint="leave model_version out for the newest; GetModelStatus lists those there are",
        )

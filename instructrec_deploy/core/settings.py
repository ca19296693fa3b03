"""Base of every settings section: frozen, and unknown keys are refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration, owned by the layer that uses it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

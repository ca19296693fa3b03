"""InstructRec Deploy: tune, export and serve small models that follow instructions.

The names below load on first use, so that importing the client loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructrec_deploy.client.aio import AsyncClient
    from instructrec_deploy.client.security import Security
    from instructrec_deploy.client.sync import Client
    from instructrec_deploy.core.bundle import Bundle, open_bundle
    from instructrec_deploy.core.decision import Decision
    from instructrec_deploy.core.errors import InstructRecError
    from instructrec_deploy.core.instruction import Candidate, Instruction
    from instructrec_deploy.core.request import Mark, Request
    from instructrec_deploy.core.result import Prediction
    from instructrec_deploy.runtime.predictor import Predictor
    from instructrec_deploy.text.render import render_history

__version__ = "0.1.0.dev0"

_HOMES = {
    "AsyncClient": "client.aio",
    "Bundle": "core.bundle",
    "Candidate": "core.instruction",
    "Client": "client.sync",
    "Decision": "core.decision",
    "Instruction": "core.instruction",
    "InstructRecError": "core.errors",
    "Mark": "core.request",
    "Prediction": "core.result",
    "Predictor": "runtime.predictor",
    "Request": "core.request",
    "Security": "client.security",
    "open_bundle": "core.bundle",
    "render_history": "text.render",
}

__all__ = [
    "AsyncClient",
    "Bundle",
    "Candidate",
    "Client",
    "Decision",
    "InstructRecError",
    "Instruction",
    "Mark",
    "Prediction",
    "Predictor",
    "Request",
    "Security",
    "__version__",
    "open_bundle",
    "render_history",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

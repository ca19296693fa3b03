"""A server of ours whose engine computes nothing: a batch takes its time asleep.

    python overhead_server.py BUNDLE PORT MICROSECONDS_A_TOKEN

What is left of its processor time is what serving itself takes. The guard, the tokenizer, the
scheduler, the metrics and gRPC are those of `instructrec serve`; batches are as large as with a
model of that speed. The model is real until the server is ready: bundles check themselves.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.runtime.engine import Encoding, Engine
from instructrec_deploy.server.app import run_server
from instructrec_deploy.server.settings import load_settings

PEAK = 20.0  # logit of the first candidate, so that an answer looks like one


class Asleep:
    """In the place of `Engine.encode` and `Engine.score`."""

    def __init__(self, token_s: float) -> None:
        self._token_s = token_s
        self._encode, self._score = Engine.encode, Engine.score
        self.is_on = False

    def encode(self, engine: Engine, ids: Any, mask: Any, **options: Any) -> Encoding:
        """What the engine would give, in shape."""
        if not self.is_on:
            return self._encode(engine, ids, mask, **options)
        time.sleep(int(mask.sum()) * self._token_s)
        if engine.is_fixed:
            n_labels = engine._encoders[0].get_outputs()[0].shape[-1]
            return Encoding(mask, logits=ramp(len(ids), n_labels))
        hidden = engine.model.hidden_size
        states = np.zeros((*ids.shape, hidden), np.float32) if engine.model.has_fusion else None
        return Encoding(mask, states, np.zeros((len(ids), hidden), np.float32))

    def score(
        self, engine: Engine, encoding: Encoding, vectors: Any, *rest: Any, **options: Any
    ) -> Any:
        """The first candidate, whatever is asked."""
        if not self.is_on:
            return self._score(engine, encoding, vectors, *rest, **options)
        return ramp(len(encoding.mask), len(vectors))


def ramp(n_rows: int, n_columns: int) -> Any:
    """Logits that fall from column to column."""
    return np.tile(np.linspace(PEAK, 0.0, n_columns, dtype=np.float32), (n_rows, 1))


def main() -> None:
    """Serve until SIGTERM."""
    bundle, port, token_us = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    asleep = Asleep(token_us * 1e-6)
    Engine.encode = lambda self, *a, **k: asleep.encode(self, *a, **k)  # type: ignore[method-assign]
    Engine.score = lambda self, *a, **k: asleep.score(self, *a, **k)  # type: ignore[method-assign]
    overrides: dict[str, dict[str, Any]] = {
        "server": {"port": port, "log_format": "text", "log_level": "warning"},
        "batching": {"join_equal": False},  # the load has few texts, users have many
    }

    def begin(_: object) -> None:
        asleep.is_on = True
        print("ready", flush=True)

    run_server(bundle, load_settings(overrides=overrides, environ={}).settings, on_ready=begin)


if __name__ == "__main__":
    main()

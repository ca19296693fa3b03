"""LitServe: FastAPI in front, worker processes, dynamic batches in order of arrival.

    python litserve_server.py MODEL_FOLDER PORT LAYOUT

Layout: {"n_workers": 2, "max_batch": 8, "wait_ms": 2, "n_fronts": 1}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litserve


class Classifier(litserve.LitAPI):
    """One text, or a batch of them."""

    def __init__(self, folder: str, **batching: Any) -> None:
        super().__init__(**batching)
        self._folder = folder

    def setup(self, device: str) -> None:
        """In each worker."""
        from model import Model

        self._model = Model(self._folder)

    def decode_request(self, request):  # LitServe reads an annotation as the body's form
        """`{"text": ...}`."""
        return request["text"]

    def predict(self, x: list[str] | str) -> list[str] | str:
        """LitServe gives a list where it batches."""
        return self._model.predict(x) if isinstance(x, list) else self._model.predict([x])[0]

    def encode_response(self, output: str) -> dict[str, str]:
        """`{"label": ...}`."""
        return {"label": output}


if __name__ == "__main__":
    layout: dict[str, int] = json.loads(sys.argv[3])
    batching = {}
    if layout["max_batch"] > 1:
        batching = {
            "max_batch_size": layout["max_batch"],
            "batch_timeout": layout["wait_ms"] / 1000,
        }
    server = litserve.LitServer(
        Classifier(sys.argv[1], **batching),
        accelerator="cpu",
        workers_per_device=layout["n_workers"],
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=layout["n_fronts"],
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )

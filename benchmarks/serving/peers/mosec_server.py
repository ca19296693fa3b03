"""mosec: a Rust front, worker processes, dynamic batches in order of arrival.

    python mosec_server.py MODEL_FOLDER PORT LAYOUT

Layout: {"n_workers": 2, "max_batch": 8, "wait_ms": 1}. Tokenizing in a stage of its own was slower:
the ids go from process to process.
"""

from __future__ import annotations

import json
import sys

from mosec import Server, Worker

FOLDER, PORT = sys.argv[1], sys.argv[2]
LAYOUT: dict[str, int] = json.loads(sys.argv[3])
IS_BATCHED = LAYOUT["max_batch"] > 1


class Classifier(Worker):
    """One text, or a batch of them."""

    def __init__(self) -> None:
        from model import Model

        self._model = Model(FOLDER)

    def deserialize(self, data: bytes) -> str:
        """The request's body is the text."""
        return data.decode()

    def serialize(self, data: str) -> bytes:
        """The answer's body is the label."""
        return data.encode()

    def forward(self, data: list[str] | str) -> list[str] | str:
        """mosec gives a list where it batches."""
        if isinstance(data, list):
            return self._model.predict(data)
        return self._model.predict([data])[0]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", PORT, "--log-level", "warning"]
    server = Server()
    server.append_worker(
        Classifier,
        num=LAYOUT["n_workers"],
        max_batch_size=LAYOUT["max_batch"],
        max_wait_time=LAYOUT["wait_ms"],
        start_method="fork",  # so that the workers know what this process was told
    )
    server.run()

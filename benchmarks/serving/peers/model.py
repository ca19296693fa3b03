"""What every peer runs: the bundle's own graph and tokenizer, text in, label out.

The graphs, the tokenizer and the candidates' vectors come from the folder that `../peers.py` writes
out of a bundle; nothing of this project is imported, as each peer has an environment of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

N_WARM_UP = 3


class Model:
    """A classifier with one session of `n_threads` threads.

    Args:
        folder: holds `model.json`, `tokenizer.json`, the graphs, and `vectors.npz` where the
            labels are vectors.
    """

    def __init__(self, folder: str, n_threads: int = 1) -> None:
        path = Path(folder)
        self.facts: dict[str, Any] = json.loads((path / "model.json").read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.facts["max_tokens"])
        self._encoder = _open(path / "encoder.onnx", n_threads)
        self._fusion = _open(path / "fusion.onnx", n_threads) if self.facts["has_fusion"] else None
        self._vectors: dict[str, Any] = {}
        if not self.facts["is_fixed"]:
            self._vectors = dict(np.load(path / "vectors.npz"))
        for _ in range(N_WARM_UP):
            self.predict(["ok"])

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The best label of each text, computed in one batch."""
        whole = [self.facts["prefix"] + text for text in texts]
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch(whole)]
        ids = np.full((len(rows), max(map(len, rows))), self.facts["pad_id"], np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        labels = self.facts["labels"]
        return [labels[column] for column in self._scores(ids, mask).argmax(axis=1)]

    def _scores(self, ids: Any, mask: Any) -> Any:
        feed = {"input_ids": ids, "attention_mask": mask}
        if self.facts["is_fixed"]:
            return self._encoder.run(["logits"], feed)[0][:, self.facts["columns"]]
        if self._fusion is None:
            return self._encoder.run(["pooled"], feed)[0] @ self._vectors["candidate_vectors"].T
        states, pooled = self._encoder.run(["token_states", "pooled"], feed)
        fed = {"token_states": states, "attention_mask": mask, "pooled": pooled, **self._vectors}
        return self._fusion.run(["scores"], fed)[0]


def _open(path: Path, n_threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

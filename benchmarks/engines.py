"""The runtimes of one bundle beside ONNX Runtime's own dynamic int8, in one run.

    python benchmarks/engines.py BUNDLE --floats FP32_BUNDLE --data FILE.jsonl.gz --out FILE

BUNDLE is an int8 bundle with a head of fixed labels, FP32_BUNDLE the same run in 32-bit floats,
from whose encoder the stock dynamic int8 (one weight scale per channel, signed) is made. All take
turns at every shape, on the clock of the process's own processor time, which other work on the
machine disturbs least; the fastest of the rounds counts. Answers are compared alone and in batches
of mixed lengths, and with those of the floats.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from instructrec_deploy.core.bundle import ENCODER_FILE, TOKENIZER_FILE, Bundle, open_bundle
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.runtime import openvino_session, providers
from instructrec_deploy.runtime.engine import pad_rows
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.text.tokenizer import TextTokenizer

BATCHES = (1, 8, 32)
LENGTHS = (16, 64, 256)
THREADS = (1, 2)
STOCK = "ONNX Runtime, stock dynamic int8"
FLOATS = "ONNX Runtime, fp32"
Session = Any  # with the `run` of ONNX Runtime


def stock_int8(floats: Path, folder: Path) -> Path:
    """ONNX Runtime's own dynamic int8 of a float graph."""
    providers.load_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / "stock.onnx"
    quantize_dynamic(
        str(floats),
        str(path),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return path


def sessions(bundle: Bundle, floats: Bundle, stock: Path, n_threads: int) -> dict[str, Session]:
    """Every contender, with so many threads inside an operator."""

    def onnxruntime(path: Path) -> Session:
        return providers.open_session(path, providers=[providers.CPU], n_threads=n_threads)

    def openvino(path: Path) -> Session:
        return openvino_session.open_session(path, n_threads=n_threads, n_streams=1)

    own, whole = bundle.path(ENCODER_FILE), floats.path(ENCODER_FILE)
    return {
        STOCK: onnxruntime(stock),
        FLOATS: onnxruntime(whole),
        "ONNX Runtime, bundle's int8": onnxruntime(own),
        "OpenVINO, bundle's int8": openvino(own),
        "OpenVINO, fp32": openvino(whole),
    }


def speeds(opened: dict[str, Session], longest: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of processor time of each contender and shape, first calls left out."""
    rng = np.random.default_rng(0)
    found = []
    for n_texts in BATCHES:
        for length in LENGTHS:
            ids = rng.integers(1000, 5000, (n_texts, min(length, longest)))
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            times: dict[str, list[float]] = defaultdict(list)
            for number in range(rounds + 1):
                for name, session in opened.items():
                    begun = time.process_time()
                    session.run(["logits"], feed)
                    if number:
                        times[name].append(1000 * (time.process_time() - begun))
            best = {name: round(min(ms), 3) for name, ms in times.items()}
            found.append({"texts": n_texts, "tokens": ids.shape[1], "ms": best})
            print(found[-1], flush=True)
    return found


def gains(speed: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric mean over the shapes of the stock's time by each contender's."""
    return {
        name: round(
            math.exp(np.mean([math.log(row["ms"][STOCK] / row["ms"][name]) for row in speed])), 3
        )
        for name in speed[0]["ms"]
    }


def nearness(opened: dict[str, Session], rows: list[list[int]], pad_id: int) -> dict[str, Any]:
    """Probabilities against the floats', and alone against batches of mixed lengths."""
    alone = {
        name: np.concatenate([_ask(s, [row], pad_id) for row in rows]) for name, s in opened.items()
    }
    found = {}
    for name, session in opened.items():
        batches = [_ask(session, rows[at : at + 16], pad_id) for at in range(0, len(rows), 16)]
        company = np.concatenate(batches)
        found[name] = {
            "to_fp32": float(np.abs(alone[name] - alone[FLOATS]).max()),
            "same_label": float((alone[name].argmax(1) == alone[FLOATS].argmax(1)).mean()),
            "alone_to_batched": float(np.abs(alone[name] - company).max()),
            "other_label_in_batch": int((alone[name].argmax(1) != company.argmax(1)).sum()),
        }
        print(name, found[name], flush=True)
    return found


def _ask(session: Session, rows: list[list[int]], pad_id: int) -> Floats:
    ids, mask = pad_rows(rows, pad_id)
    logits = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _measure(given: argparse.Namespace, stock: Callable[[Path], Path]) -> dict[str, Any]:
    bundle, floats = open_bundle(given.bundle), open_bundle(given.floats)
    model = bundle.manifest.model
    path = stock(floats.path(ENCODER_FILE))
    tokenizer = TextTokenizer(bundle.path(TOKENIZER_FILE), max_tokens=model.max_tokens)
    tests = [row.text for row in read_examples(given.data) if row.split == "test"]
    chosen = np.random.default_rng(0).permutation(len(tests))[: given.n]
    rows = [list(one.ids) for one in tokenizer.encode_texts([tests[at] for at in chosen])]
    result: dict[str, Any] = {
        "load_average": os.getloadavg()[0],
        "n_cores": providers.available_cores(),
        "onnxruntime": providers.load_onnxruntime().__version__,
        "openvino": openvino_session.load_openvino().__version__,
        "bundle": bundle.manifest.name,
        "clock": "process_time",
        "rounds": given.rounds,
        "n_texts": len(rows),
    }
    for n_threads in THREADS:
        opened = sessions(bundle, floats, path, n_threads)
        if n_threads == 1:
            result["nearness"] = nearness(opened, rows, model.pad_id)
        speed = speeds(opened, model.max_tokens, given.rounds)
        result[f"threads_{n_threads}"] = {"gains": gains(speed), "shapes": speed}
        print(n_threads, "threads:", gains(speed), flush=True)
    result["load_average_after"] = os.getloadavg()[0]
    return result


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--floats", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=400, help="texts for nearness")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(given, lambda floats: stock_int8(floats, Path(folder)))
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

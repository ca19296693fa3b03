"""Ways to do int8, side by side: nearness to fp32 and speed (docs/adr/0002-rowwise-int8.md).

    python benchmarks/int8_variants.py BASE TEXTS.jsonl.gz --out results.json

BASE is a preset, a transformers folder or a hub id; TEXTS has `text`, `target` and `split` fields.
All variants run in one process, in turn, several times over, so that other work on the machine
disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import numpy_helper

from instructrec_deploy.core.bundle import ENCODER_FILE
from instructrec_deploy.core.request import Request
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.export import quantize
from instructrec_deploy.export.equalize import equalize_graph
from instructrec_deploy.export.graphs import float_graphs
from instructrec_deploy.export.products import Floats
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.samples import CHINESE, ENGLISH
from instructrec_deploy.models.checkpoint import build_checkpoint
from instructrec_deploy.runtime.providers import CPU, load_onnxruntime, open_session

SHAPES = ((1, 16), (8, 32), (32, 32), (32, 64))
SCALE = 20.0  # of the cosine, before the softmax over the labels
Columns = Callable[[Floats], tuple[quantize.Bytes, Floats]]


def plain_columns(limit: int) -> Columns:
    """One scale per column from its largest weight alone, to whole numbers up to `limit`."""

    def columns(weight: Floats) -> tuple[quantize.Bytes, Floats]:
        scale = np.maximum(np.abs(weight).max(axis=0) / limit, quantize.TINY).astype(np.float32)
        return np.rint(weight / scale).astype(np.int8), scale

    return columns


def with_columns(model: onnx.ModelProto, columns: Columns) -> onnx.ModelProto:
    """Quantize with another way to choose weights."""
    with mock.patch.object(quantize, "quantize_columns", columns):
        return quantize.quantize_graph(model)[0]


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Full 8-bit weights, stored unsigned: other kernels, which cannot overflow."""
    quantized = with_columns(model, plain_columns(127))
    constants = {c.name: c for c in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            name = node.input[1]
            whole = numpy_helper.to_array(constants[name]).astype(np.int16) + 128
            constants[name].CopyFrom(numpy_helper.from_array(whole.astype(np.uint8), name))
            node.input.append("weight_zero")
    zero = numpy_helper.from_array(np.array(128, np.uint8), "weight_zero")
    quantized.graph.initializer.append(zero)
    return quantized


def with_seven_bit_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Full 8-bit weights, activations of 0 to 127."""
    with (
        mock.patch.object(quantize, "ZERO_POINT", 64),
        mock.patch.object(quantize, "GELU_ZERO_POINT", 8),
        mock.patch.object(quantize, "MAX_BYTE", 127),
    ):
        return with_columns(model, plain_columns(127))


def write_variants(model: onnx.ModelProto, reference: Reference, folder: Path) -> dict[str, Path]:
    """Write every variant's graph."""
    load_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    texts = [Request(text) for text in (*ENGLISH, *CHINESE)]
    equal = equalize_graph(model, reference.batches(texts), work=folder)
    graphs = {
        "fp32": model,
        "row, pair-safe 8-bit weights, equalized": quantize.quantize_graph(equal)[0],
        "row, pair-safe 8-bit weights": quantize.quantize_graph(model)[0],
        "row, 7-bit weights, equalized": with_columns(equal, plain_columns(63)),
        "row, full 8-bit weights, equalized": with_columns(equal, plain_columns(127)),
        "row, unsigned 8-bit weights, equalized": with_unsigned_weights(equal),
        "row, 7-bit activations, equalized": with_seven_bit_activations(equal),
    }
    paths = {}
    for number, (name, graph) in enumerate(graphs.items()):
        paths[name] = folder / f"{number}.onnx"
        onnx.save(graph, paths[name])
    paths["stock dynamic int8"] = folder / "stock.onnx"
    quantize_dynamic(
        str(paths["fp32"]),
        str(paths["stock dynamic int8"]),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return paths


def vectors(session: Any, reference: Reference, texts: list[str]) -> Floats:
    """Pooled vectors [B, H] of texts, one by one, so that no variant gains by its batches."""
    found = []
    for encoded in reference.tokenizer.encode_texts(texts):
        ids = np.array([encoded.ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        found.append(session.run(["pooled"], feed)[0][0])
    return np.stack(found)


def nearness(paths: Mapping[str, Path], reference: Reference, data: Path, n: int) -> dict[str, Any]:
    """Cosine of text vectors to fp32, and what becomes of zero-shot labels."""
    rows = read_examples(data)
    labels = sorted({str(row.target) for row in rows})
    order = np.random.default_rng(0).permutation(len(rows))[:n]
    texts = [rows[i].text for i in order]
    gold = np.array([labels.index(str(rows[i].target)) for i in order])
    found: dict[str, Any] = {}
    truth: tuple[Floats, Floats] | None = None
    for name, path in paths.items():
        session = open_session(path, providers=[CPU], n_threads=1)
        pooled = vectors(session, reference, texts)
        logits = SCALE * pooled @ vectors(session, reference, labels).T
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        truth = truth or (pooled, scores)
        cosine = (pooled * truth[0]).sum(axis=1)
        moved = np.abs(scores - truth[1]).max(axis=1)
        found[name] = {
            "cosine_mean": float(cosine.mean()),
            "cosine_min": float(cosine.min()),
            "score_difference_mean": float(moved.mean()),
            "score_difference_max": float(moved.max()),
            "label_agreement": float((scores.argmax(1) == truth[1].argmax(1)).mean()),
            "accuracy": float((scores.argmax(1) == gold).mean()),
            "size_mb": path.stat().st_size / 1e6,
        }
    return found


def speeds(paths: Mapping[str, Path], rounds: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of each variant, batch shape and thread count.

    On one thread they are of CPU time, which other work on the machine disturbs least.
    """
    rng = np.random.default_rng(0)
    for n_threads, clock in ((1, time.thread_time), (2, time.perf_counter)):
        sessions = {
            name: open_session(path, providers=[CPU], n_threads=n_threads)
            for name, path in paths.items()
        }
        for shape in SHAPES:
            ids = rng.integers(1000, 5000, shape)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            times: dict[str, list[float]] = {name: [] for name in sessions}
            for _ in range(rounds * (8 if shape[0] == 1 else 1)):
                for name, session in sessions.items():
                    begun = clock()
                    session.run(None, feed)
                    times[name].append((clock() - begun) * 1e3)
            yield {
                "shape": list(shape),
                "threads": n_threads,
                "clock": clock.__name__,
                "ms": {
                    name: {"min": min(ms), "median": statistics.median(ms), "n": len(ms)}
                    for name, ms in times.items()
                },
            }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=400, help="texts for nearness")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint = build_checkpoint(
            options.base, kind="instruction-encoder", work=work / "base", use_fusion=False
        )
        reference = Reference(checkpoint)
        model = float_graphs(checkpoint, work=work)[ENCODER_FILE]
        paths = write_variants(model, reference, work)
        result = {
            "machine": platform.processor() or platform.machine(),
            "onnxruntime": load_onnxruntime().__version__,
            "base": Path(options.base).name,
            "texts": options.texts.name,
            "n": options.n,
            "nearness": nearness(paths, reference, options.texts, options.n),
            "speed": list(speeds(paths, options.rounds)),
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, row in result["nearness"].items():
        print(f"{name:42s} " + " ".join(f"{k} {v:.4f}" for k, v in row.items()))
    for speed in result["speed"]:
        ms = {name: f"{v['min']:.2f}/{v['median']:.2f}" for name, v in speed["ms"].items()}
        print(f"{speed['shape']} {speed['threads']} threads: {ms}")


if __name__ == "__main__":
    main()

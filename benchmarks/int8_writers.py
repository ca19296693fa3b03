"""What int8 costs a model that writes, by how much is moved from activations to weights before.

    python benchmarks/int8_writers.py ~/.cache/instructrec/models/flan-t5 --out FILE

Behind each of the parity gate's texts stand the tokens that the checkpoint writes, and one step
reads them all. Calibrated on other texts. Differences: of the most different logit of a text, over
the largest one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from instructrec_deploy.core.bundle import DECODER_FILE, ENCODER_FILE
from instructrec_deploy.export import equalize
from instructrec_deploy.export.equalize import Feed
from instructrec_deploy.export.generator_calibration import calibration_feeds
from instructrec_deploy.export.generator_graphs import generator_graphs
from instructrec_deploy.export.generator_parity import TEXTS
from instructrec_deploy.export.imports import generator_kind
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.models.generator import load_generator
from instructrec_deploy.runtime.providers import CPU, open_session

Graphs = Mapping[str, onnx.ModelProto]
STRENGTHS = (0.35, 0.5, 0.65, 0.8)


def logits_of(
    graphs: Graphs, feeds: Mapping[str, list[Feed]], work: Path
) -> npt.NDArray[np.float32]:
    """[N, V]: of the last token of each text."""
    sessions: dict[str, Any] = {}
    for name, graph in graphs.items():
        onnx.save(graph, work / "graph.onnx")
        sessions[name] = open_session(work / "graph.onnx", providers=[CPU], n_threads=2)
    found = []
    for place, feed in enumerate(feeds[DECODER_FILE]):
        read = dict(feed)
        if encoder := sessions.get(ENCODER_FILE):
            names = [output.name for output in encoder.get_outputs()]
            tensors = encoder.run(names, feeds[ENCODER_FILE][place])
            read.update(zip(names, tensors, strict=True))
        found.append(sessions[DECODER_FILE].run(["logits"], read)[0][0])
    return np.stack(found)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of transformers")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    kind = generator_kind(given.folder)
    if kind is None:
        parser.error(f"{given.folder}: this model writes nothing")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        generator = load_generator(given.folder, kind=kind, work=work)
        graphs = generator_graphs(generator, work=work)
        feeds, held = calibration_feeds(generator), calibration_feeds(generator, TEXTS)
        truth = logits_of(graphs, held, work)

        def figures(tried: Graphs) -> dict[str, float]:
            ours = logits_of({n: quantize_graph(g)[0] for n, g in tried.items()}, held, work)
            differences = np.abs(ours - truth).max(axis=-1) / np.abs(truth).max(axis=-1)
            return {
                "mean": round(float(differences.mean()), 4),
                "max": round(float(differences.max()), 4),
                "same_token": round(float((ours.argmax(-1) == truth.argmax(-1)).mean()), 4),
            }

        result: dict[str, Any] = {"model": given.folder.name, "not equalized": figures(graphs)}
        for strength in STRENGTHS:
            equalize.STRENGTH = strength
            result[f"strength {strength}"] = figures(
                {n: equalize.equalize_graph(g, feeds[n], work=work) for n, g in graphs.items()}
            )
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

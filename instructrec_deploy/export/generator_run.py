"""`export_generator`: a folder of transformers that writes becomes a bundle.

folder -> encoder and decoder graphs with a key-value cache -> parity gate -> golden pairs, card
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from instructrec_deploy.core.bundle import (
    CARD_FILE,
    EVALUATION_FILE,
    GOLDEN_FILE,
    SAFETY_FILE,
    TASKS_FILE,
    TOKENIZER_FILE,
    Bundle,
    open_bundle,
)
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.manifest import (
    FORMAT_VERSION,
    WEIGHT_BITS,
    GeneratorKind,
    Manifest,
    ModelSection,
    Precision,
)
from instructrec_deploy.evaluation.writer_card import write_writer_card
from instructrec_deploy.export.equalize import equalize_graph
from instructrec_deploy.export.generator_calibration import CALIBRATION_TEXTS, calibration_feeds
from instructrec_deploy.export.generator_graphs import generator_graphs
from instructrec_deploy.export.generator_parity import (
    LIMITS,
    TEXTS,
    GeneratorParity,
    check_generator_parity,
)
from instructrec_deploy.export.half import half_graph
from instructrec_deploy.export.pack import (
    check_target,
    content_version,
    file_entries,
    staged_folder,
    write_json,
    write_manifest,
)
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.export.quantize_weights import quantize_weights
from instructrec_deploy.export.report import Report
from instructrec_deploy.export.run import MAX_CALIBRATION, Stages
from instructrec_deploy.export.source import weights_hash
from instructrec_deploy.models.generator import Generator, load_generator
from instructrec_deploy.runtime.golden_texts import GoldenText, check_golden_texts, golden_lines
from instructrec_deploy.runtime.writer import Writer
from instructrec_deploy.safety.policy import default_policy_text
from instructrec_deploy.tasks.base import Ints

N_GOLDEN = 6  # texts: loading runs them all, a step a token
# How far a log probability of a golden token may stray on another processor. int8: a value near
# the edge of two of 256 steps may tip over.
GOLDEN_TOLERANCE: Mapping[Precision, float] = {
    "fp32": 1e-2,
    "fp16": 0.1,
    "int8": 0.2,
    "int8-weights": 1e-2,
    "int4-weights": 1e-2,
}
MAX_GRAPH_BYTES = 2**31 - 2**24  # an ONNX file is one protobuf message; some room for its nodes


GeneratorReport = Report[GeneratorParity]


def export_generator(
    folder: Path,
    out: Path,
    *,
    kind: GeneratorKind,
    precision: Precision = "fp32",
    name: str = "",
    calibration: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> GeneratorReport:
    """Export a folder of transformers that writes to a bundle folder.

    Args:
        folder: `config.json`, weights in safetensors, a tokenizer.
        out: the bundle; a bundle that is there already is replaced, anything else is refused.
        kind: seq2seq or causal.
        precision: of the weights.
        name: of the bundle; "" takes the folder's.
        calibration: texts like those it will read (int8); () takes a list that comes along.
        progress: told what is being done, a line for each stage.
        clock: seconds, monotonic.

    Raises:
        ConfigError: it cannot be loaded, is too large for one file, or `out` holds something else.
        ParityFailed: the graphs do not write as the checkpoint; nothing was written.
    """
    check_target(out)
    stages = Stages(progress, clock)
    stages.begin("loading the checkpoint")
    with staged_folder(out) as stage:
        with tempfile.TemporaryDirectory(prefix=".writer.", dir=stage.parent) as work:
            generator = load_generator(folder, kind=kind, work=Path(work))
            shutil.copyfile(generator.tokenizer_path, stage / TOKENIZER_FILE)
        generator = replace(generator, tokenizer_path=stage / TOKENIZER_FILE)
        _check_size(generator, folder)
        stages.begin("tracing the graphs")
        graphs = generator_graphs(generator, work=stage)
        if precision != "fp32":
            stages.begin(f"quantizing to {precision}")
            graphs = _quantized(graphs, precision, generator, calibration, stage)
        _write(graphs, stage)
        manifest = _manifest(generator, folder, stage, name=name, precision=precision)
        write_manifest(stage, manifest)
        stages.begin("comparing with the checkpoint")
        bundle = open_bundle(stage)
        parity, tokens = check_generator_parity(bundle, generator, limits=LIMITS[precision])
        stages.begin("writing golden pairs and card")
        n_golden = _write_golden(bundle, tokens)
        manifest = _finish(stage, manifest, _figures(generator, precision, parity))
    return GeneratorReport(
        out=out,
        name=manifest.name,
        version=manifest.version,
        precision=precision,
        size_bytes=sum(entry.size_bytes for entry in manifest.files.values()),
        n_parameters=generator.n_parameters,
        n_golden=n_golden,
        parity=parity,
        seconds=stages.end(),
    )


def _quantized(
    graphs: Mapping[str, onnx.ModelProto],
    precision: Precision,
    generator: Generator,
    calibration: Sequence[str],
    work: Path,
) -> dict[str, onnx.ModelProto]:
    if bits := WEIGHT_BITS.get(precision):
        n_words = generator.section.n_vocabulary
        return {
            file: quantize_weights(graph, bits=bits, n_words=n_words)[0]
            for file, graph in graphs.items()
        }
    if precision == "fp16":
        return {file: half_graph(graph) for file, graph in graphs.items()}
    feeds = calibration_feeds(generator, calibration[:MAX_CALIBRATION] or CALIBRATION_TEXTS)
    return {
        file: quantize_graph(equalize_graph(graph, feeds[file], work=work))[0]
        for file, graph in graphs.items()
    }


def _check_size(generator: Generator, folder: Path) -> None:
    size = 4 * generator.n_parameters
    if size > MAX_GRAPH_BYTES:
        raise ConfigError(
            f"{folder}: {generator.n_parameters / 1e6:.0f} million parameters are "
            f"{size / 1e9:.1f} GB, more than one ONNX file holds",
            hint="models of up to 500 million parameters are exported",
        )


def _write(graphs: Mapping[str, onnx.ModelProto], stage: Path) -> None:
    for file, graph in graphs.items():
        (stage / file).parent.mkdir(exist_ok=True)
        onnx.save(graph, stage / file)
    (stage / TASKS_FILE).write_text("", encoding="utf-8")
    (stage / SAFETY_FILE).write_text(default_policy_text(), encoding="utf-8")
    (stage / GOLDEN_FILE).write_text("", encoding="utf-8")


def _manifest(
    generator: Generator, folder: Path, stage: Path, *, name: str, precision: Precision
) -> Manifest:
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name or folder.resolve().name,
        version=content_version(stage),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        model=ModelSection(
            kind=generator.kind,
            precision=precision,
            hidden_size=generator.hidden_size,
            max_tokens=generator.max_tokens,
            pad_id=generator.pad_id,
            base=folder.resolve().name,
            n_parameters=generator.n_parameters,
            generation=generator.section,
        ),
        score_tolerance=GOLDEN_TOLERANCE[precision],
        parent_sha256=weights_hash(folder),
        files=file_entries(stage),
    )


def _write_golden(bundle: Bundle, tokens: Ints) -> int:
    """The checkpoint's tokens behind the first texts, as likely as the bundle finds them."""
    pairs = []
    with Writer(bundle) as writer:
        for text, written in zip(TEXTS[:N_GOLDEN], tokens.tolist(), strict=False):
            ids = writer.tokenizer.encode_texts([text], use_offsets=False)[0].ids
            found = writer.log_probabilities(ids, written)
            pairs.append(GoldenText(text, tuple(written), tuple(found.tolist())))
    (bundle.root / GOLDEN_FILE).write_text(golden_lines(pairs), encoding="utf-8")
    return len(pairs)


def _figures(generator: Generator, precision: Precision, parity: GeneratorParity) -> dict[str, Any]:
    return {
        "export": {
            "precision": precision,
            "writer_parity": parity.to_dict(),
            "unfollowed": list(generator.unfollowed),
        }
    }


def _finish(stage: Path, manifest: Manifest, evaluation: Mapping[str, Any]) -> Manifest:
    """Write evaluation, card and the last manifest; load the bundle as its user will."""
    write_json(stage / EVALUATION_FILE, evaluation)
    manifest = manifest.model_copy(update={"files": file_entries(stage)})
    card = write_writer_card(manifest, evaluation)
    (stage / CARD_FILE).write_text(card, encoding="utf-8")
    manifest = manifest.model_copy(update={"files": file_entries(stage)})
    write_manifest(stage, manifest)
    bundle = open_bundle(stage)
    with Writer(bundle) as writer:
        check_golden_texts(bundle, writer)
    return manifest

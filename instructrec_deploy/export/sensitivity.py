"""Which parts of an encoder int8 costs most, measured one by one, and which stay in floats for it.

Shapes: B texts, T tokens, C candidates, H hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import SHAPES, Shape
from instructrec_deploy.export.graphs import score_scale
from instructrec_deploy.export.products import Floats, as_product, constants_of
from instructrec_deploy.export.quantize import as_table
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.runtime.providers import CPU, available_cores, open_session

Ints = npt.NDArray[np.int64]
Batches = Sequence[Mapping[str, Ints]]
SAY_EVERY = 10
MODULE = re.compile(r"/?(.+)/(?:MatMul|Gemm|Gather)(?:_\d+)?_output_0")
Quantize = Callable[[Collection[str]], onnx.ModelProto]  # with what stays in floats


class Scorer(Protocol):
    """What an encoder's outputs say about a batch, as log probabilities."""

    def __call__(self, outputs: Mapping[str, Floats], mask: Ints) -> list[Floats]:
        """Those of each question [N, C], of a text or of a token that is no padding each."""


@dataclass(frozen=True, slots=True)
class Part:
    """A product or a table of the encoder."""

    name: str  # of its module
    output: str  # of its node
    n_weights: int
    divergence: float = 0.0  # nats, with this part alone in int8


@dataclass(frozen=True, slots=True)
class Mixture:
    """What was measured, and what stays in floats."""

    limit: float  # nats
    all_int8: float  # divergence with every part in int8
    divergence: float  # with the kept ones in floats
    kept: tuple[str, ...]
    parts: tuple[Part, ...]  # the dearest first

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {
            "max_divergence": self.limit,
            "divergence_all_int8": round(self.all_int8, 8),
            "divergence": round(self.divergence, 8),
            "kept": list(self.kept),
            "parts": [
                {"part": p.name, "n_weights": p.n_weights, "divergence": round(p.divergence, 8)}
                for p in self.parts
            ],
        }


def choose_mixture(
    model: onnx.ModelProto,
    quantize: Quantize,
    batches: Batches,
    scorer: Scorer,
    *,
    limit: float,
    work: Path,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[onnx.ModelProto, Mixture]:
    """Quantize an encoder, but for the parts that cost most, until what it says holds.

    Each part is quantized alone, then all are. Where all together diverge by more than the limit,
    the dearest by themselves stay in floats, as few as do.

    Args:
        model: the float graph that `quantize` starts from.
        quantize: makes the int8 graph; what it is given stays in floats, by name of the node's
            output.
        batches: inputs for calibration.
        scorer: what is held against what the floats say.
        limit: nats, the mean over texts and questions of the Kullback-Leibler divergence.
        work: a folder for temporary graphs.
        say: told what is being done.

    Returns:
        The graph, and what was measured.
    """
    probe = _Probe(batches, scorer, work)
    truth = probe.answers(model)
    found = {part.output: part for part in parts_of(model.graph)}

    def divergence(kept: Collection[str]) -> float:
        return mean_divergence(truth, probe.answers(quantize(kept)))

    costs: dict[str, float] = {}
    for number, output in enumerate(found, 1):
        if number % SAY_EVERY == 1:
            say(f"part {number} of {len(found)}")
        costs[output] = divergence(found.keys() - {output})
    order = sorted(found, key=lambda output: -costs[output])
    all_int8 = divergence(())
    n_kept, reached = _fewest(order, divergence, all_int8, limit)
    parts = tuple(replace(found[output], divergence=costs[output]) for output in order)
    kept = tuple(part.name for part in parts[:n_kept])
    return quantize(order[:n_kept]), Mixture(limit, all_int8, reached, kept, parts)


def parts_of(graph: onnx.GraphProto) -> Iterator[Part]:
    """What `quantize_graph` quantizes."""
    constants = constants_of(graph)
    for node in graph.node:
        product, table = as_product(node, constants), as_table(node, constants)
        weight = product.weight if product is not None else table
        if weight is not None:
            module = MODULE.match(node.output[0])
            name = module.group(1) if module else node.output[0]
            yield Part(name, node.output[0], weight.size)


def scorer_of(reference: Reference, tasks: Mapping[str, TaskSpec]) -> Scorer:
    """What the outputs of a checkpoint's encoder say.

    A head says its logits. An instruction encoder answers each task that has labels: the cosine
    with its candidates, the fusion's part left out.

    Raises:
        ConfigError: no task has labels.
    """
    model = reference.model
    if not isinstance(model, InstructionEncoder):
        return lambda outputs, mask: [log_softmax(_of_text(outputs["logits"], mask))]
    scale = score_scale(model)
    asked = [
        reference.candidate_vectors(name, spec).numpy()
        for name, spec in tasks.items()
        if spec.labels and SHAPES[spec.kind] is not Shape.EXTRACT
    ]
    if not asked:
        raise ConfigError(
            "max_divergence needs a task with labels, and there is none to measure by",
            hint="take max_divergence out of [quantize]",
        )
    return lambda outputs, mask: [
        log_softmax(scale * outputs["pooled"] @ vectors.T) for vectors in asked
    ]


def _of_text(logits: Floats, mask: Ints) -> Floats:
    """[B, C] as they are; [B, T, C] without padding."""
    return logits if logits.ndim == 2 else logits[mask > 0]


def mean_divergence(truth: Sequence[Floats], found: Sequence[Floats]) -> float:
    """Mean Kullback-Leibler divergence, nats, of log probabilities [..., C] from the true ones."""
    sums = [
        (np.exp(t) * (t - f)).sum(axis=-1).reshape(-1) for t, f in zip(truth, found, strict=True)
    ]
    return float(np.concatenate(sums).mean())


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def _fewest(
    order: Sequence[str], divergence: Callable[[Collection[str]], float], none: float, limit: float
) -> tuple[int, float]:
    """How many of the dearest must stay in floats, and the divergence that leaves, by halving."""
    if none <= limit:
        return 0, none
    low, high, reached = 0, len(order), 0.0  # with all of them it is the float graph
    while high - low > 1:
        middle = (low + high) // 2
        found = divergence(order[:middle])
        if found <= limit:
            high, reached = middle, found
        else:
            low = middle
    return high, reached


class _Probe:
    """Runs graphs on the calibration texts."""

    def __init__(self, batches: Batches, scorer: Scorer, work: Path) -> None:
        self._batches = batches
        self._scorer = scorer
        self._path = work / "sensitivity.onnx"

    def answers(self, model: onnx.ModelProto) -> list[Floats]:
        """Log probabilities of all batches and questions."""
        names = [output.name for output in model.graph.output]
        onnx.save(model, self._path)
        try:
            session = open_session(self._path, providers=[CPU], n_threads=available_cores())
            found: list[Floats] = []
            for batch in self._batches:
                outputs = dict(zip(names, session.run(names, dict(batch)), strict=True))
                found += self._scorer(outputs, batch["attention_mask"])
        finally:
            self._path.unlink(missing_ok=True)
        return found

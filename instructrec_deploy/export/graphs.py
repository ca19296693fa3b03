"""A checkpoint's float graphs: torch modules traced to ONNX, their attention fused.

Shapes: B texts, T tokens, C candidates, H hidden size, M memories (1 or B), K tokens of one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from instructrec_deploy.core.bundle import (
    ENCODER_FILE,
    FUSION_FILE,
    PREPARE_FILE,
    READER_FILE,
)
from instructrec_deploy.core.manifest import SPAN_HEADS
from instructrec_deploy.export.onnx_model import OnnxModel, adapt_graph
from instructrec_deploy.export.products import declare_microsoft
from instructrec_deploy.models.checkpoint import Checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder, LateFusion
from instructrec_deploy.models.span_reader import SpanReader
from instructrec_deploy.runtime.providers import load_onnxruntime

OPSET = 17  # what the fusion patterns of ONNX Runtime's optimizer know
EXAMPLE_TOKENS = 7  # of the traced example; the axes are dynamic
TEXT_AXES = {0: "batch", 1: "tokens"}
CANDIDATE_AXES = {0: "candidates"}
MEMORY_AXES = {0: "memories", 1: "words"}
LOGGERS = ("onnxruntime", "onnxruntime.transformers", "torch.onnx", "fusion_base", "onnx_model")


class _Encode(nn.Module):
    """input_ids, attention_mask -> token_states, pooled."""

    def __init__(self, model: InstructionEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(input_ids, attention_mask)


class _EncodeLevels(nn.Module):
    """input_ids, attention_mask -> token_states, pooled, lower_states."""

    def __init__(self, model: InstructionEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.encode_levels(input_ids, attention_mask)


class _Classify(nn.Module):
    """input_ids, attention_mask -> logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return logits


class _Prepare(nn.Module):
    """candidate_vectors -> fusion_queries, fusion_values."""

    def __init__(self, fusion: LateFusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, candidate_vectors: Tensor) -> tuple[Tensor, Tensor]:
        return self.fusion.prepare(candidate_vectors)


class _Fuse(nn.Module):
    """Token states, pooled and candidates -> final logits, scale included."""

    def __init__(self, fusion: LateFusion, scale: float) -> None:
        super().__init__()
        self.fusion = fusion
        self.scale = scale

    def forward(
        self,
        token_states: Tensor,
        attention_mask: Tensor,
        pooled: Tensor,
        candidate_vectors: Tensor,
        fusion_queries: Tensor,
        fusion_values: Tensor,
    ) -> Tensor:
        cosine = self.scale * pooled @ candidate_vectors.T
        fused: Tensor = self.fusion(token_states, attention_mask, fusion_queries, fusion_values)
        return cosine + fused


def score_scale(model: InstructionEncoder) -> float:
    """What the cosine is multiplied with."""
    return float(model.log_scale.detach().exp())


def has_fusion(model: InstructionEncoder) -> bool:
    """Whether the fusion adds anything: one that still stands at zero is left out."""
    fusion = model.fusion
    if fusion is None:
        return False
    return bool(fusion.output.weight.detach().any() or fusion.output.bias.detach().any())


def float_graphs(checkpoint: Checkpoint, *, work: Path) -> dict[str, onnx.ModelProto]:
    """Trace a checkpoint's model; attention is fused where its pattern is known.

    Args:
        checkpoint: its model is put into evaluation mode with plain attention.
        work: a folder for temporary files.

    Returns:
        Models by their path in the bundle.
    """
    model: Any = checkpoint.model
    section = checkpoint.section
    n_heads = section.kept_heads or section.n_heads
    width = section.hidden_size // section.n_heads * n_heads
    if isinstance(model, OnnxModel):
        adapted = adapt_graph(model)
        return {ENCODER_FILE: fuse_attention(adapted, n_heads=n_heads, hidden_size=width)}
    is_encoder = isinstance(model, InstructionEncoder)
    # The optimizer knows attention by its plain form, not by the one fused in torch.
    model.set_attn_implementation("eager")
    model.eval()
    ids = torch.full((2, EXAMPLE_TOKENS), max(3, checkpoint.section.pad_id + 1))
    mask = torch.ones_like(ids)
    wrapped, outputs = _wrapped(model, tags_tokens=checkpoint.section.kind in SPAN_HEADS)
    traced = trace_module(
        wrapped,
        {"input_ids": (ids, TEXT_AXES), "attention_mask": (mask, TEXT_AXES)},
        outputs,
        work=work,
    )
    graphs = {ENCODER_FILE: fuse_attention(traced, n_heads=n_heads, hidden_size=width)}
    if is_encoder and has_fusion(model):
        graphs |= _fusion_graphs(model, ids, mask, work)
    if is_encoder and model.reader is not None:
        graphs[READER_FILE] = _reader_graph(model.reader, model.hidden_size, mask, work)
    return graphs


def _wrapped(model: Any, *, tags_tokens: bool) -> tuple[nn.Module, dict[str, Mapping[int, str]]]:
    """The module to trace, and the dynamic axes of its outputs."""
    if not isinstance(model, InstructionEncoder):
        return _Classify(model), {"logits": TEXT_AXES if tags_tokens else {0: "batch"}}
    outputs: dict[str, Mapping[int, str]] = {"token_states": TEXT_AXES, "pooled": {0: "batch"}}
    if model.reader is None:
        return _Encode(model), outputs
    return _EncodeLevels(model), outputs | {"lower_states": TEXT_AXES}


def fuse_attention(model: onnx.ModelProto, *, n_heads: int, hidden_size: int) -> onnx.ModelProto:
    """Merge each attention and each GELU into one node; an unknown pattern stays as it is.

    `hidden_size` is that of the attention: less than the model's where heads were pruned.

    Attention becomes MultiHeadAttention, whose weights stay in products of their own, so that they
    can be quantized. SkipLayerNormalization stays off: its kernel is several times slower on CPU
    than the Add and LayerNormalization it replaces.
    """
    load_onnxruntime()  # first: it switches the telemetry off
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    options.use_multi_head_attention = True
    options.use_raw_attention_mask(True)  # any mask, not only padding at the end
    options.enable_skip_layer_norm = False
    options.enable_embed_layer_norm = False
    with _quiet():
        optimized = optimize_model(
            model,
            model_type="bert",
            num_heads=n_heads,
            hidden_size=hidden_size,
            optimization_options=options,
            opt_level=0,  # ONNX Runtime does the rest when it loads the graph
        )
    fused: onnx.ModelProto = optimized.model
    declare_microsoft(fused)
    return fused


def _fusion_graphs(
    model: InstructionEncoder, ids: Tensor, mask: Tensor, work: Path
) -> dict[str, onnx.ModelProto]:
    fusion = model.fusion
    assert fusion is not None
    with torch.no_grad():
        states, pooled = model.encode(ids, mask)
        vectors = nn.functional.normalize(torch.ones(3, model.hidden_size), dim=-1)
        queries, values = fusion.prepare(vectors)
    candidates = {
        "candidate_vectors": (vectors, CANDIDATE_AXES),
        "fusion_queries": (queries, CANDIDATE_AXES),
        "fusion_values": (values, CANDIDATE_AXES),
    }
    texts = {
        "token_states": (states, TEXT_AXES),
        "attention_mask": (mask, TEXT_AXES),
        "pooled": (pooled, {0: "batch"}),
    }
    return {
        PREPARE_FILE: trace_module(
            _Prepare(fusion),
            {"candidate_vectors": (vectors, CANDIDATE_AXES)},
            {"fusion_queries": CANDIDATE_AXES, "fusion_values": CANDIDATE_AXES},
            work=work,
        ),
        FUSION_FILE: trace_module(
            _Fuse(fusion, score_scale(model)),
            texts | candidates,
            {"scores": {0: "batch", 1: "candidates"}},
            work=work,
        ),
    }


def _reader_graph(
    reader: SpanReader, hidden_size: int, mask: Tensor, work: Path
) -> onnx.ModelProto:
    """lower_states, attention_mask, memory, memory_mask, candidate_vectors -> span_scores."""
    n_texts, n_tokens = mask.shape
    inputs = {
        "lower_states": (torch.ones(n_texts, n_tokens, hidden_size), TEXT_AXES),
        "attention_mask": (mask, TEXT_AXES),
        "memory": (torch.ones(1, 5, hidden_size), MEMORY_AXES),
        "memory_mask": (torch.ones(1, 5, dtype=torch.int64), MEMORY_AXES),
        "candidate_vectors": (torch.ones(1, 3, hidden_size), {0: "memories", 1: "candidates"}),
    }
    axes = {0: "batch", 1: "tokens", 2: "candidates"}
    return trace_module(reader, inputs, {"span_scores": axes}, work=work)


def trace_module(
    module: nn.Module,
    inputs: Mapping[str, tuple[Tensor, Mapping[int, str]]],
    outputs: Mapping[str, Mapping[int, str]],
    *,
    work: Path,
) -> onnx.ModelProto:
    """Export by tracing one example; named axes are dynamic."""
    axes = {name: dict(axis) for name, (_, axis) in inputs.items()}
    axes |= {name: dict(axis) for name, axis in outputs.items()}
    path = work / "traced.onnx"
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            module.eval(),  # the exporter puts a fresh module back into training mode otherwise
            tuple(tensor for tensor, _ in inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    path.unlink()
    return model


@contextmanager
def _quiet(names: Sequence[str] = LOGGERS) -> Iterator[None]:
    """The tools' own remarks are of no use to who exports; errors still come through."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

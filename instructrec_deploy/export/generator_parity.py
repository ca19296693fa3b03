"""The gate of a model that writes: do the graphs with their cache say what the checkpoint says?

The checkpoint reads each text alone and all of it anew at every step, without a cache; the graphs
read texts of mixed lengths in batches, then one token at a time. Both are given the tokens that
the checkpoint finds likeliest.

Shapes: N texts, S steps (the first reads the text, the others one token each), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import ParityFailed
from instructrec_deploy.core.manifest import Precision
from instructrec_deploy.export.report import judge
from instructrec_deploy.export.samples import CHINESE, ENGLISH
from instructrec_deploy.models.generator import Generator
from instructrec_deploy.runtime.decoding import Decoder
from instructrec_deploy.tasks.base import Floats, Ints

N_STEPS = 5
N_ALONE = 6  # texts that are also asked alone
BATCH_TEXTS = 8
TIE = 1e-4  # of the largest logit: tokens as near as that are equally likely
TEXTS = tuple(text for pair in zip(ENGLISH, CHINESE, strict=True) for text in pair)


@dataclass(frozen=True, slots=True)
class GeneratorLimits:
    """What an export may change at most. Differences are of logits, over the largest of a step."""

    max_difference: float
    mean_difference: float  # of a step's most different logit, over all texts and steps
    min_agreement: float  # share of steps whose likeliest token is the checkpoint's
    max_batch_difference: float  # between a text alone and in a batch of mixed lengths


LIMITS: dict[Precision, GeneratorLimits] = {
    "fp32": GeneratorLimits(1e-4, 1e-4, 1.0, 1e-4),
    # What fewer bits cost is measured and told; how much of it a use can bear, only its texts say.
    # That company changes nothing is held in any case.
    "fp16": GeneratorLimits(math.inf, math.inf, 0.0, 5e-3),
    "int8": GeneratorLimits(math.inf, math.inf, 0.0, 1e-3),
    "int8-weights": GeneratorLimits(math.inf, math.inf, 0.0, 1e-3),
    "int4-weights": GeneratorLimits(math.inf, math.inf, 0.0, 1e-3),
}


@dataclass(frozen=True, slots=True)
class GeneratorParity:
    """What the gate measured."""

    n_texts: int
    n_steps: int  # of each text, the reading of it included
    agreement: float
    max_difference: float
    mean_difference: float
    batch_difference: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {key: round(value, 8) for key, value in asdict(self).items()}


def check_generator_parity(
    bundle: Bundle,
    generator: Generator,
    *,
    limits: GeneratorLimits,
    texts: Sequence[str] = TEXTS,
) -> tuple[GeneratorParity, Ints]:
    """Compare the bundle with its checkpoint.

    Returns:
        The figures, and the checkpoint's likeliest tokens [N, S].

    Raises:
        ParityFailed: a limit is passed; the message has all figures.
    """
    encoded = generator.open_tokenizer().encode_texts(texts, use_offsets=False)
    n_steps = _room_for(generator, max(len(one.ids) for one in encoded))
    ids = [one.ids for one in encoded]
    truth = np.stack([_truth(generator, one, n_steps) for one in ids])
    tokens: Ints = truth.argmax(axis=-1)
    decoder = Decoder(bundle)
    try:
        batches = [slice(at, at + BATCH_TEXTS) for at in range(0, len(ids), BATCH_TEXTS)]
        ours = np.concatenate([_logits(decoder, ids[part], tokens[part]) for part in batches])
        alone = [_logits(decoder, [ids[n]], tokens[n : n + 1])[0] for n in range(N_ALONE)]
    finally:
        decoder.close()
    differences = _relative(ours, truth)
    report = GeneratorParity(
        n_texts=len(ids),
        n_steps=n_steps,
        agreement=_agreement(ours, truth, tie=TIE),
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        batch_difference=float(_relative(ours[:N_ALONE], np.stack(alone)).max()),
    )
    _judge(report, limits)
    return report, tokens


def _room_for(generator: Generator, n_tokens: int) -> int:
    """Steps that the decoder's positions allow behind the longest text."""
    room = generator.section.max_positions
    before = 1 if generator.kind == "seq2seq" else n_tokens
    n_steps = min(N_STEPS, room - before) if room else N_STEPS
    if n_steps < 2:
        raise ParityFailed(
            f"the model knows {room} positions: too few to compare a step behind {before} tokens",
            hint="export a model that reads more tokens",
        )
    return n_steps


@torch.no_grad()
def _truth(generator: Generator, text: Sequence[int], n_steps: int) -> Floats:
    """[S, V]: the checkpoint's logits, each step from all tokens before it."""
    ids = torch.tensor([text])
    known = ids if generator.kind == "causal" else torch.tensor([[generator.section.start_id]])
    found = []
    for _ in range(n_steps):
        read = (
            {"input_ids": known}
            if generator.kind == "causal"
            else {"input_ids": ids, "decoder_input_ids": known}
        )
        logits = generator.model(**read, use_cache=False).logits[:, -1]
        known = torch.cat([known, logits.argmax(-1, keepdim=True)], dim=1)
        found.append(logits[0].float().numpy())
    return np.stack(found)


def _logits(decoder: Decoder, texts: Sequence[Sequence[int]], tokens: Ints) -> Floats:
    """[n, S, V]: the graphs' logits, given the tokens [n, S]."""
    logits, cache = decoder.begin(texts)
    found = [logits]
    for step in range(tokens.shape[1] - 1):
        logits, cache = decoder.step(tokens[:, step].tolist(), cache)
        found.append(logits)
    return np.stack(found, axis=1)


def _relative(ours: Floats, theirs: Floats) -> Floats:
    """[n, S]: the largest difference of a step over its largest logit."""
    found: Floats = np.abs(ours - theirs).max(axis=-1) / np.abs(theirs).max(axis=-1)
    return found


def _agreement(ours: Floats, theirs: Floats, *, tie: float) -> float:
    """Share of steps with the checkpoint's likeliest token, or one as good as tied with it."""
    chosen = np.take_along_axis(theirs, ours.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    missing = (theirs.max(axis=-1) - chosen) / np.abs(theirs).max(axis=-1)
    return float((missing <= tie).mean())


def _judge(report: GeneratorParity, limits: GeneratorLimits) -> None:
    judge(
        f"the graphs do not write as their checkpoint, {report.n_texts} texts",
        (
            ("steps with the same token", report.agreement, limits.min_agreement, True),
            ("largest difference", report.max_difference, limits.max_difference, False),
            ("mean difference", report.mean_difference, limits.mean_difference, False),
            ("alone against batched", report.batch_difference, limits.max_batch_difference, False),
        ),
    )

"""The graphs of a model that writes: read texts, then one token after another, with a cache.

A seq2seq bundle has two graphs: the encoder reads the texts and gives what every layer of the
decoder attends to in them; the decoder makes one step. A causal bundle has the decoder alone, whose
first step reads the whole text. Why so: docs/adr/0012-graphs-that-write.md.

Shapes: R rows (texts, or the beams of texts), T tokens of a text, S new tokens, P tokens in the
cache, A heads of the cache, D their size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from instructrec_deploy.core.bundle import DECODER_FILE, ENCODER_FILE, Bundle
from instructrec_deploy.core.errors import BundleError, InternalError
from instructrec_deploy.runtime import providers
from instructrec_deploy.tasks.base import Floats, Ints

PAST = ("past_key", "past_value")  # inputs of the decoder, a pair for each layer: past_key_0 ...
PRESENT = ("present_key", "present_value")  # the same with the new tokens, its outputs
CROSS = ("cross_key", "cross_value")  # of the text; outputs of the encoder, inputs of the decoder


def cache_names(pair: tuple[str, str], n_layers: int) -> list[str]:
    """Names of a cache's tensors, layer by layer, keys first."""
    return [f"{name}_{layer}" for layer in range(n_layers) for name in pair]


@dataclass(frozen=True, slots=True)
class Cache:
    """What is known of the rows so far; never changed, only replaced."""

    past: tuple[Floats, ...]  # [R, A, P, D], keys and values of each layer in turn
    mask: Ints  # [R, P], of the cache; [R, T], of the text, where the model is seq2seq
    cross: tuple[Floats, ...] = ()  # [R, A, T, D]; seq2seq

    def rows(self, rows: Sequence[int]) -> Cache:
        """The same for some rows, in this order; a row may come several times."""
        index = np.asarray(rows, np.int64)
        if np.array_equal(index, np.arange(len(self.mask))):
            return self
        past, cross = (tuple(a[index] for a in arrays) for arrays in (self.past, self.cross))
        return Cache(past, self.mask[index], cross)


class Decoder:
    """The open graphs of one bundle that writes. Safe to share between threads.

    Args:
        bundle: of kind seq2seq or causal.
        n_threads: inside one operator; 0: as many as there are cores.
        provider: of onnxruntime.

    Raises:
        BundleError: the bundle does not write, or a graph cannot be opened or is another one.
        MissingExtra: onnxruntime, or CUDA where asked for, is not there.
    """

    def __init__(
        self, bundle: Bundle, *, n_threads: int = 0, provider: providers.Provider = "auto"
    ) -> None:
        model = bundle.manifest.model
        if model.generation is None:
            raise BundleError(
                f"bundle {bundle.manifest.name!r} (kind {model.kind}) writes no text",
                hint="ask it with Predictor, or serve it",
            )
        self.model = model
        self.generation = model.generation
        self.is_seq2seq = model.kind == "seq2seq"
        self._errors = providers.engine_errors()
        chosen = providers.choose_providers(
            provider, providers.load_onnxruntime().get_available_providers()
        )
        threads = n_threads or providers.available_cores()

        def open_graph(name: str) -> Any:
            return providers.open_session(
                bundle.path(name),
                providers=chosen,
                n_threads=threads,
                is_half=model.precision == "fp16",
            )

        self._decoder = open_graph(DECODER_FILE)
        self._encoder = open_graph(ENCODER_FILE) if self.is_seq2seq else None
        n_layers = self.generation.n_layers
        self._past = cache_names(PAST, n_layers)
        self._present = cache_names(PRESENT, n_layers)
        self._cross = cache_names(CROSS, n_layers) if self.is_seq2seq else []
        self._check_names()

    def begin(self, texts: Sequence[Sequence[int]]) -> tuple[Floats, Cache]:
        """Read texts.

        Args:
            texts: token ids, control tokens included; none of them empty.

        Returns:
            Logits [R, V] of each text's first token, and the cache.

        Raises:
            InternalError: a graph failed.
        """
        ids, mask = self._pad(texts)
        shape = (len(ids), self.generation.n_heads, 0, self.generation.head_size)
        empty = tuple(np.zeros(shape, np.float32) for _ in self._past)
        if not self.is_seq2seq:
            return self._step(ids, Cache(empty, mask[:, :0]), mask)
        feed = {"input_ids": ids, "attention_mask": mask}
        cross = tuple(self._run(self._encoder, self._cross, feed))
        start = np.full((len(ids), 1), self.generation.start_id, np.int64)
        return self._step(start, Cache(empty, mask, cross), mask)

    def step(self, tokens: Sequence[int], cache: Cache) -> tuple[Floats, Cache]:
        """Add a token to each row.

        Args:
            tokens: R ids, one for each row of the cache.
            cache: from `begin` or `step`.

        Returns:
            Logits [R, V] of the next token, and the cache with the new ones.

        Raises:
            InternalError: a graph failed.
        """
        ids = np.asarray(tokens, np.int64)[:, None]
        mask = cache.mask
        if not self.is_seq2seq:
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
        return self._step(ids, cache, mask)

    def close(self) -> None:
        """Give the sessions' memory back. Nothing may be run afterwards."""
        self._decoder = self._encoder = None

    def _step(self, ids: Ints, cache: Cache, mask: Ints) -> tuple[Floats, Cache]:
        feed: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        feed |= dict(zip(self._past, cache.past, strict=True))
        feed |= dict(zip(self._cross, cache.cross, strict=True))
        logits, *past = self._run(self._decoder, ["logits", *self._present], feed)
        return logits, replace(cache, past=tuple(past), mask=mask)

    def _pad(self, texts: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
        """Padding stands behind a text that an encoder reads, and before one that goes on."""
        n_tokens = max(len(text) for text in texts)
        ids = np.full((len(texts), n_tokens), self.model.pad_id, np.int64)
        mask = np.zeros((len(texts), n_tokens), np.int64)
        for row, text in enumerate(texts):
            first = 0 if self.is_seq2seq else n_tokens - len(text)
            ids[row, first : first + len(text)] = text
            mask[row, first : first + len(text)] = 1
        return ids, mask

    def _run(self, session: Any, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        try:
            found: list[Any] = session.run(outputs, feed)
        except self._errors as error:
            # The runtime's own words may quote a value of the input: they stay out of the message.
            raise InternalError(
                f"the graph failed ({type(error).__name__})", hint="export the bundle again"
            ) from error
        return found

    def _check_names(self) -> None:
        """Refuse at load what would fail at the first step."""
        wanted = {"input_ids", "attention_mask", *self._past, *self._cross}
        given = {one.name for one in self._decoder.get_inputs()}
        made = {one.name for one in self._decoder.get_outputs()}
        fits = given == wanted and {"logits", *self._present} <= made
        if self._encoder is not None:
            fits &= set(self._cross) <= {one.name for one in self._encoder.get_outputs()}
        if not fits:
            raise BundleError(
                f"{DECODER_FILE} does not fit the bundle's generation section",
                hint="export the bundle again with this version",
            )

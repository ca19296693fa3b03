"""Write text with a bundle of kind seq2seq or causal: greedily, or by beam search.

    with Writer("this/bundle") as writer:
        print(writer.write(["translate English to German: How old are you?"])[0].text)

It needs onnxruntime, numpy and tokenizers, and no framework.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instructrec_deploy.core.bundle import TOKENIZER_FILE, Bundle, open_bundle
from instructrec_deploy.core.closing import Closing
from instructrec_deploy.core.errors import RequestError, TextEmpty, TextTooLong
from instructrec_deploy.runtime.beams import BeamSearch
from instructrec_deploy.runtime.decoding import Decoder
from instructrec_deploy.runtime.providers import Provider
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.text.tokenizer import TextTokenizer

MAX_BEAMS = 64
MAX_ROWS = 16  # of a batch, beams counted: every row keeps a cache


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a text is written.

    Raises:
        RequestError: a number is out of its range.
    """

    max_new_tokens: int = 128
    n_beams: int = 1  # 1: greedy
    length_penalty: float = 1.0  # of beam search: above 0 favours longer texts
    stop_ids: tuple[int, ...] = ()  # beside the bundle's own

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or not 1 <= self.n_beams <= MAX_BEAMS:
            raise RequestError(
                "max_new_tokens must be at least 1, n_beams between 1 and "
                f"{MAX_BEAMS}; they are {self.max_new_tokens} and {self.n_beams}",
                hint="give numbers in these ranges",
            )


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for one text."""

    text: str
    ids: tuple[int, ...]  # of the new tokens, without the one that stopped it
    is_stopped: bool  # by a stop token; else it was cut off at max_new_tokens
    is_truncated: bool = False  # the text that was read lost its end


class Writer(Closing):
    """A bundle that writes, open. Safe to share between threads.

    Args:
        bundle: a folder or an opened bundle.
        n_threads, provider: as for `Decoder`.

    Raises:
        BundleError, FileMissing, MissingExtra: as `open_bundle` and `Decoder`.
    """

    def __init__(
        self, bundle: str | Path | Bundle, *, n_threads: int = 0, provider: Provider = "auto"
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.decoder = Decoder(self.bundle, n_threads=n_threads, provider=provider)
        self.tokenizer = TextTokenizer(
            self.bundle.path(TOKENIZER_FILE), max_tokens=self.bundle.manifest.model.max_tokens
        )

    def close(self) -> None:
        """Give the sessions' memory back."""
        self.decoder.close()

    def write(
        self, texts: Sequence[str], settings: WriterSettings = WriterSettings()
    ) -> list[Written]:
        """Write on from each text, or what it asks for; one result each, in order.

        Raises:
            TextEmpty, TextUndecodable: a text holds nothing readable, or no valid Unicode.
            TextTooLong: the decoder has no room for the text and what is to be written.
            InternalError: a graph failed.
        """
        read = self.tokenizer.encode_texts(texts, use_offsets=False)
        found = self.write_ids([one.ids for one in read], settings)
        return [
            Written(self.tokenizer.decode(ids), ids, is_stopped, one.truncated)
            for one, (ids, is_stopped) in zip(read, found, strict=True)
        ]

    def write_ids(
        self, texts: Sequence[Sequence[int]], settings: WriterSettings = WriterSettings()
    ) -> list[tuple[tuple[int, ...], bool]]:
        """As `write`, from token ids to token ids: each with whether a stop token ended it."""
        self._check_room(texts, settings.max_new_tokens)
        n_texts = max(1, MAX_ROWS // settings.n_beams)
        stops = frozenset((*self.decoder.generation.stop_ids, *settings.stop_ids))
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: dict[int, tuple[int, ...]] = {}
        for start in range(0, len(order), n_texts):
            batch = order[start : start + n_texts]
            rows = [texts[place] for place in batch]
            write = self._write_greedily if settings.n_beams == 1 else self._write_by_beams
            found |= zip(batch, write(rows, settings, stops), strict=True)
        return [_without_stop(found[place], stops) for place in range(len(texts))]

    def log_probabilities(self, text: Sequence[int], written: Sequence[int]) -> Floats:
        """Of tokens that were written behind a text: [len(written)] float32, each given those
        before it.

        Raises:
            TextTooLong, InternalError: as `write`.
        """
        self._check_room([text], len(written))
        logits, cache = self.decoder.begin([text])
        found = []
        for place, token in enumerate(written):
            if place:
                logits, cache = self.decoder.step([written[place - 1]], cache)
            found.append(_log_softmax(logits)[0, token])
        return np.array(found, np.float32)

    def _write_greedily(
        self, texts: Sequence[Sequence[int]], settings: WriterSettings, stops: frozenset[int]
    ) -> list[tuple[int, ...]]:
        written: list[list[int]] = [[] for _ in texts]
        going = list(range(len(texts)))
        logits, cache = self.decoder.begin(texts)
        for n_before in range(settings.max_new_tokens):
            forced = self._forced(n_before, settings)
            tokens = [forced] * len(going) if forced >= 0 else logits.argmax(axis=-1).tolist()
            for place, token in zip(going, tokens, strict=True):
                written[place].append(token)
            kept = [row for row, token in enumerate(tokens) if token not in stops]
            if not kept or n_before + 1 == settings.max_new_tokens:
                break
            going = [going[row] for row in kept]
            logits, cache = self.decoder.step([tokens[row] for row in kept], cache.rows(kept))
        return [tuple(ids) for ids in written]

    def _write_by_beams(
        self, texts: Sequence[Sequence[int]], settings: WriterSettings, stops: frozenset[int]
    ) -> list[tuple[int, ...]]:
        n_beams = settings.n_beams
        searches = [
            BeamSearch(
                n_beams,
                stop_ids=stops,
                max_new_tokens=settings.max_new_tokens,
                length_penalty=settings.length_penalty,
            )
            for _ in texts
        ]
        going = searches
        logits, cache = self.decoder.begin(texts)
        logits, cache = np.repeat(logits, n_beams, axis=0), cache.rows(_repeated(texts, n_beams))
        for n_before in range(settings.max_new_tokens):
            scores = _log_softmax(logits)
            if (forced := self._forced(n_before, settings)) >= 0:
                scores = np.full_like(scores, -np.inf)
                scores[:, forced] = 0.0
            rows, tokens, still = [], [], []
            for place, search in enumerate(going):
                first = place * n_beams
                move = search.advance(scores[first : first + n_beams])
                if move is not None:
                    rows += [first + parent for parent in move.parents]
                    tokens += move.tokens
                    still.append(search)
            if not still:
                break
            going = still
            logits, cache = self.decoder.step(tokens, cache.rows(rows))
        return [search.best.ids for search in searches]

    def _forced(self, n_before: int, settings: WriterSettings) -> int:
        """The token that the checkpoint's own rules put in this place; -1: none."""
        generation = self.decoder.generation
        if n_before == 0 and generation.forced_first_id >= 0:
            return generation.forced_first_id
        is_last = n_before + 1 == settings.max_new_tokens
        return generation.forced_last_id if is_last else -1

    def _check_room(self, texts: Sequence[Sequence[int]], n_new: int) -> None:
        if any(len(text) == 0 for text in texts):
            raise TextEmpty("a text holds no token", hint="send text")
        room = self.decoder.generation.max_positions
        longest = max((len(text) for text in texts), default=0)
        n_wanted = 1 + n_new if self.decoder.is_seq2seq else longest + n_new
        if room and n_wanted > room:
            raise TextTooLong(
                f"the model knows {room} positions, and {n_wanted} are wanted",
                hint="send a shorter text, or ask for fewer new tokens",
            )


def _without_stop(ids: tuple[int, ...], stops: frozenset[int]) -> tuple[tuple[int, ...], bool]:
    is_stopped = bool(ids) and ids[-1] in stops
    return (ids[:-1] if is_stopped else ids), is_stopped


def _repeated(texts: Iterable[object], n_beams: int) -> list[int]:
    return [row for row, _ in enumerate(texts) for _ in range(n_beams)]


def _log_softmax(logits: Floats) -> Floats:
    """[R, V] along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found

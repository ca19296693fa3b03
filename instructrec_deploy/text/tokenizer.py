"""Texts and candidates to token ids; offsets are code points into the text as it was given.

Three things a plain `tokenizers.Tokenizer` gets wrong for a server are put right here: padding and
truncation stored in the file are switched off; a control token spelled out in a text ("[SEP]",
"</s>") is read as text; a model's text prefix ("query: ") leaves the offsets alone.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Encoding

from instructrec_deploy.core.errors import BundleError, TextUndecodable
from instructrec_deploy.text.control import (
    control_between,
    control_frame,
    control_ids,
    open_tokenizer,
    pad_id_of,
)
from instructrec_deploy.text.render import Passage
from instructrec_deploy.text.word_ids import WordIds

Tokens = tuple[list[int], list[tuple[int, int]]]  # ids and offsets, without control tokens


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the model reads it.

    `ids` begin and end with the control tokens. `offsets` has one half-open pair of code points
    for each id, (0, 0) for control tokens and for the prefix; it is empty where not asked for.
    From `second_at` on, ids and offsets are those of the second text of a pair.
    """

    ids: list[int]
    truncated: bool
    offsets: list[tuple[int, int]] = field(default_factory=list)
    second_at: int = 0  # 0: there is no second text


@dataclass(frozen=True, slots=True)
class EncodedCandidate:
    """A candidate behind its instruction as the model reads it.

    `weights`: of each id in the pooled vector. `own`: half-open range of the ids that are the
    candidate's own words; empty where it has no readable one.
    """

    ids: list[int]
    weights: list[float]
    own: tuple[int, int]


class TextTokenizer:
    """A `tokenizer.json`, read for one model. Safe to share between threads.

    Args:
        path: the file.
        max_tokens: the model's window, control tokens included; longer texts are cut.
        prefix: put before each text and each instruction.
        question_first: what is read with each window of a text stands before it, not behind.

    Raises:
        BundleError: the file is missing, unreadable, or its control tokens fill the window.
    """

    def __init__(
        self, path: Path, *, max_tokens: int, prefix: str = "", question_first: bool = False
    ) -> None:
        self._tokenizer = open_tokenizer(path)
        self._word_ids = WordIds(self._tokenizer) if WordIds.fits(self._tokenizer) else None
        self._prefix = prefix
        self._question_first = question_first
        self._head, self._tail = control_frame(self._tokenizer)
        self._between = control_between(self._tokenizer) or self._tail + self._head
        self._control, self._unknown_id = control_ids(self._tokenizer)
        self._window = max_tokens - len(self._head) - len(self._tail)
        self.max_tokens = max_tokens
        self.pad_id = pad_id_of(self._tokenizer)
        self.n_vocabulary: int = self._tokenizer.get_vocab_size()
        if self._window < 2:
            raise BundleError(
                f"a window of {max_tokens} tokens has no room for a text",
                hint="raise model.max_tokens",
            )

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The control ids before and after every text, found by encoding nothing."""
        return list(self._head), list(self._tail)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens; what is no whole character is U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def encode_texts(self, texts: Sequence[str], *, use_offsets: bool = True) -> list[Encoded]:
        """Read texts, one result each, in order.

        Args:
            texts: any strings; one that holds nothing readable becomes control tokens alone.
            use_offsets: False saves the time they take where no one reads them.

        Raises:
            TextUndecodable: a text holds a lone surrogate, which is no character.
        """
        whole = [self._prefix + text for text in texts] if self._prefix else list(texts)
        encoded = []
        split = self._split if use_offsets else self._split_ids
        for text, (ids, offsets) in zip(texts, split(whole, use_offsets), strict=True):
            truncated = len(ids) > self._window
            if truncated:
                del ids[self._window :]
                del offsets[self._window :]
            if use_offsets:
                offsets = self._shift(offsets, len(text))
            encoded.append(Encoded([*self._head, *ids, *self._tail], truncated, offsets))
        return encoded

    def encode_windows(self, text: str, *, second: str = "", max_tokens: int = 0) -> list[Encoded]:
        """Read a text of any length in windows that overlap by a quarter; always with offsets.

        A text that fits gives one window. `truncated` is False: nothing of the text is left out.

        Args:
            text: what offsets point into.
            second: stands behind each window (or before it: `question_first`), parted from it by
                control tokens, and has no offsets; at most half of the window, its beginning.
            max_tokens: of a window, control tokens and `second` with it, where they are to be
                shorter than the model's; 0 takes those.

        Raises:
            TextUndecodable: as `encode_texts`.
        """
        before, behind = list(self._head), list(self._tail)
        shorter = max(0, self.max_tokens - max_tokens) if max_tokens else 0
        if second:
            own = self._split([second], False)[0][0][: (self._window - shorter) // 2]
            if self._question_first:
                before = [*before, *own, *self._between]
            else:
                behind = [*self._between, *own, *behind]
        n_prefix = len(self._split([self._prefix], False)[0][0]) if self._prefix else 0
        ids, offsets = self._split([self._prefix + text], True, is_whole=True)[0]
        prefix, ids = ids[:n_prefix], ids[n_prefix:]
        places, offsets = offsets[:n_prefix], offsets[n_prefix:]
        room = self.max_tokens - shorter - len(before) - len(behind) - n_prefix
        stride = max(1, room - room // 4)
        starts = range(0, max(1, len(ids) - room // 4), stride)
        windows = []
        for start in starts:
            part = self._unprefixed([*places, *offsets[start : start + room]], len(text))
            part = [*_nowhere(before), *part, *_nowhere(behind)]
            inner = [*prefix, *ids[start : start + room]]
            windows.append(Encoded([*before, *inner, *behind], False, part))
        return windows

    def encode_passages(
        self, passages: Sequence[Passage], *, use_offsets: bool = True
    ) -> list[Encoded]:
        """Read rendered texts, one result each, in order.

        A plain one is read as `encode_texts` reads it. Of a pair that is longer than the window
        each text keeps at least half of it, or all of its own. Of a text with parts to keep these
        stay, with what stands nearest around them; where even they do not fit, the beginning of
        each.

        Args:
            passages: of any length.
            use_offsets: as for `encode_texts`; offsets lead into the rendered text.

        Raises:
            TextUndecodable: as `encode_texts`.
        """
        if all(passage.is_plain for passage in passages):
            return self.encode_texts([p.text for p in passages], use_offsets=use_offsets)
        loose = [self._prefix + p.text for p in passages if not p.keep]
        kept = [self._prefix + p.text for p in passages if p.keep]
        firsts = (
            iter(self._split(loose, use_offsets)),
            iter(self._split(kept, True, is_whole=True)),
        )
        seconds = iter(self._split([p.second for p in passages if p.second], use_offsets))
        return [
            self._join(
                passage,
                next(firsts[bool(passage.keep)]),
                next(seconds) if passage.second else None,
                use_offsets,
            )
            for passage in passages
        ]

    def encode_candidates(
        self, instruction: str, candidates: Sequence[str], *, instruction_weight: float
    ) -> list[EncodedCandidate]:
        """Read candidates behind their instruction: `[CLS] prefix instruction: candidate [SEP]`.

        A candidate gets at most half of the window, the instruction what is left of it.

        Args:
            instruction: what is asked.
            candidates: the words of each candidate.
            instruction_weight: pooling weight of every token that is not the candidate's own.

        Returns:
            One for each candidate, in order.
        """
        own = self._split([f"{self._prefix}{instruction}:"], use_offsets=False)[0][0]
        rows = []
        for words, _ in self._split(list(candidates), use_offsets=False):
            words = words[: self._window // 2]
            asked = own[: self._window - len(words)]
            ids = [*self._head, *asked, *words, *self._tail]
            # A candidate without a readable token is the instruction's mean, never 0 / 0.
            other = instruction_weight if words else 1.0
            n_before = len(self._head) + len(asked)
            weights = [other] * n_before + [1.0] * len(words) + [other] * len(self._tail)
            rows.append(EncodedCandidate(ids, weights, (n_before, n_before + len(words))))
        return rows

    def _join(
        self, passage: Passage, first: Tokens, second: Tokens | None, use_offsets: bool
    ) -> Encoded:
        """One passage, cut to the window and framed."""
        ids, offsets = first
        room, n_second = self._window, 0
        if second is not None:
            room = self.max_tokens - len(self._head) - len(self._between) - len(self._tail)
            n_second = min(len(second[0]), max(room - room // 2, room - len(ids)))
        n_first = min(len(ids), room - n_second)
        truncated = n_first < len(ids)
        if truncated and passage.keep:
            ids, offsets = self._cut_around(first, passage, n_first)
        ids = [*self._head, *ids[:n_first]]
        if use_offsets:
            offsets = self._unprefixed(offsets[:n_first], len(passage.text))
            offsets = [*_nowhere(self._head), *offsets]
        if second is None:
            tail = _nowhere(self._tail) if use_offsets else []
            return Encoded([*ids, *self._tail], truncated, [*offsets, *tail])
        second_at = len(ids) + len(self._between)
        ids += [*self._between, *second[0][:n_second], *self._tail]
        if use_offsets:
            offsets += [*_nowhere(self._between), *second[1][:n_second], *_nowhere(self._tail)]
        return Encoded(ids, truncated or n_second < len(second[0]), offsets, second_at)

    def _cut_around(self, first: Tokens, passage: Passage, n_tokens: int) -> Tokens:
        """The tokens of a passage's prefix, its parts to keep, and what stands nearest to them."""
        ids, offsets = first
        shift = len(self._prefix)
        keep = [(0, shift), *((start + shift, end + shift) for start, end in passage.keep)]
        chosen = nearest_tokens(offsets, keep, n_tokens)
        return [ids[i] for i in chosen], [offsets[i] for i in chosen]

    def _split(
        self, texts: list[str], use_offsets: bool, *, is_whole: bool = False
    ) -> list[Tokens]:
        """Ids (control tokens left out) and offsets of each text, as given, prefix included.

        Of a text that is longer than the window, `is_whole` asks for all of it, always.
        """
        try:
            found = self._encode(texts, use_offsets)
        except TypeError as error:
            raise TextUndecodable(
                "a text holds a lone surrogate", hint="send valid Unicode"
            ) from error
        rows = []
        for text, encoding in zip(texts, found, strict=True):
            ids: list[int] = encoding.ids
            if self._control.isdisjoint(ids):
                offsets = encoding.offsets if use_offsets else []
            else:
                ids, offsets = self._spell_out(text, is_whole)
            rows.append((ids, _without_spaces(offsets, text) if use_offsets else []))
        return rows

    def _split_ids(self, texts: list[str], use_offsets: bool = False) -> list[Tokens]:
        """As `_split` without offsets; plain English from memory, where the tokenizer allows it."""
        if self._word_ids is None:
            return self._split(texts, use_offsets)
        found = [self._word_ids.read(text) for text in texts]
        rest = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        others = iter(self._split(rest, use_offsets) if rest else ())
        return [next(others) if ids is None else (ids, []) for ids in found]

    def _encode(self, texts: list[str], use_offsets: bool) -> list[Encoding]:
        if len(texts) == 1:  # without the batch's overhead: 15 us of 70
            return [self._tokenizer.encode(texts[0], add_special_tokens=False)]
        if use_offsets:
            return list(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        return list(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def _spell_out(self, text: str, is_whole: bool) -> Tokens:
        """Read a text whose spelled-out control token the vocabulary itself holds as a piece.

        Unigram vocabularies do ("</s>"). The text is cut behind the first character of each such
        piece and the parts are read apart. All cuts of a part are made at once, and reading ends
        with the window (unless `is_whole`), so that a text full of them costs little more than
        another.
        """
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        parts = [(0, text)]
        while parts and (is_whole or len(ids) <= self._window):
            base, part = parts.pop()
            encoding = self._tokenizer.encode(part, add_special_tokens=False)
            pieces = list(zip(encoding.ids, encoding.offsets, strict=True))
            cuts = [
                start + 1
                for token, (start, end) in pieces
                if token in self._control and end - start > 1
            ]
            if cuts:
                borders = [0, *cuts, len(part)]
                spans = list(itertools.pairwise(borders))
                parts.extend((base + start, part[start:end]) for start, end in reversed(spans))
                continue
            for token, (start, end) in pieces:
                ids.append(self._unknown_id if token in self._control else token)
                offsets.append((base + start, base + end))
        return ids, offsets

    def _shift(self, offsets: list[tuple[int, int]], n_chars: int) -> list[tuple[int, int]]:
        """Offsets into the prefixed text -> offsets into the text, framed like the ids."""
        inner = self._unprefixed(offsets, n_chars)
        return [*_nowhere(self._head), *inner, *_nowhere(self._tail)]

    def _unprefixed(self, offsets: list[tuple[int, int]], n_chars: int) -> list[tuple[int, int]]:
        shift = len(self._prefix)
        return [
            (max(0, start - shift), min(n_chars, max(0, end - shift))) for start, end in offsets
        ]


def nearest_tokens(
    offsets: Sequence[tuple[int, int]], keep: Sequence[tuple[int, int]], n_tokens: int
) -> list[int]:
    """Places of the tokens that stay when a text is cut, ascending.

    Args:
        offsets: of every token, ascending.
        keep: half-open spans that stay; an empty one keeps nothing. Where their tokens are too
            many, each span keeps its beginning, one token in turn; where they are few, the nearest
            neighbours stay, too.
        n_tokens: how many stay.
    """
    starts, ends = [a for a, _ in offsets], [b for _, b in offsets]
    filled = [(start, end) for start, end in keep if start < end]
    spans = [(bisect_right(ends, start), bisect_left(starts, end)) for start, end in filled]
    runs = [(first, last) for first, last in spans if first < last]
    if not runs:
        return list(range(min(n_tokens, len(offsets))))
    ranks: dict[int, tuple[int, int]] = {}  # token -> (how far from a kept one, place in its span)

    def rank(i: int, found: tuple[int, int]) -> None:
        if 0 <= i < len(offsets):
            ranks[i] = min(ranks.get(i, found), found)

    for first, last in runs:  # what lies farther away than `n_tokens` cannot stay
        for place in range(min(n_tokens, last - first)):
            rank(first + place, (0, place))
        for distance in range(1, n_tokens + 1):
            rank(first - distance, (distance, 0))
            rank(last - 1 + distance, (distance, 0))
    return sorted(sorted(ranks, key=lambda i: (ranks[i], i))[:n_tokens])


def _without_spaces(offsets: Sequence[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Unigram vocabularies count the space before a word as its first character; we do not."""
    found = []
    for start, end in offsets:
        while start < end and text[start].isspace():
            start += 1
        found.append((start, end))
    return found


def _nowhere(control: Sequence[int]) -> list[tuple[int, int]]:
    """Offsets of control tokens."""
    return [(0, 0)] * len(control)

"""Control tokens of a `tokenizer.json`: where they stand, and which a text may not make."""

from __future__ import annotations

import itertools
from pathlib import Path

from tokenizers import Tokenizer

from instructrec_deploy.core.errors import BundleError


def open_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json` without stored padding or truncation, control tokens read as text.

    Raises:
        BundleError: the file is missing or unreadable.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises the bare class
        raise BundleError(
            f"{path}: not a readable tokenizer.json", hint="export the bundle again"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def control_frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Control ids put before and after a text."""
    encoding = tokenizer.encode("a")
    inner = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    if not inner:
        raise BundleError("the tokenizer reads nothing in 'a'", hint="use another tokenizer.json")
    return encoding.ids[: inner[0]], encoding.ids[inner[-1] + 1 :]


def control_between(tokenizer: Tokenizer) -> list[int]:
    """Control ids between the two texts of a pair."""
    encoding = tokenizer.encode("a", "a")
    inner = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    gaps = [(a + 1, b) for a, b in itertools.pairwise(inner) if b - a > 1]
    return list(encoding.ids[slice(*gaps[0])]) if len(gaps) == 1 else []


def control_ids(tokenizer: Tokenizer) -> tuple[frozenset[int], int]:
    """Ids no text may produce, and the id of the unknown token (which any text may)."""
    special = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    unknown = [i for i, content in special.items() if "unk" in content.lower()]
    return frozenset(special) - frozenset(unknown), unknown[0] if unknown else 0


def pad_id_of(tokenizer: Tokenizer) -> int:
    """The padding id by its usual names; 0 where there is none (the mask hides it anyway)."""
    for name in ("[PAD]", "<pad>", "<|endoftext|>"):
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    return 0

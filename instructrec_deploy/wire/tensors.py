"""Tensors of the Open Inference Protocol as plain lists: strings in, strings and numbers out."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instructrec_deploy.core.errors import TensorInvalid, TextUndecodable

STRINGS, FLOATS = "BYTES", "FP32"
MAX_DIMENSIONS = 2
LENGTH = struct.Struct("<I")  # stands before each element of a raw BYTES tensor


@dataclass(frozen=True, slots=True)
class StringTensor:
    """A BYTES tensor as it came, not taken apart yet. `raw` is None where `contents` holds it."""

    name: str
    shape: tuple[int, ...]
    raw: bytes | None = None
    contents: Sequence[bytes] = ()

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            TensorInvalid: it is none, or has more than two dimensions.
        """
        if not 1 <= len(self.shape) <= MAX_DIMENSIONS or min(self.shape) < 0:
            raise TensorInvalid(
                f"the shape of {self.name} is not [n] or [n, k]",
                hint="one element for each text: shape [n] or [n, 1]",
            )

    @property
    def n_items(self) -> int:
        """How many strings its shape promises."""
        return math.prod(self.shape)

    def strings(self) -> list[str]:
        """Its elements, row by row.

        Raises:
            TensorInvalid: there are more or fewer than its shape promises, or one is cut off.
            TextUndecodable: one is not UTF-8.
        """
        items = self.contents if self.raw is None else unpack_strings(self.raw, self.n_items)
        if items is None or len(items) != self.n_items:
            raise TensorInvalid(
                f"{self.name} does not hold the {self.n_items} strings that its shape promises",
                hint="raw contents: each string behind its length in 4 bytes, least significant "
                "first; else bytes_contents",
            )
        found = []
        for i, item in enumerate(items):
            try:
                found.append(item.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise TextUndecodable(
                    f"{self.name}[{i}] is not UTF-8", hint="encode texts as UTF-8"
                ) from error
        return found


def unpack_strings(raw: bytes, n_items: int) -> list[bytes] | None:
    """The elements of a raw BYTES tensor; None if they are not exactly `n_items`."""
    if n_items * LENGTH.size > len(raw):  # before anything is made of a number that a caller wrote
        return None
    items, at = [], 0
    for _ in range(n_items):
        start = at + LENGTH.size
        if start > len(raw):
            return None
        at = start + LENGTH.unpack_from(raw, start - LENGTH.size)[0]
        if at > len(raw):
            return None
        items.append(raw[start:at])
    return items if at == len(raw) else None


def pack_strings(texts: Iterable[str]) -> bytes:
    """A raw BYTES tensor."""
    parts: list[bytes] = []
    for text in texts:
        data = text.encode("utf-8")
        parts += LENGTH.pack(len(data)), data
    return b"".join(parts)


def pack_floats(values: Sequence[float]) -> bytes:
    """A raw FP32 tensor."""
    return struct.pack(f"<{len(values)}f", *values)

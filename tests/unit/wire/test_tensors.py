"""String tensors: what is packed is unpacked, and any bytes are taken apart or refused."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import RequestError, TensorInvalid, TextUndecodable
from instructrec_deploy.wire.tensors import (
    StringTensor,
    pack_floats,
    pack_strings,
    unpack_strings,
)

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(TEXTS)
def test_packed_strings_are_unpacked(texts: list[str]) -> None:
    raw = pack_strings(texts)
    assert StringTensor("text", (len(texts),), raw).strings() == texts
    assert StringTensor("text", (len(texts), 1), raw).strings() == texts


def test_layout_is_length_then_bytes_least_significant_first() -> None:
    assert pack_strings(["我", ""]) == b"\x03\x00\x00\x00\xe6\x88\x91\x00\x00\x00\x00"
    assert pack_floats([0.5]) == struct.pack("<f", 0.5)


@given(st.binary(max_size=64), st.integers(0, 2**40))
def test_any_bytes_are_taken_apart_or_refused(raw: bytes, n_items: int) -> None:
    found = unpack_strings(raw, n_items)
    if found is not None:
        assert len(found) == n_items
        assert sum(4 + len(item) for item in found) == len(raw)
    with suppress(RequestError):
        assert len(StringTensor("text", (n_items,), raw).strings()) == n_items


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        ((2,), pack_strings(["one"])),
        ((1,), pack_strings(["one", "two"])),
        ((1,), b"\x09\x00\x00\x00one"),
        ((1,), b"\x01"),
        ((2**62,), b""),
    ],
    ids=["too few", "too many", "cut off", "half a length", "an absurd promise"],
)
def test_raw_bytes_that_do_not_fit_the_shape_are_refused(
    shape: tuple[int, ...], raw: bytes
) -> None:
    with pytest.raises(TensorInvalid, match="does not hold"):
        StringTensor("text", shape, raw).strings()


@pytest.mark.parametrize("shape", [(), (-1,), (1, 1, 1), (2, -1)])
def test_a_shape_of_no_rows_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorInvalid, match="shape of text"):
        StringTensor("text", shape)


def test_element_that_is_not_utf8_is_named_by_its_place() -> None:
    with pytest.raises(TextUndecodable, match=r"text\[1\]"):
        StringTensor("text", (2,), None, [b"fine", b"\xff\xfe"]).strings()

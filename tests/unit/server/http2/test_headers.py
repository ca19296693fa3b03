"""Header blocks, and those that are remembered."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.server.http2.frames import ProtocolError
from instructrec_deploy.server.http2.headers import HeaderReader

FIELD = st.tuples(
    st.sampled_from([b":path", b"te", b"key", b"grpc-timeout", b"x" * 3000]),
    st.sampled_from([b"", b"a", b"trailers", b"v" * 900]),
    st.sampled_from(["indexed", "plain", "never"]),
)


@given(
    st.lists(st.lists(FIELD, max_size=5), max_size=30),
    st.lists(st.sampled_from([None, 0, 200, 4096]), max_size=30),
)
def test_remembered_or_not_blocks_read_as_by_hpack_alone(
    blocks: list[list[tuple[bytes, bytes, str]]], sizes: list[int | None]
) -> None:
    encoder, plain, reader = hpack.Encoder(), hpack.Decoder(), HeaderReader()
    for place, fields in enumerate(blocks):
        if place < len(sizes) and sizes[place] is not None:
            encoder.header_table_size = sizes[place]
        block = encoder.encode([])  # a change of the table's size, if there is one
        is_plain = not block and all(kind != "indexed" for *_, kind in fields)
        for name, value, kind in fields:
            if kind == "indexed":
                one = encoder.encode([(name, value)], huffman=True)
            elif kind == "never":
                one = encoder.encode([hpack.NeverIndexedHeaderTuple(name, value)])
            else:
                one = b"\x00" + bytes([len(name) % 100]) + name[: len(name) % 100]
                one += bytes([len(value) % 100]) + value[: len(value) % 100]
            block += one
        wanted = [(bytes(a), bytes(b)) for a, b in plain.decode(block, raw=True)]
        assert list(reader.read(block)) == wanted
        if is_plain:
            assert reader.read(block) is reader.read(block)


def test_a_damaged_block_and_a_long_one() -> None:
    with pytest.raises(ProtocolError):
        HeaderReader().read(b"\xff\xff")
    with pytest.raises(ProtocolError, match="too long"):
        HeaderReader().read(hpack.Encoder().encode([(b"a" * 10, b"b" * 20_000)]))

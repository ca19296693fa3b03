"""Messages of a stream: put together, unpacked, bounded."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.server.http2.messages import MessageReader, MessageRefused, packed


@given(
    st.lists(st.binary(max_size=300), max_size=6),
    st.sampled_from(["", "gzip", "deflate"]),
    st.lists(st.integers(1, 200), max_size=20),
)
def test_messages_come_whole_however_they_are_cut(
    messages: list[bytes], encoding: str, cuts: list[int]
) -> None:
    data = b"".join(packed(message, encoding) for message in messages)
    reader = MessageReader(300, encoding)
    found: list[bytes] = []
    for n in cuts:
        found += reader.feed(data[:n])
        data = data[n:]
    found += reader.feed(data)
    assert found == messages
    assert not reader.n_bytes


def test_only_what_gets_shorter_is_compressed() -> None:
    assert packed(b"a", "gzip")[0] == 0
    assert packed(b"a" * 1000, "gzip")[0] == 1
    assert packed(b"a" * 1000, "")[0] == 0


def test_part_of_a_message_is_kept() -> None:
    reader = MessageReader(100, "")
    assert reader.feed(packed(b"hello")[:7]) == []
    assert reader.n_bytes


@pytest.mark.parametrize("n", [101, 10_000, 2**31])
def test_a_message_too_long_is_refused_by_its_head(n: int) -> None:
    with pytest.raises(MessageRefused, match="larger than max") as caught:
        MessageReader(100, "").feed(b"\x00" + n.to_bytes(4, "big"))
    assert caught.value.status == "RESOURCE_EXHAUSTED"


def test_a_message_that_unpacks_beyond_the_limit_is_refused() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    data = b"\x01" + len(bomb).to_bytes(4, "big") + bomb
    with pytest.raises(MessageRefused, match="larger than max") as caught:
        MessageReader(20_000, "gzip").feed(data)
    assert caught.value.status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("", b"abc"),
        ("gzip", b"abc"),
        ("gzip", gzip.compress(b"abc" * 50)[:-9]),
        ("deflate", zlib.compress(b"abc")[:-1]),
    ],
    ids=["none named", "no gzip", "cut gzip", "cut deflate"],
)
def test_what_is_compressed_otherwise_than_said(encoding: str, content: bytes) -> None:
    data = b"\x01" + len(content).to_bytes(4, "big") + content
    with pytest.raises(MessageRefused) as caught:
        MessageReader(1000, encoding).feed(data)
    assert caught.value.status == "INTERNAL"

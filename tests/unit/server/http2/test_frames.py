"""Frames and header blocks, read back by the package hpack."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.server.http2.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    ProtocolError,
    header,
    header_frames,
    read_metadata,
    read_timeout,
    status_block,
    unpadded,
)


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and content of each."""
    found = []
    while data:
        n = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + n]))
        data = data[9 + n :]
    return found


@given(st.binary(min_size=1, max_size=400), st.binary(max_size=40_000))
def test_a_header_is_read_back(name: bytes, value: bytes) -> None:
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    assert decoder.decode(header(name, value), raw=True) == [(name, value)]


@pytest.mark.parametrize("n", [0, 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES])
def test_a_long_block_goes_on_in_frames_of_its_own(n: int) -> None:
    block = bytes(range(256)) * (n // 256 + 1)
    found = frames_of(header_frames(7, block[:n], ends=True))
    assert b"".join(content for *_, content in found) == block[:n]
    assert [kind for kind, *_ in found] == [HEADERS] + [CONTINUATION] * (len(found) - 1)
    assert [flags & END_HEADERS for _, flags, *_ in found] == [0] * (len(found) - 1) + [END_HEADERS]
    assert found[0][1] & END_STREAM
    assert all(len(content) <= FRAME_BYTES for *_, content in found)


@given(st.text(max_size=60), st.binary(max_size=60))
def test_a_status_says_any_text_and_any_bytes(message: str, data: bytes) -> None:
    block = status_block(3, message, (("some-key", "value"), ("some-bin", data)))
    fields = hpack.Decoder().decode(block, raw=True)
    assert all(0x20 <= byte < 0x7F for _, value in fields for byte in value)
    assert dict(fields)[b"grpc-status"] == b"3"
    told = dict(read_metadata(fields))
    assert told["some-bin"] == data
    assert told["some-key"] == "value"
    from urllib.parse import unquote

    assert unquote(str(told.get("grpc-message", ""))) == message


def test_metadata_leaves_out_http_and_refuses_what_is_no_base64() -> None:
    assert read_metadata([(b":path", b"/a"), (b"key", b"v"), (b"x-bin", b"AAE")]) == (
        ("key", "v"),
        ("x-bin", b"\x00\x01"),
    )
    with pytest.raises(ProtocolError, match="x-bin"):
        read_metadata([(b"x-bin", b"A")])


@pytest.mark.parametrize(
    ("value", "seconds"), [("1H", 3600), ("2M", 120), ("3S", 3), ("250m", 0.25), ("5u", 5e-6)]
)
def test_timeouts(value: str, seconds: float) -> None:
    assert read_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "S", "1", "1s", "-1S", "123456789S", "1S\n"])
def test_what_is_no_timeout(value: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        read_timeout(value)


def test_padding_and_priority_are_cut_off() -> None:
    assert unpadded(PADDED, b"\x02dataXX") == b"data"
    assert unpadded(HAS_PRIORITY, b"12345data") == b"data"
    assert unpadded(PADDED | HAS_PRIORITY, b"\x0112345dataX") == b"data"
    for flags, content in ((PADDED, b""), (PADDED, b"\x05dat"), (HAS_PRIORITY, b"123")):
        with pytest.raises(ProtocolError):
            unpadded(flags, content)

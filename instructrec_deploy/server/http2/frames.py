"""Frames of HTTP/2 and the few header blocks that a gRPC server writes.

Sources: RFC 9113 (frames), RFC 7541 (header blocks, written without a dynamic table), and gRPC's
"gRPC over HTTP2" (statuses, metadata, timeouts).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Sequence
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9  # of a frame
FRAME_BYTES = 16_384  # content of a frame at most: what every side takes, and what we take
WINDOW_BYTES = 65_535  # what may be under way before the other side says more
MAX_WINDOW = 2**31 - 1
MAX_STREAM = 2**31 - 1

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM = 0, 1, 3, 6, 7
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

Metadata = Sequence[tuple[str, str | bytes]]
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_HEAD = struct.Struct(">IBBI")  # the length's first byte is cut off


class ProtocolError(Exception):
    """What the other side sent breaks HTTP/2: the connection ends with this error code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """A frame with its head; at most `FRAME_BYTES` of content."""
    return _HEAD.pack(len(content), kind, flags, stream)[1:] + content


def header_frames(stream: int, block: bytes, *, ends: bool = False) -> bytes:
    """A header block as one HEADERS frame, and CONTINUATION frames where it is longer."""
    first, rest = block[:FRAME_BYTES], block[FRAME_BYTES:]
    flags = END_STREAM if ends else 0
    if not rest:
        return frame(HEADERS, flags | END_HEADERS, stream, first)
    parts = [frame(HEADERS, flags, stream, first)]
    while rest:
        first, rest = rest[:FRAME_BYTES], rest[FRAME_BYTES:]
        parts.append(frame(CONTINUATION, 0 if rest else END_HEADERS, stream, first))
    return b"".join(parts)


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    """Settings by their numbers."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in values))


def number_frame(kind: int, stream: int, number: int) -> bytes:
    """RST_STREAM with an error code, or WINDOW_UPDATE with so many bytes more."""
    return frame(kind, 0, stream, number.to_bytes(4, "big"))


def goaway_frame(last_stream: int, code: int, reason: bytes = b"") -> bytes:
    """No streams after `last_stream` will be read."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + reason)


def header(name: bytes, value: bytes) -> bytes:
    """A header field as it is: not indexed, not compressed."""
    return b"\x00" + _counted(name) + _counted(value)


def _counted(data: bytes) -> bytes:
    """A string of RFC 7541, its length with a 7-bit prefix."""
    n = len(data)
    if n < 127:
        return bytes((n,)) + data
    head = bytearray((127,))
    n -= 127
    while n >= 128:
        head.append(n % 128 + 128)
        n //= 128
    head.append(n)
    return bytes(head) + data


# :status 200 is the eighth of the static table
ANSWER_BLOCK = b"\x88" + header(b"content-type", b"application/grpc")
OK_BLOCK = header(b"grpc-status", b"0")
ACCEPTED_ENCODINGS = b"identity, deflate, gzip"


def answer_block(encoding: str = "") -> bytes:
    """The headers before an answer's messages."""
    return ANSWER_BLOCK + header(b"grpc-encoding", encoding.encode()) if encoding else ANSWER_BLOCK


def status_block(status: int, message: str = "", metadata: Metadata = ()) -> bytes:
    """The trailers of a call: gRPC's status, what it says, and what else is told."""
    parts = [header(b"grpc-status", b"%d" % status)]
    if message:
        parts.append(header(b"grpc-message", quote(message, safe=_PLAIN).encode()))
    for name, value in metadata:
        data = value if isinstance(value, bytes) else value.encode()
        if name.endswith("-bin"):
            data = base64.b64encode(data).rstrip(b"=")
        parts.append(header(name.lower().encode(), data))
    return b"".join(parts)


def read_metadata(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """A call's metadata from its headers: without HTTP's own, `-bin` values as bytes.

    Raises:
        ProtocolError: such a value is not base64.
    """
    found: list[tuple[str, str | bytes]] = []
    for raw_name, raw in headers:
        if raw_name[:1] == b":":
            continue
        name = raw_name.decode("latin-1")
        if not name.endswith("-bin"):
            found.append((name, raw.decode("latin-1")))
            continue
        try:
            for part in raw.split(b","):
                found.append((name, base64.b64decode(part + b"=" * (-len(part) % 4))))
        except binascii.Error as error:
            raise ProtocolError(PROTOCOL_ERROR, f"{name} is no base64") from error
    return tuple(found)


def read_timeout(value: str) -> float:
    """Seconds of a `grpc-timeout`.

    Raises:
        ValueError: it is none.
    """
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise ValueError("grpc-timeout is no time")
    return int(found[1]) * _UNITS_S[found[2]]


def unpadded(flags: int, content: bytes) -> bytes:
    """A frame's content without padding and without the priority nobody uses any more.

    Raises:
        ProtocolError: the padding is longer than the frame.
    """
    start, end = 0, len(content)
    if flags & PADDED:
        if not content or content[0] >= end:
            raise ProtocolError(PROTOCOL_ERROR, "padding longer than its frame")
        start, end = 1, end - content[0]
    if flags & HAS_PRIORITY:
        start += 5
        if start > end:
            raise ProtocolError(FRAME_SIZE_ERROR, "a frame too short for its priority")
    return content[start:end]

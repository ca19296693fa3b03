"""Messages on a stream: a byte that says whether it is compressed, its length, then itself."""

from __future__ import annotations

import struct
import zlib

PREFIX_BYTES = 5
_PREFIX = struct.Struct(">BI")
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # of zlib


class MessageRefused(Exception):
    """A message that is not taken. `status`: of gRPC, by name."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class MessageReader:
    """Puts messages together from the data of a stream.

    Args:
        max_bytes: of a message, also when it is unpacked.
        encoding: how those that say that they are compressed were; "" or "identity": none may be.
    """

    __slots__ = ("_data", "_encoding", "_max_bytes")

    def __init__(self, max_bytes: int, encoding: str) -> None:
        self._data = bytearray()
        self._encoding = encoding
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now.

        Raises:
            MessageRefused: one is too long, or compressed otherwise than was said.
        """
        if not self._data and len(data) >= PREFIX_BYTES:  # most calls: one message in one frame
            is_packed, n_bytes = _PREFIX.unpack_from(data)
            if n_bytes == len(data) - PREFIX_BYTES <= self._max_bytes:
                message = data[PREFIX_BYTES:]
                return [self._unpacked(message) if is_packed else message]
        self._data += data
        found = []
        while len(self._data) >= PREFIX_BYTES:
            is_packed, n_bytes = _PREFIX.unpack_from(self._data)
            if n_bytes > self._max_bytes:
                raise self._too_long(n_bytes)
            end = PREFIX_BYTES + n_bytes
            if len(self._data) < end:
                break
            message = bytes(self._data[PREFIX_BYTES:end])
            del self._data[:end]
            found.append(self._unpacked(message) if is_packed else message)
        return found

    @property
    def n_bytes(self) -> int:
        """Of a message whose end has not come."""
        return len(self._data)

    def clear(self) -> None:
        """Forget it."""
        self._data.clear()

    def _unpacked(self, message: bytes) -> bytes:
        bits = _WINDOW_BITS.get(self._encoding)
        if bits is None:
            raise MessageRefused("INTERNAL", "a compressed message without grpc-encoding")
        unpacker = zlib.decompressobj(bits)
        try:
            found = unpacker.decompress(message, self._max_bytes + 1)
        except zlib.error:
            raise MessageRefused("INTERNAL", f"a message is no {self._encoding}") from None
        if len(found) > self._max_bytes:
            raise self._too_long(len(found))
        if not unpacker.eof:
            raise MessageRefused("INTERNAL", f"a message is no whole {self._encoding}")
        return found

    def _too_long(self, n_bytes: int) -> MessageRefused:
        # As gRPC's own servers say it: clients know the words.
        return MessageRefused(
            "RESOURCE_EXHAUSTED",
            f"Received message larger than max ({n_bytes} vs. {self._max_bytes})",
        )


def packed(message: bytes, encoding: str = "") -> bytes:
    """A message with its prefix; compressed by an encoding where that makes it shorter."""
    if encoding:
        packer = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
        data = packer.compress(message) + packer.flush()
        if len(data) < len(message):
            return _PREFIX.pack(1, len(data)) + data
    return _PREFIX.pack(0, len(message)) + message

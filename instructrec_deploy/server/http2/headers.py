"""Header blocks of callers, unpacked (RFC 7541, by the package hpack)."""

from __future__ import annotations

import hpack

from instructrec_deploy.server.http2.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    ProtocolError,
)

HEADER_BYTES = 16_384  # of a call's headers, packed and unpacked
MAX_KNOWN = 64
Headers = tuple[tuple[bytes, bytes], ...]


class HeaderReader:
    """Reads the blocks of one connection, in their order: each may change the table of the next.

    A client repeats its blocks. One that leaves the table as it is reads the same until another one
    changes it.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=HEADER_BYTES)
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Names and values.

        Raises:
            ProtocolError: the block is damaged, or too long.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        # The newest entry is held on to, so that no later one is taken for it.
        n_before, first_before, size_before = len(entries), entries and entries[0], table.maxsize
        try:
            fields = self._decoder.decode(block, raw=True)
        except hpack.OversizedHeaderListError as error:
            raise ProtocolError(ENHANCE_YOUR_CALM, "headers too long") from error
        except Exception as error:  # whatever a damaged block makes of the decoder
            raise ProtocolError(COMPRESSION_ERROR, "headers that cannot be read") from error
        headers = tuple((bytes(name), bytes(value)) for name, value in fields)
        is_as_before = (
            len(entries) == n_before
            and table.maxsize == size_before
            and (not entries or entries[0] is first_before)
        )
        if not is_as_before or len(self._known) >= MAX_KNOWN:
            self._known.clear()
        if is_as_before:
            self._known[block] = headers
        return headers

"""How messages travel on the server's connections: limits, pings, compression, by either side."""

from __future__ import annotations

from typing import Any

import grpc

from instructrec_deploy.server.http2.server import Http2Server
from instructrec_deploy.server.settings import DoorSettings

PING_TIMEOUT_S = 20  # a ping without an answer for so long: the other side is gone
MIN_PING_S = 10  # of clients; one who pings more often is sent away after some pings
COMPRESSIONS = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


Transport = Http2Server | grpc.aio.Server


def make_transport(door: DoorSettings, *, is_shared: bool = False) -> Transport:
    """The server's side of HTTP/2, no services yet. `is_shared`: others listen on its port, too."""
    if door.transport == "grpcio":
        return grpc.aio.server(options=server_options(door, is_shared=is_shared))
    return Http2Server(
        max_bytes=door.max_message_bytes,
        keepalive_s=door.keepalive_s,
        max_age_s=door.max_connection_age_s(is_shared=is_shared),
        compression="" if door.compression == "none" else door.compression,
        is_shared=is_shared,
    )


def server_options(door: DoorSettings, *, is_shared: bool = False) -> list[tuple[str, Any]]:
    """Options of the gRPC server. `is_shared`: other processes listen on its port, too."""
    options: list[tuple[str, Any]] = [
        # Not shared: a second server on the port fails, and says so.
        ("grpc.so_reuseport", int(is_shared)),
        ("grpc.max_receive_message_length", door.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1000 * MIN_PING_S),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.default_compression_algorithm", COMPRESSIONS[door.compression].value),
    ]
    if age_s := door.max_connection_age_s(is_shared=is_shared):
        # Then gRPC tells the caller to connect anew (GOAWAY); calls that are under way go on.
        options.append(("grpc.max_connection_age_ms", int(1000 * age_s)))
    if door.keepalive_s:
        options += [
            ("grpc.keepalive_time_ms", int(1000 * door.keepalive_s)),
            ("grpc.keepalive_timeout_ms", 1000 * PING_TIMEOUT_S),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return options

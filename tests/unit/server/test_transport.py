"""Settings of the door as gRPC's options."""

from __future__ import annotations

import pytest

from instructrec_deploy.client.calls import MIN_KEEPALIVE_S
from instructrec_deploy.server.settings import DoorSettings
from instructrec_deploy.server.transport import MIN_PING_S, server_options


def test_limits_pings_and_compression_are_told_to_grpc() -> None:
    door = DoorSettings(max_message_bytes=5000, keepalive_s=2.5, compression="gzip")
    options = dict(server_options(door))
    assert options["grpc.max_receive_message_length"] == 5000
    assert options["grpc.keepalive_time_ms"] == 2500
    assert options["grpc.default_compression_algorithm"] == 2


def test_a_server_without_pings_still_lets_clients_ping() -> None:
    options = dict(server_options(DoorSettings(keepalive_s=0)))
    assert "grpc.keepalive_time_ms" not in options
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.default_compression_algorithm"] == 0


def test_our_clients_never_ping_more_often_than_a_server_allows() -> None:
    assert MIN_KEEPALIVE_S >= MIN_PING_S


@pytest.mark.parametrize("word", ["brotli", ""])
def test_an_unknown_compression_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="compression"):
        DoorSettings.model_validate({"compression": word})


def test_connections_to_several_workers_are_made_anew_now_and_then() -> None:
    alone, shared = DoorSettings(), DoorSettings(workers=2)
    assert "grpc.max_connection_age_ms" not in dict(server_options(alone))
    options = dict(server_options(shared, is_shared=True))
    assert (options["grpc.so_reuseport"], options["grpc.max_connection_age_ms"]) == (1, 30_000)


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_age_of_connections_is_as_told(is_shared: bool) -> None:
    never = dict(server_options(DoorSettings(connection_age_s=0), is_shared=is_shared))
    assert "grpc.max_connection_age_ms" not in never
    told = dict(server_options(DoorSettings(connection_age_s=2.5), is_shared=is_shared))
    assert told["grpc.max_connection_age_ms"] == 2500

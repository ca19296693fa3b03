"""Cutting a port's connections reaches those, and only those."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from instructrec_deploy.server import connections
from instructrec_deploy.server.connections import (
    count_connections,
    cut_connections,
    hold_off,
    stop_listening,
)


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """A test that waits for a byte that never comes fails."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    yield
    socket.setdefaulttimeout(before)


def test_callers_read_what_was_sent_and_then_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            server_side, _ = listener.accept()
            with server_side:
                server_side.sendall("余额 answer".encode())
                assert cut_connections(port) == 2
                assert caller.recv(100).decode() == "余额 answer"
                assert caller.recv(100) == b""


def test_nobody_can_connect_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        cut_connections(port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_connections_that_are_there_go_on_when_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert count_connections(port) == 0
        with socket.create_connection(("127.0.0.1", port)) as caller:
            server_side, _ = listener.accept()
            with server_side:
                assert stop_listening(port) == 1
                assert count_connections(port) == 1
                caller.sendall(b"still here")
                assert server_side.recv(100) == b"still here"
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
            assert count_connections(port) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a filter of Linux")
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_who_has_begun_to_connect_is_taken_in_and_nobody_else(
    family: socket.AddressFamily, host: str
) -> None:
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("no such address here")
    with listener:
        address = listener.getsockname()
        with socket.create_connection(address[:2]) as caller:
            assert hold_off(address[1]) == 1
            with pytest.raises(TimeoutError):
                socket.create_connection(address[:2], timeout=0.2)
            caller.sendall(b"I was here before")
            server_side, _ = listener.accept()
            with server_side:
                assert server_side.recv(100) == b"I was here before"
                server_side.sendall(b"you were")
                assert caller.recv(100) == b"you were"


def test_other_ports_go_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(other.getsockname()) as caller,
    ):
        cut_connections(listener.getsockname()[1])
        caller.sendall(b"hello")
        server_side, _ = other.accept()
        with server_side:
            assert server_side.recv(5) == b"hello"


def test_a_system_that_shows_no_files_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "OPEN_FILES", ())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert cut_connections(listener.getsockname()[1]) == 0
        socket.create_connection(listener.getsockname()).close()

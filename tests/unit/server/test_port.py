"""An address that cannot be listened on is told before gRPC tries."""

from __future__ import annotations

import socket

import pytest

from instructrec_deploy.core.errors import PortInUse
from instructrec_deploy.server.port import check_port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_somebody_listens_on_is_refused_with_a_hint(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortInUse) as caught:
        check_port(host, other.getsockname()[1])
    assert "--port 0" in caught.value.hint


def test_a_port_can_be_used_once_nobody_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)  # asking reserves nothing
    check_port("127.0.0.1", 0)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortInUse) as caught:
        check_port("192.0.2.1", 0)
    assert "--host" in caught.value.hint


def test_a_host_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(PortInUse, match="no such host"):
        check_port("nowhere", 0)

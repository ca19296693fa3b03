"""Where a server of ours listens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from instructrec_deploy.server.http2.server import Http2Server


def reaches(host: str, port: int) -> bool:
    with socket.create_connection((host, port), 5.0):
        return True


def test_a_name_has_one_port_on_all_its_addresses() -> None:
    async def scene() -> None:
        server = Http2Server(max_bytes=1000)
        port = server.listen_on("localhost", 0)
        await server.start()
        hosts = {
            info[4][0] for info in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
        }
        for host in hosts:
            assert await asyncio.to_thread(reaches, str(host), port)
        await server.stop(0.1)

    asyncio.run(scene())


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_every_address_of_ipv6_is_every_address() -> None:
    async def scene() -> None:
        server = Http2Server(max_bytes=1000)
        port = server.listen_on("::", 0)
        await server.start()
        assert await asyncio.to_thread(reaches, "127.0.0.1", port)
        assert await asyncio.to_thread(reaches, "::1", port)
        await server.stop(0.1)

    asyncio.run(scene())


def test_a_port_is_shared_only_where_it_is_said() -> None:
    async def scene() -> None:
        first, second = (Http2Server(max_bytes=1000, is_shared=True) for _ in range(2))
        port = first.listen_on("127.0.0.1", 0)
        assert second.listen_on("127.0.0.1", port) == port
        with pytest.raises(OSError, match="in use"):
            Http2Server(max_bytes=1000).listen_on("127.0.0.1", port)
        for server in (first, second):
            await server.stop(0.1)

    asyncio.run(scene())


def test_a_stopped_server_listens_no_more() -> None:
    async def scene() -> None:
        server = Http2Server(max_bytes=1000)
        port = server.listen_on("127.0.0.1", 0)
        await server.start()
        await server.stop(0.1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(reaches, "127.0.0.1", port)

    asyncio.run(scene())

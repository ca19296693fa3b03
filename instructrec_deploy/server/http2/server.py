"""A gRPC server on the event loop: with the methods of `grpc.aio.Server` that ours asks for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc

from instructrec_deploy.server.http2.connection import Connection, Shared

BACKLOG = 1024  # callers that have begun to connect and wait to be taken in
SHUTDOWN_S = 2.0  # for a TLS caller to say goodbye


class _Details(NamedTuple):
    """`grpc.HandlerCallDetails` as generic handlers ask for it."""

    method: str
    invocation_metadata: Sequence[Any] = ()


class Http2Server:
    """Listens, and answers by gRPC's generic handlers.

    Args:
        max_bytes: of a message, after decompression.
        keepalive_s: a connection that says nothing for so long is pinged; 0: never.
        max_age_s: so old a connection's caller is told to connect anew; 0: never.
        compression: of answers, for callers that take it: "gzip", "deflate", or "".
        is_shared: other processes listen on the port, too.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        keepalive_s: float = 0.0,
        max_age_s: float = 0.0,
        compression: str = "",
        is_shared: bool = False,
    ) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._found: dict[str, Any] = {}
        self._shared = Shared(self._find, max_bytes, keepalive_s, max_age_s, compression)
        self._is_shared = is_shared
        self._bound: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._listening: list[asyncio.Server] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As gRPC's."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """As gRPC's: generated code registers a service twice, once so."""

    def listen_on(self, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        """Bind each address of a host.

        Args:
            host: a name or an address, an IPv6 one without brackets; "::" is every address.
            port: 0 takes a free one.
            context: TLS with it.

        Returns:
            The port.

        Raises:
            OSError: it cannot be bound.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        faults: list[OSError] = []
        for family, *_, address in dict.fromkeys(found):
            try:
                one = self._bind(family, (address[0], port or address[1], *address[2:]), host)
            except OSError as error:
                faults.append(error)
                continue
            port = port or one.getsockname()[1]
            self._bound.append((one, context))
        if not self._bound:
            raise faults[0]
        return port

    async def start(self) -> None:
        """Take calls."""
        loop = asyncio.get_running_loop()
        for one, context in self._bound:
            self._listening.append(
                await loop.create_server(
                    lambda: Connection(self._shared),
                    sock=one,
                    ssl=context,
                    backlog=BACKLOG,
                    ssl_shutdown_timeout=SHUTDOWN_S if context else None,
                )
            )

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; cut those that are not done in time."""
        for listening in self._listening:
            listening.close()
        for one, _ in self._bound if not self._listening else ():
            one.close()
        for connection in list(self._shared.connections):
            connection.retire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._shared.connections:
                    await asyncio.sleep(0.01)
        for connection in list(self._shared.connections):
            connection.abort()
        await asyncio.sleep(0)

    @property
    def n_calls(self) -> int:
        """How many are under way, on all connections."""
        return sum(connection.n_calls for connection in self._shared.connections)

    def _bind(self, family: int, address: tuple[Any, ...], host: str) -> socket.socket:
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._is_shared:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
            one.setblocking(False)
            one.bind(address)
            one.listen(BACKLOG)
        except BaseException:
            one.close()
            raise
        return one

    def _find(self, path: str) -> Any:
        """The handler of a path; None: there is none."""
        handler = self._found.get(path)
        if handler is None:
            details: Any = _Details(path)
            for handlers in self._handlers:
                handler = handlers.service(details)
                if handler is not None:
                    self._found[path] = handler
                    break
        return handler

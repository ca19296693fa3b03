"""The HTTP door itself: routes, health, metrics, TLS, and its life beside the gRPC server's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.access.tls import ServerContext
from instructrec_deploy.server.http.calls import (
    CALLS,
    Aborted,
    Answer,
    Call,
    HttpContext,
    answer_call,
    failure,
)
from instructrec_deploy.server.http.openapi import describe_api
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.port import check_port, port_error
from instructrec_deploy.server.service import InstructRecService
from instructrec_deploy.server.settings import DoorSettings

STOP_S = 1  # for answers on their way when the server stops
IDLE_S = 30  # of a connection between two requests


class QuietServer(uvicorn.Server):
    """uvicorn's server, which leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


class HttpDoor:
    """JSON calls, `/openapi.json`, `/metrics`, `/healthz` and `/readyz` on one port."""

    def __init__(
        self,
        service: InstructRecService,
        metrics: Metrics,
        door: DoorSettings,
        access: AccessSettings,
    ) -> None:
        """Take the port; nothing is answered before `run`.

        Raises:
            PortInUse: the address cannot be bound.
            ConfigError: the certificate cannot be used.
        """
        self._service = service
        self._metrics = metrics
        self._door = door
        self._access = access
        self._api = describe_api(CALLS, needs_key=access.knows_callers)
        self._certificate = ServerContext(access) if access.uses_tls else None
        self._socket = _listen(door.host.strip("[]"), door.http_port)
        config = uvicorn.Config(
            self._app(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=STOP_S,
        )
        config.load()
        config.ssl = None if self._certificate is None else self._certificate.context
        self._server = QuietServer(config)

    @property
    def address(self) -> str:
        """Its URL."""
        scheme = "https" if self._access.uses_tls else "http"
        return f"{scheme}://{self._door.address(self._socket.getsockname()[1])}"

    async def run(self) -> None:
        """Answer until `stop`."""
        following = None
        if self._certificate is not None:
            following = asyncio.create_task(self._certificate.follow())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            if following is not None:
                following.cancel()

    def stop(self) -> None:
        """Take no more connections; `run` ends soon."""
        self._server.should_exit = True

    def _app(self) -> Starlette:
        routes = [
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/openapi.json", self._openapi),
            Route("/metrics", self._show_metrics),
        ]
        answers = self._service.answers()
        for call in CALLS:
            routes.append(
                Route(
                    call.path,
                    _Endpoint(call, answers[call.method], self._door.max_message_bytes),
                    methods=["GET" if call.is_get else "POST"],
                )
            )
        return Starlette(routes=routes)

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, request: Request) -> Response:
        is_ready = self._service.is_open
        return PlainTextResponse("ready" if is_ready else "not ready", 200 if is_ready else 503)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(self._api)

    async def _show_metrics(self, request: Request) -> Response:
        try:
            self._service.admit(HttpContext(request.headers, None), "Metrics")
        except InstructRecError as error:
            return failure(Aborted.by(error))
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        found = await asyncio.to_thread(encode, self._metrics.registry)
        return Response(found, headers={"content-type": kind})


class _Endpoint:
    """One call as an ASGI endpoint."""

    def __init__(self, call: Call, answer: Answer, max_bytes: int) -> None:
        self._call = call
        self._answer = answer
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        found = await answer_call(request, self._call, self._answer, max_bytes=self._max_bytes)
        await found(scope, receive, send)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, on the first address of the host.

    Raises:
        PortInUse: the address cannot be bound.
    """
    check_port(host, port)
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:  # somebody was faster
        made.close()
        raise port_error(f"{host}:{port}", error) from error
    return made

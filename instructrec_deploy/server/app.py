"""The server's life: bind, load, check, answer, drain, stop.

The port is bound before the model is loaded, so that a port in use is known at once; until the
model is checked, readiness is NOT_SERVING and calls are refused with UNAVAILABLE. On SIGTERM or
SIGINT readiness is NOT_SERVING, new calls are refused, accepted ones are answered; a second signal
ends the waiting. Then our own transport says goodbye (GOAWAY names the last call that it read); the
connections of gRPC's core are cut, for `grpc.aio.Server.stop` alone would end calls that reach it
late as CANCELLED.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server
from prometheus_client import disable_created_metrics

from instructrec_deploy.core.errors import ConfigError, MissingExtra
from instructrec_deploy.runtime.opening import Opening
from instructrec_deploy.server.access.gate import Gate
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.access.tls import ServerContext, server_credentials
from instructrec_deploy.server.connections import cut_connections
from instructrec_deploy.server.health import Health
from instructrec_deploy.server.http2.server import Http2Server
from instructrec_deploy.server.inference import InferenceService
from instructrec_deploy.server.lifecycle import Lifecycle
from instructrec_deploy.server.logs import LOGGER, set_up_logs
from instructrec_deploy.server.metrics import (
    Metrics,
    MetricsDoor,
    calm_collector,
    open_metrics_door,
)
from instructrec_deploy.server.places import OneBundle, Place, Repository, Source
from instructrec_deploy.server.port import check_port, port_error
from instructrec_deploy.server.quotas import Quotas
from instructrec_deploy.server.ready import Ready, describe_ready, log_ready, tell_people
from instructrec_deploy.server.served import Served, load_served
from instructrec_deploy.server.service import InstructRecService, Operator
from instructrec_deploy.server.settings import DoorSettings, ModelsSettings, ServerSettings
from instructrec_deploy.server.signals import StopSignals, process_signals
from instructrec_deploy.server.stream import StreamService
from instructrec_deploy.server.tracing.tracer import open_tracer
from instructrec_deploy.server.transport import Transport, make_transport
from instructrec_deploy.wire.inference import INFERENCE_SERVICE
from instructrec_deploy.wire.requests import SERVICE

# So long must no call come or end before the connections are cut: the last answers are on their
# way, and the callers we refuse have gone elsewhere. Those who never do are not waited for.
QUIET_S = 0.1
MAX_QUIET_S = 2.0
STOP_GRACE_S = 0.5  # for handlers to notice that their callers are gone
log = logging.getLogger(f"{LOGGER}.server")


class Membership(Protocol):
    """What a worker process has to do with those that answer on the same port."""

    async def admitted(self, metrics: Metrics) -> None:
        """The models are loaded; until it may listen."""

    async def replaced(self, port: int) -> None:
        """It listens on the port; until another one has taken its place and its callers."""

    async def left(self) -> None:
        """It answers no more, and ends."""

    def operator(self, own: Operator) -> Operator:
        """Who changes what all of them serve."""


def run_server(
    bundle: Path | Opening | None,
    settings: ServerSettings,
    *,
    on_ready: Callable[[Ready], None] | None = None,
    team: Callable[[], Awaitable[Membership]] | None = None,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT.

    Args:
        bundle: its folder, or what `begin_opening` made of it; None: the settings say a repository.
        settings: of the server.
        on_ready: called when it answers; None says so on standard error.
        team: joins the processes that answer on the same port; None: there are none.

    Raises:
        ConfigError: an address open to the network, a port in use.
        BundleError, NotFound: the bundle cannot be served.
    """
    set_up_logs(format=settings.server.log_format, level=settings.server.log_level)
    # No second series for each counter that says when it was made. (The call has no types.)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    sys.setswitchinterval(settings.server.switch_interval_ms / 1000)
    # Each lane reads its own texts; a pool beside them would want the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(bundle, settings, on_ready=on_ready or tell_people, team=team))


async def serve(
    bundle: Path | Opening | None,
    settings: ServerSettings,
    *,
    on_ready: Callable[[Ready], None] | None = None,
    signals: StopSignals | None = None,
    team: Callable[[], Awaitable[Membership]] | None = None,
) -> None:
    """As `run_server`, in a running loop. `signals`: those of the process unless given."""
    door = settings.server
    door.check_exposure(settings.access)
    asyncio.get_running_loop().set_exception_handler(_log_stray)
    metrics = Metrics()
    tracer = open_tracer(settings.tracing)
    service = InstructRecService(
        door,
        metrics,
        gate=Gate(settings.access),
        quotas=Quotas(settings.overload, metrics),
        tracer=tracer,
    )
    health = Health((SERVICE, INFERENCE_SERVICE))
    lifecycle = _lifecycle(bundle, settings, metrics, service, health)
    member = None if team is None else await team()
    if member is not None:
        service.operator = member.operator(lifecycle)
    async with (
        _http(service, metrics, settings) as http_address,
        contextlib.AsyncExitStack() as stack,
    ):
        if signals is None:
            signals = stack.enter_context(process_signals())
        server = _make_server(settings, service, health, is_shared=member is not None)
        await health.start()
        async with contextlib.AsyncExitStack() as ending:  # the last one first
            if member is not None:
                ending.push_async_callback(member.left)
            ending.push_async_callback(asyncio.to_thread, tracer.close)
            ending.push_async_callback(lifecycle.close)
            ending.push_async_callback(server.stop, STOP_GRACE_S)
            metrics_address = _start_metrics(stack, metrics, door)
            listen = partial(_listen, server, settings, ending)
            port = await _come_up(listen, lifecycle, signals, metrics, member)
            if not port:
                return
            watching = lifecycle.watch(settings.models.watch_s, signals.reload)
            stack.callback(asyncio.create_task(watching).cancel)
            calm_collector()
            metrics.metric("instructrec_ready").set(1)
            addresses = (door.address(port), metrics_address, http_address)
            ready = describe_ready(addresses, lifecycle.models)
            log_ready(ready, "ready" if member is None else "worker ready")
            if on_ready is not None:
                on_ready(ready)
            replaced = asyncio.Event().wait() if member is None else member.replaced(port)
            await _unless(signals.first, replaced)
            await _drain(service, health, metrics, signals, door)
    log.info("stopped")


def _lifecycle(
    bundle: Path | Opening | None,
    settings: ServerSettings,
    metrics: Metrics,
    service: InstructRecService,
    health: Health,
) -> Lifecycle:
    """What loads and swaps the models of the service."""
    begun = bundle if isinstance(bundle, Opening) else None

    def load(place: Place) -> Served:
        nonlocal begun
        source, begun = begun or place.folder, None
        return load_served(source, settings, metrics, name=place.name, release=place.release)

    async def publish(models: Sequence[Served]) -> None:
        service.open(models, default=settings.models.default)
        metrics.show_models(models)
        if service.is_open:
            await health.open(model.name for model in models)

    source = _source(bundle, settings.models)
    timeout_s = settings.server.drain_timeout_s
    service.operator = Lifecycle(source, load, publish, metrics, drain_timeout_s=timeout_s)
    return service.operator


def _source(bundle: Path | Opening | None, models: ModelsSettings) -> Source:
    """Where the models lie.

    Raises:
        ConfigError: a bundle and a repository are named, or neither.
    """
    if bool(models.repository) == (bundle is not None):
        raise ConfigError(
            "a bundle and a repository" if bundle else "which bundle?",
            hint="instructrec serve BUNDLE, or instructrec serve --repository FOLDER",
        )
    if bundle is None:
        return Repository(Path(models.repository), latest=models.latest, pins=models.pins)
    return OneBundle(bundle.folder if isinstance(bundle, Opening) else bundle)


async def _come_up(
    listen: Callable[[], Awaitable[int]],
    lifecycle: Lifecycle,
    signals: StopSignals,
    metrics: Metrics,
    member: Membership | None,
) -> int:
    """Listen and load, in that order; where others answer on the port, load first.

    Returns:
        The port; 0 where a signal came meanwhile.
    """
    if member is None:
        port = await listen()
        return port if await _start_models(lifecycle, signals) else 0
    if not await _start_models(lifecycle, signals):
        return 0
    await _unless(signals.first, member.admitted(metrics))
    return 0 if signals.first.is_set() else await listen()


async def _start_models(lifecycle: Lifecycle, signals: StopSignals) -> bool:
    """Load and check the models; False where a signal came meanwhile."""
    loading = asyncio.create_task(lifecycle.start())
    stopping = asyncio.create_task(signals.first.wait())
    await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await loading  # a thread cannot be stopped midway
    return not signals.first.is_set()


async def _drain(
    service: InstructRecService,
    health: Health,
    metrics: Metrics,
    signals: StopSignals,
    door: DoorSettings,
) -> None:
    """Tell everybody, refuse what is new, finish what was accepted."""
    start = time.monotonic()
    log.info("draining")
    metrics.metric("instructrec_ready").set(0)
    await health.close()
    await _unless(signals.second, asyncio.sleep(door.drain_wait_s))
    service.close()
    await _unless(signals.second, service.wait_idle(door.drain_timeout_s))
    await _unless(signals.second, service.wait_quiet(QUIET_S, MAX_QUIET_S))
    n_left = await service.wait_idle(0)
    log.info("drained", extra={"n_lost": n_left, "drain_s": round(time.monotonic() - start, 3)})


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, Any]) -> None:
    """Wait for the work or the event, whichever comes first."""
    tasks = [asyncio.create_task(work), asyncio.create_task(event.wait())]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


def _make_server(
    settings: ServerSettings, service: InstructRecService, health: Health, *, is_shared: bool
) -> Transport:
    """A gRPC server with all services, not bound yet. `is_shared`: its port has more of them."""
    door, access = settings.server, settings.access
    if not is_shared:
        check_port(door.host.strip("[]"), door.port)
    server = make_transport(door, is_shared=is_shared)
    inference = InferenceService(service, health)
    stream = StreamService(service, door)
    parts = (service, stream, inference, health)
    server.add_generic_rpc_handlers(tuple(part.handlers() for part in parts))
    if not access.knows_callers if door.use_reflection is None else door.use_reflection:
        names = (SERVICE, INFERENCE_SERVICE, HEALTH_NAME, reflection.SERVICE_NAME)
        servicer = reflection.aio.ReflectionServicer(names)
        add_ServerReflectionServicer_to_server(servicer, server)
    return server


async def _listen(
    server: Transport, settings: ServerSettings, ending: contextlib.AsyncExitStack
) -> int:
    """Bind and answer; the port, whose connections are cut at the end.

    Raises:
        PortInUse: the address cannot be bound.
        ConfigError: the certificate cannot be used.
    """
    door, access = settings.server, settings.access
    address = door.address(door.port)
    try:
        if isinstance(server, Http2Server):
            port = server.listen_on(door.host.strip("[]"), door.port, _tls(access, ending))
        else:
            if access.uses_tls:
                port = server.add_secure_port(address, server_credentials(access))
            else:
                port = server.add_insecure_port(address)
            ending.callback(cut_connections, port)  # ours says goodbye by itself
    except (RuntimeError, OSError) as error:  # somebody was faster
        raise port_error(address, error) from error
    await server.start()
    return port


def _tls(access: AccessSettings, ending: contextlib.AsyncExitStack) -> ssl.SSLContext | None:
    """TLS of our own transport, its files looked at until the end; None without."""
    if not access.uses_tls:
        return None
    context = ServerContext(access, protocol="h2")
    ending.callback(asyncio.create_task(context.follow()).cancel)
    return context.context


def _start_metrics(stack: contextlib.AsyncExitStack, metrics: Metrics, door: DoorSettings) -> str:
    if not door.metrics_port:
        return ""
    metrics_door: MetricsDoor = open_metrics_door(metrics.registry, door.host, door.metrics_port)
    stack.callback(metrics_door.close)
    return f"http://{door.address(door.metrics_port)}/metrics"


@contextlib.asynccontextmanager
async def _http(
    service: InstructRecService, metrics: Metrics, settings: ServerSettings
) -> AsyncIterator[str]:
    """The HTTP door, where it is wanted: its address; "" without.

    Raises:
        MissingExtra: its packages are not installed.
        PortInUse, ConfigError: as `HttpDoor`.
    """
    if not settings.server.http_port:
        yield ""
        return
    try:
        from instructrec_deploy.server.http.door import HttpDoor
    except ImportError as error:
        raise MissingExtra(
            "server.http_port needs starlette and uvicorn, which are not installed",
            hint="pip install 'instructrec-deploy[http]'",
        ) from error
    door = HttpDoor(service, metrics, settings.server, settings.access)
    answering = asyncio.create_task(door.run())
    try:
        yield door.address
    finally:
        door.stop()
        await answering


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (not on Windows): a fifth less time per call."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """An exception nobody awaited: its type and place, never its message."""
    error = context.get("exception")
    log.error("stray exception", exc_info=error if isinstance(error, BaseException) else None)

"""`instructrec health`: ask a server whether it is ready (what a container's health check runs)."""

from __future__ import annotations

from typing import Annotated

import typer


def health(
    address: Annotated[str, typer.Option("--address", "-a", help="HOST:PORT")] = "127.0.0.1:50051",
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, max=86_400.0, help="Seconds to wait.")
    ] = 5.0,
    model: Annotated[str, typer.Option(help="Of this model; empty: of the server.")] = "",
    is_live: Annotated[
        bool, typer.Option("--live", help="Whether the process answers, ready or not.")
    ] = False,
) -> None:
    """Ask a server whether it takes requests; exit code 0 if it does, 4 if not."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from instructrec_deploy.client.security import Security
    from instructrec_deploy.core.errors import ConfigError, Unavailable
    from instructrec_deploy.wire.requests import SERVICE

    if model and is_live:
        raise ConfigError("--live is of the process, not of a model", hint="leave one of them out")
    name = "" if is_live else model or SERVICE
    with Security.from_environ().open_channel(grpc, address) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=name), timeout=timeout_s
            )
        except grpc.RpcError as error:
            raise Unavailable(
                f"no healthy server at {address} ({error.code().name})",
                hint="start one: instructrec serve BUNDLE",
            ) from error
    word = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise Unavailable(f"the server at {address} says {word}", hint="wait until it is ready")
    typer.echo(word)

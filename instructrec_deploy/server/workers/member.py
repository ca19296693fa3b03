"""A worker's side: it loads, waits to be let in, tells its figures, and leaves when replaced."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence

from instructrec_deploy.core.errors import WorkersCannot
from instructrec_deploy.core.status import ModelChange, ServedModel
from instructrec_deploy.server.connections import (
    count_connections,
    hold_off,
    stop_listening,
)
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.ready import Ready
from instructrec_deploy.server.service import Operator
from instructrec_deploy.server.workers.figures import tell_figures
from instructrec_deploy.server.workers.link import Link

TAKE_IN_S = 0.5  # for those who have begun to connect: some round trips, and our own turn
LOOK_S = 0.1  # between two looks at whether the last caller has gone
AGE_SPREAD = 1.1  # gRPC lets a connection get up to a tenth older than it is told
LEAVE_WITHIN_S = 10.0  # then: for calls under way, and on a busy machine
log = logging.getLogger(f"{LOGGER}.workers")


class Member:
    """A `Membership` under a supervisor. All methods run on the event loop."""

    def __init__(self, link: Link, *, connection_age_s: float) -> None:
        self._link = link
        self._age_s = connection_age_s
        self._metrics: Metrics | None = None
        self._go = asyncio.Event()
        self._retired = asyncio.Event()
        self._has_left = False
        self._following = asyncio.create_task(self._follow())

    @classmethod
    async def join(cls, sock: socket.socket, *, connection_age_s: float) -> Member:
        """Over the socket to the supervisor."""
        return cls(await Link.open(sock), connection_age_s=connection_age_s)

    async def admitted(self, metrics: Metrics) -> None:
        """See `Membership`."""
        self._metrics = metrics
        self._link.send("loaded")
        await self._go.wait()

    def announce(self, ready: Ready) -> None:
        """It answers."""
        facts = {name: getattr(ready, name) for name in Ready.__slots__}
        self._link.send("ready", **facts)

    async def replaced(self, port: int) -> None:
        """See `Membership`. Nobody is refused: callers are told to connect anew, in their turn."""
        await self._retired.wait()
        if hold_off(port):
            await asyncio.sleep(TAKE_IN_S)
        n_listened = stop_listening(port)
        log.info("leaving", extra={"n_connections": count_connections(port)})
        end_s = time.monotonic() + AGE_SPREAD * self._age_s + LEAVE_WITHIN_S
        while n_listened and self._age_s and time.monotonic() < end_s:
            if not await asyncio.to_thread(count_connections, port):
                return
            await asyncio.sleep(LOOK_S)

    async def left(self) -> None:
        """See `Membership`."""
        self._has_left = True
        self._tell()  # what it counted stays in the sums
        await self._link.flush()
        self._link.close()

    def operator(self, own: Operator) -> Operator:
        """See `Membership`."""
        return _NoOperator(own)

    def _tell(self) -> None:
        if self._metrics is not None:
            self._link.send("figures", families=tell_figures(self._metrics.registry))

    async def _follow(self) -> None:
        """Do what the supervisor says; without one, leave."""
        while (message := await self._link.receive()) is not None:
            if message["kind"] == "go":
                self._go.set()
            elif message["kind"] == "retire":
                self._retired.set()
            elif message["kind"] == "figures":
                self._tell()
        if not self._has_left:
            log.warning("the supervisor is gone")
            os.kill(os.getpid(), signal.SIGTERM)  # as one who is told to stop: it drains


class _NoOperator:
    """Says what is refused; swaps nothing, for one worker's models are not those of the others."""

    def __init__(self, own: Operator) -> None:
        self._own = own

    def refused(self) -> Sequence[ServedModel]:
        """See `Operator`."""
        return self._own.refused()

    async def swap(self, model: str, *, is_rollback: bool) -> ModelChange:
        """See `Operator`."""
        raise WorkersCannot(
            "SwapModel reaches one worker of several",
            hint="point the link to the other version and send SIGHUP to the server, "
            "or serve with --watch (docs/operations.md)",
        )

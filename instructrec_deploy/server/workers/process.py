"""One worker process as its supervisor sees it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from typing import Any

from instructrec_deploy.core.errors import InstructRecError, InternalError
from instructrec_deploy.core.failure import rebuild_error
from instructrec_deploy.server.workers.link import Link, Message

WORKER_PROGRAM = "instructrec_deploy.server.workers.worker"
FIGURES_WITHIN_S = 2.0  # a worker that is slower is shown as it was
Family = list[Any]  # see figures.py


class WorkerProcess:
    """Started, followed until it ends. For one event loop; make it by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, link: Link) -> None:
        self.process = process
        self.started_s = time.monotonic()
        self.loaded = asyncio.Event()
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.facts: Message = {}  # of "ready"
        self.families: list[Family] = []  # as it last told
        self.is_retired = False
        self._failure: Message | None = None
        self._told = asyncio.Event()
        self._link = link
        self._following = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, bundle: str, settings: dict[str, Any]) -> WorkerProcess:
        """A new process; it begins to load."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                WORKER_PROGRAM,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C reaches the supervisor alone, which stops it in order
            )
        ours.setblocking(False)
        link = await Link.open(ours)
        link.send("plan", bundle=bundle, settings=settings)
        return cls(process, link)

    @property
    def error(self) -> InstructRecError:
        """Why it ended."""
        if self._failure is None:
            return InternalError(
                f"a worker ended: {self.how_ended}", hint="its last lines stand in the log"
            )
        told = self._failure
        return rebuild_error(told["message"], code=told["code"], hint=told["hint"])

    @property
    def how_ended(self) -> str:
        """Its exit code, or the signal that ended it."""
        code = self.process.returncode or 0
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    @property
    def ready_s(self) -> float:
        """For how long it has lived, if it has ever been ready."""
        return time.monotonic() - self.started_s if self.ready.is_set() else 0.0

    async def wait_loaded(self) -> bool:
        """Wait until it could answer; False where it ended before."""
        return await self._until(self.loaded)

    async def go(self) -> bool:
        """Have it listen; False where it ended before it did."""
        self._link.send("go")
        return await self._until(self.ready)

    def retire(self) -> None:
        """Another one has taken its place: it leaves when its callers have gone."""
        self.is_retired = True
        self._link.send("retire")

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def tell_figures(self) -> list[Family]:
        """Its metrics, as they are now or as it last told them."""
        if not self.ended.is_set():
            self._told.clear()
            self._link.send("figures")
            try:
                async with asyncio.timeout(FIGURES_WITHIN_S):
                    await self._told.wait()
            except TimeoutError:
                pass
        return self.families

    async def _until(self, event: asyncio.Event) -> bool:
        """Wait for the event or its end; whether it was the event."""
        tasks = [asyncio.create_task(one.wait()) for one in (event, self.ended)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        return event.is_set() and not self.ended.is_set()

    async def _follow(self) -> None:
        while (message := await self._receive()) is not None:
            kind = message["kind"]
            if kind == "loaded":
                self.loaded.set()
            elif kind == "ready":
                self.facts = message
                self.ready.set()
            elif kind == "failed":
                self._failure = message
            elif kind == "figures":
                self.families = message["families"]
                self._told.set()
        await self.process.wait()
        self._link.close()
        self.ended.set()
        self._told.set()

    async def _receive(self) -> Message | None:
        try:
            return await self._link.receive()
        except json.JSONDecodeError:  # it died in the middle of a frame
            return None

"""Which versions answer: loads new ones beside the old, swaps, goes back, lets the old ones end.

A new version is opened, warmed and checked against its golden pairs while the old one answers. If
that fails, nothing changes but the log and a counter. If not, the shelf of models is replaced in
one step on the event loop; the old version answers what it has accepted, then its memory is freed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from instructrec_deploy.core.errors import (
    FileMissing,
    InstructRecError,
    InternalError,
    ModelUnknown,
    RollbackImpossible,
)
from instructrec_deploy.core.memory import return_freed_memory
from instructrec_deploy.core.status import ModelChange, ServedModel
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.places import Place, Source, look_at
from instructrec_deploy.server.served import Served

MAX_HISTORY = 8  # earlier versions of a model that can be gone back to
SWAPS = "instructrec_model_swaps_total"
log = logging.getLogger(f"{LOGGER}.lifecycle")


@dataclass(frozen=True, slots=True)
class Running:
    """A version that answers, and where it came from."""

    place: Place
    served: Served


class Load(Protocol):
    """Opens, warms and checks a bundle. Blocks."""

    def __call__(self, place: Place) -> Served: ...


class Lifecycle:
    """The versions being served. All methods run on the event loop; one change at a time.

    Args:
        source: what is to be served.
        load: makes a model of a place.
        publish: puts all models on the shelf in one step, those that answer from now on, the newest
            version of a name last.
        drain_timeout_s: how long an old version may take over what it has accepted.
    """

    def __init__(
        self,
        source: Source,
        load: Load,
        publish: Callable[[Sequence[Served]], Awaitable[None]],
        metrics: Metrics,
        *,
        drain_timeout_s: float = 30.0,
    ) -> None:
        self._source = source
        self._load = load
        self._publish = publish
        self._metrics = metrics
        self._drain_timeout_s = drain_timeout_s
        self._lock = asyncio.Lock()
        self._running: dict[str, list[Running]] = {}
        self._history: dict[str, list[Place]] = {}  # where earlier versions came from
        self._passed_over: dict[
            Place, InstructRecError | None
        ] = {}  # refused; None: gone back from
        self._seen: frozenset[Place] = frozenset()  # at the last look
        self._is_started = False
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> list[Served]:
        """Those that answer."""
        return [one.served for group in self._running.values() for one in group]

    def refused(self) -> list[ServedModel]:
        """What lies there and cannot be served."""
        return [
            ServedModel(place.name, release=place.release, state="refused", code=fault.code)
            for place, fault in self._passed_over.items()
            if fault is not None and place.name
        ]

    async def start(self) -> None:
        """Load what is to be served; where the newest version cannot be, the one before.

        Raises:
            InstructRecError: nothing of it can be served.
        """
        async with self._lock:
            found = await asyncio.to_thread(self._source.look)
            for name, places in found.items():
                await self._renew(name, places)
            if not self._running:
                faults = [fault for fault in self._passed_over.values() if fault is not None]
                raise (
                    faults[0]
                    if faults
                    else FileMissing(
                        "there is no bundle to serve",
                        hint="put one into MODEL/RELEASE/ of the folder",
                    )
                )
            self._seen = frozenset(place for places in found.values() for place in places)
            self._is_started = True
            await self._publish(self.models)

    async def refresh(self, model: str = "", *, is_forced: bool = True) -> list[ModelChange]:
        """Look at the source and serve what is new there.

        Args:
            model: this one alone; "": all.
            is_forced: somebody asks for it: what was refused or gone back from is tried again, and
                what is refused is raised. Else a folder is left alone until it has stopped
                changing, and a refusal is only logged.

        Raises:
            InstructRecError: a new version cannot be served; the old one goes on.
            ModelUnknown: no such model.
        """
        async with self._lock:
            found = await asyncio.to_thread(self._source.look)
            asked = {key for key in found if not model or self._is_called(key, model)}
            if not asked and model:
                raise _unknown(model)
            if is_forced:
                for place in [place for place in self._passed_over if place.name in asked]:
                    del self._passed_over[place]
            seen = frozenset(place for places in found.values() for place in places)
            is_known = seen.__contains__ if is_forced else self._seen.__contains__
            self._seen = seen
            self._passed_over = {p: f for p, f in self._passed_over.items() if p in seen}
            changes = []
            await self._drop(self._running.keys() - found.keys())
            for name, places in found.items():
                if name not in asked:
                    continue
                is_quiet = all(is_known(p) or self._runs(p) for p in places)
                if is_quiet and (change := await self._renew(name, places)) is not None:
                    changes.append(change)
            faults = [f for place, f in self._passed_over.items() if f and place.name in asked]
        if is_forced and faults:
            raise faults[0]
        return changes

    async def rollback(self, model: str = "") -> ModelChange:
        """Go back to the version that answered before.

        The version gone back from is passed over until its files change or somebody asks for a
        refresh.

        Raises:
            RollbackImpossible: there is none before, or it does not lie there any more.
            ModelUnknown: no such model, or several and none named.
            InstructRecError: the version before cannot be served; the present one goes on.
        """
        async with self._lock:
            key = self._key_of(model)
            present = self._running[key][-1]
            self._passed_over[present.place] = None
            try:
                found = await asyncio.to_thread(self._source.look)
                change = await self._renew(key, found.get(key, ()), "rolled_back")
                return change or await self._restore(key, present)
            except BaseException:
                del self._passed_over[present.place]
                raise

    async def _restore(self, key: str, present: Running) -> ModelChange:
        """Serve what was served before from another folder."""
        history = self._history.get(key, [])
        if not history:
            raise RollbackImpossible(
                "there is no version to go back to",
                hint="one is there after a swap, if its folder is kept",
            )
        place = history[-1]
        if await asyncio.to_thread(look_at, place.folder, place.name, place.release) != place:
            raise RollbackImpossible(
                f"the version before does not lie in {place.folder} any more",
                hint="keep each version in a folder of its own, and link to the one to serve",
            )
        served = await asyncio.to_thread(self._open, place, present.served)
        history.pop()
        change = await self._replace(key, [Running(place, served)], note=False)
        self._note("rolled_back", change)
        return change

    async def _drop(self, names: AbstractSet[str]) -> None:
        """Serve these models no more: their folders are gone. All at once is a lost disk."""
        if not names or names == self._running.keys():
            return
        for name in names:
            for one in self._running.pop(name):
                self._end(one.served, ())
                log.warning("model dropped", extra={"model": one.served.name})
        await self._publish(self.models)

    async def swap(self, model: str, *, is_rollback: bool) -> ModelChange:
        """`rollback` or `refresh` of one model; finished even if the caller gives up meanwhile.

        Raises:
            InstructRecError: as these two.
        """
        if is_rollback:
            return await asyncio.shield(self.rollback(model))
        if not model:
            self._key_of(model)  # the only one
        changes = await asyncio.shield(self.refresh(model))
        newest = self._running[self._key_of(model)][-1].served
        unchanged = ModelChange(newest.name, newest.version, newest.version)
        return next((one for one in changes if one.model == newest.name), unchanged)

    async def watch(self, every_s: float, nudge: asyncio.Event) -> None:
        """Refresh every so often (0: never), and whenever somebody nudges, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(every_s or None):
                    await nudge.wait()
            except TimeoutError:
                pass
            is_forced = nudge.is_set()
            nudge.clear()
            try:
                await asyncio.shield(self.refresh(is_forced=is_forced))
            except InstructRecError:
                continue  # it stands in the log already
            except OSError as error:
                log.error("cannot look for new versions", extra={"reason": error.strerror})

    async def close(self) -> None:
        """End everything, once a change that is under way is done."""
        async with self._lock:
            await asyncio.gather(*self._retiring)
            await asyncio.to_thread(_close_all, self.models)
            self._running = {}

    def _runs(self, place: Place) -> bool:
        return any(one.place == place for one in self._running.get(place.name, ()))

    def _is_called(self, key: str, model: str) -> bool:
        return key == model or any(r.served.name == model for r in self._running.get(key, ()))

    def _key_of(self, model: str) -> str:
        keys = [key for key in self._running if not model or self._is_called(key, model)]
        if len(keys) != 1:
            raise _unknown(model)
        return keys[0]

    async def _renew(
        self, name: str, places: Sequence[Place], outcome: str = "swapped"
    ) -> ModelChange | None:
        """Serve what is to be served of one model; None where nothing changes."""
        before = self._running.get(name, [])
        loaded: dict[Place, Served] = {}
        while True:
            usable = [place for place in places if place not in self._passed_over]
            wanted = self._source.choose(name, usable)
            if missing := [p for p in wanted if not self._runs(p) and p not in loaded]:
                older = before[-1] if before else None
                await self._try(missing[-1], older, loaded)
                continue
            break
        group = [
            Running(place, loaded.pop(place)) if place in loaded else self._running_at(place)
            for place in wanted
        ]
        for unwanted in loaded.values():
            unwanted.close()
        if not group or group == before:
            return None
        change = await self._replace(name, group)
        if self._is_started:
            self._note(outcome, change)
        return change

    def _note(self, outcome: str, change: ModelChange) -> None:
        self._metrics.metric(SWAPS, outcome).inc()
        what = {"model": change.model, "model_version": change.model_version}
        log.info(
            outcome.replace("_", " "), extra={**what, "previous_version": change.previous_version}
        )

    def _running_at(self, place: Place) -> Running:
        return next(one for one in self._running[place.name] if one.place == place)

    async def _try(self, place: Place, older: Running | None, loaded: dict[Place, Served]) -> None:
        """Load a version, or note why not."""
        try:
            before = None if older is None else older.served
            loaded[place] = await asyncio.to_thread(self._open, place, before)
        except InstructRecError as error:
            self._refuse(place, error)
        except Exception as fault:  # whatever a bundle does, the old one serves on
            log.error("unexpected error", exc_info=fault)
            self._refuse(place, InternalError("the bundle cannot be loaded", hint="see the log"))

    def _open(self, place: Place, older: Served | None) -> Served:
        """In a thread: load, check, and prepare what callers use."""
        served = self._load(place)
        if older is not None:
            served.take_over(older)
        return served

    def _refuse(self, place: Place, error: InstructRecError) -> None:
        self._passed_over[place] = error
        self._metrics.metric(SWAPS, "refused").inc()
        what = {"folder": str(place.folder), "code": error.code, "reason": error.message}
        log.error("new version refused", extra={**what, "hint": error.hint})

    async def _replace(self, name: str, group: list[Running], *, note: bool = True) -> ModelChange:
        """The swap itself; then let those that are left end."""
        before = self._running.get(name, [])
        self._running[name] = group
        if self._is_started:
            await self._publish(self.models)
        gone = [one for one in before if one not in group]
        if note:
            self._history.setdefault(name, []).extend(one.place for one in gone)
            del self._history[name][:-MAX_HISTORY]
        newer = [one.served for one in group if one not in before]
        for one in gone:
            self._end(one.served, newer)
        newest = group[-1].served
        previous = before[-1].served.version if before else ""
        return ModelChange(newest.name, newest.version, previous)

    def _end(self, served: Served, newer: Sequence[Served]) -> None:
        task = asyncio.create_task(self._retire(served, newer))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, served: Served, newer: Sequence[Served]) -> None:
        """Wait for what it has accepted, then free its memory."""
        is_drained = await asyncio.to_thread(served.drain, self._drain_timeout_s)
        for one in newer:
            one.settle()
        await asyncio.to_thread(_close_all, [served])
        what = {"model": served.name, "model_version": served.version, "is_drained": is_drained}
        log.info("old version closed", extra=what)


def _close_all(models: Sequence[Served]) -> None:
    for served in models:
        served.close()
    gc.collect()  # what start-up made is out of its sight (`calm_collector`), so it is quick
    return_freed_memory()


def _unknown(model: str) -> ModelUnknown:
    return ModelUnknown(
        "no such model is served" if model else "which model?",
        hint="GetModelStatus lists those there are",
    )

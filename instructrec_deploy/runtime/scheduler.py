"""Worker threads around the queue: requests of all tasks meet here and are answered in batches.

A request goes: `submit` (checked, questions resolved, a place in the queue) -> guard and tokenizer
-> preparation of its instruction where that is missing -> the queue, by length -> a batch. Workers
do all of it but `submit`; there is one for each lane of the engine. A preparation is done step by
step between batches, so a long one holds nobody up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from instructrec_deploy.core.errors import (
    DeadlinePassed,
    InstructRecError,
    Overloaded,
    Unavailable,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.admission import Admission, Load, OverloadSettings, Stay
from instructrec_deploy.runtime.batching import BatchingSettings, BatchQueue, Taken
from instructrec_deploy.runtime.gathering import Gathering
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.runtime.last_in import LastInFirstOut
from instructrec_deploy.runtime.observer import Observer
from instructrec_deploy.runtime.open_tickets import OpenTickets
from instructrec_deploy.runtime.pipeline import Outcome, Pipeline
from instructrec_deploy.runtime.preparations import Preparation, PreparationLine
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.runtime.readings import Reading, Readings, pick_twins
from instructrec_deploy.runtime.tickets import (
    Answering,
    Ticket,
    batch_stats,
    closing_error,
    deliver,
    known_error,
    late_error,
)

READ_ITEMS = 16  # texts guarded and tokenized in one go; more would keep the first ones waiting
ENOUGH_ITEMS = 256  # tokenized and waiting: enough to choose batches from; compute first
Step = Callable[[], None]


class Scheduler:
    """Answers submitted requests in length-aware batches. Its threads start at once.

    Args:
        pipeline: what computes; the scheduler does not close it.
        settings: of the queue.
        overload: the latency target.
        observer: hears what happens.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: BatchingSettings = BatchingSettings(),
        *,
        overload: OverloadSettings = OverloadSettings(),
        observer: Observer | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._settings = settings.fitted(
            is_gpu=pipeline.engine.is_gpu, batch_tokens=pipeline.engine.batch_tokens
        )
        self._observer = observer or Observer()
        self._clock = pipeline.clock
        n_lanes = self._n_lanes = pipeline.engine.n_lanes
        lock = threading.Lock()
        self._changed = LastInFirstOut(lock)
        self._arrivals: deque[Ticket] = deque()
        self._readings = Readings()
        pace = self._settings.pace(n_lanes)
        self._queue: BatchQueue[Ticket] = BatchQueue(
            self._settings.hurried(overload.due_s),
            clock=self._clock,
            pace=pace,
            max_batch_s=overload.max_batch_s,
        )
        self._admission = Admission(overload, pace=pace, clock=self._clock, n_workers=n_lanes)
        self._max_tokens = pipeline.bundle.manifest.model.max_tokens
        self._gathering = Gathering(self._settings.gather_ms / 1000, clock=self._clock)
        self._open = OpenTickets(
            lock, self._admission, self._queue, self._gathering, self._observer
        )
        # One lane at least stays free for texts, where there are two.
        self._line = PreparationLine(pipeline.preparer, max_running=max(1, n_lanes - 1))
        self._is_batch_next = False
        self._n_idle = self._n_gathering = 0  # without work; of these, who wait for more of it
        self._busy_since_s = [self._clock()] * n_lanes  # with texts: to learn the pace
        self._is_admitting = True
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"lane-{lane}", daemon=True)
            for lane in range(n_lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def n_waiting(self) -> int:
        """Requests that wait to be computed."""
        return self._queue.n_waiting

    @property
    def load(self) -> Load:
        """What is in flight, and how much may be."""
        with self._changed:
            return self._admission.load()

    def submit(self, request: Request, *, deadline: float | None = None) -> Future[Prediction]:
        """Queue a request. The future's `cancel` drops it while it waits.

        Args:
            request: built by `Request.of`.
            deadline: seconds of the monotonic clock after which no one wants the answer.

        Raises:
            RequestError, NotFound: it cannot be answered.
            Overloaded: the queue is full, or the answer would come after deadline or target.
            DeadlinePassed: it is late already.
            Unavailable: draining or closed.
        """
        ticket = Ticket(self.pipeline.admit(request, deadline_s=deadline), Answering())
        n_tokens = ticket.job.guess_tokens(self._max_tokens)
        try:
            with self._changed:
                self._check_admitting()
                self._admission.check(request.tenant)
                self._queue.reserve(deadline, tenant=request.tenant)
                ticket.stay = self._admission.enter(Stay(n_tokens, request.tenant, request.share))
                self._open.n_tickets += 1
                is_first = not self._arrivals and not len(self._queue)
                self._gathering.come(is_first=is_first, deadline_s=deadline)
                self._arrivals.append(ticket)
                n_waiting = self._queue.n_waiting
                # Who waits for more is not woken by each.
                if self._n_idle and not (self._n_gathering and self._wait_s(self._n_idle)):
                    self._changed.notify()
        except Overloaded as error:
            self._observer.refused(error.reason)
            raise
        except DeadlinePassed:
            self._observer.dropped("expired", 1)
            raise
        ticket.future.on_cancel = partial(self._on_cancel, ticket)
        self._observer.queued(n_waiting)
        return ticket.future

    def prepare(self, instruction: Instruction) -> Future[PreparedInstruction]:
        """Prepare an instruction between batches; done at once where it is cached.

        Raises:
            RequestError, LabelUnknown: it cannot be answered by this bundle.
            Overloaded: too many are being prepared.
            Unavailable: draining or closed.
        """
        self.pipeline.preparer.check(instruction)
        future: Future[PreparedInstruction] = Future()
        key = instruction.key
        cached = self.pipeline.cache.get(key)
        if cached is not None:
            deliver(future, cached)
            return future
        with self._changed:
            self._check_admitting()
            if len(self._line) >= self._settings.max_queue_items:
                raise Overloaded("too many instructions are being prepared", hint="try again later")
            self._line.join(instruction, key).futures.append(future)
            self._changed.notify()
        return future

    def drain(self, timeout_s: float) -> bool:
        """Admit no more, wait for what was admitted; False where some of it took too long."""
        with self._open.ended:
            self._is_admitting = False
            return self._open.ended.wait_for(
                lambda: self._open.n_tickets == 0 and len(self._line) == 0, timeout_s
            )

    def close(self) -> None:
        """Admit no more, refuse what still waits, finish what runs, end the threads."""
        with self._changed:
            self._is_admitting, self._is_closed = False, True
            left = [entry.payload for entry in self._queue.take_all()]
            left += self._arrivals
            self._arrivals.clear()
            preparations = self._line.take_all()
            for made in preparations:
                left += made.tickets
            self._changed.notify_all()
        error = closing_error()
        self._open.refuse(dict.fromkeys(left), error, "closed")
        for made in preparations:
            for future in made.futures:
                deliver(future, error)
        for thread in self._threads:
            thread.join()

    def _check_admitting(self) -> None:
        if not self._is_admitting:
            raise Unavailable("the server is draining", hint="try again with another server")

    def _work(self, lane: int) -> None:
        """A worker's life: take the next step, do it."""
        while (step := self._next_step(lane)) is not None:
            step()
            del step  # it holds what was computed; the next one may be long in coming

    def _next_step(self, lane: int) -> Step | None:
        """Wait for something to do; None at the end."""
        with self._changed:
            while not self._is_closed:
                wait_s = self._wait_s(1 + self._n_idle)
                step = self._pick_step(lane, is_gathering=wait_s > 0)
                if step is not None:
                    return step
                self._n_idle += 1
                self._n_gathering += wait_s > 0
                self._changed.wait(wait_s or None)
                self._n_gathering -= wait_s > 0
                self._n_idle -= 1
                self._busy_since_s[lane] = self._clock()
        return None

    def _pick_step(self, lane: int, *, is_gathering: bool) -> Step | None:
        """What is to be done now. Holds the lock."""
        if self._arrivals and len(self._queue) < ENOUGH_ITEMS and not is_gathering:
            n_items = min(READ_ITEMS, len(self._arrivals))
            return partial(self._read, [self._arrivals.popleft() for _ in range(n_items)], lane)
        has_batch = len(self._queue) > 0 and not is_gathering
        if self._line.is_ready and not (has_batch and self._is_batch_next):
            self._is_batch_next = True
            return partial(self._prepare_step, self._line.start(), lane)
        if not has_batch:
            return None
        self._is_batch_next = False
        taken = self._queue.take(
            n_takers=1 + self._n_idle,
            n_coming=self._gathering.n_away,
            share_tokens=self._share_tokens,
        )
        return partial(self._compute, taken, lane)

    def _wait_s(self, n_free: int) -> float:
        """How long free workers wait for more company of what is here; 0.0: begin, or no work."""
        n_here = len(self._arrivals) + len(self._queue)
        if len(self._arrivals) >= READ_ITEMS or not n_here:
            return 0.0
        if self._queue.n_waiting_tokens >= self._share_tokens:
            return 0.0
        return self._gathering.wait_s(n_here, n_free)

    @property
    def _share_tokens(self) -> float:
        """Tokens of a batch, by what is in flight."""
        return self._settings.share_tokens(self._admission.n_tokens, self._n_lanes)

    def _read(self, tickets: list[Ticket], lane: int) -> None:
        """Guard and tokenize arrivals; queue them, or have their instructions prepared first."""
        now = self._clock()
        self._open.refuse([t for t in tickets if t.future.cancelled()], None, "cancelled")
        late = [ticket for ticket in tickets if ticket.is_open and ticket.is_late(now)]
        self._open.refuse(late, late_error(), "expired")
        live = [ticket for ticket in tickets if ticket.is_open]
        try:
            self.pipeline.read([ticket.job for ticket in live], lane=lane)
            if not self._settings.join_equal:
                for ticket in live:
                    ticket.job.reading = None
        except Exception as fault:  # noqa: BLE001  # the worker's border
            self._open.refuse(live, known_error(fault), None)
            return
        blocked = [ticket for ticket in live if ticket.job.is_blocked]
        if blocked:
            self._open.finish(blocked, self.pipeline.compute([ticket.job for ticket in blocked]))
        with self._changed:
            open_tickets = [ticket for ticket in live if not ticket.job.is_blocked]
            refused = open_tickets if self._is_closed else []
            for ticket in [] if refused else open_tickets:
                self._place(ticket)
            # This worker goes on with one part of it; others may help.
            self._changed.notify(max(0, len(open_tickets) - 1))
        self._open.refuse(refused, closing_error(), "closed")

    def _place(self, ticket: Ticket) -> None:
        """Queue a read ticket, or have what it misses prepared. Holds the lock."""
        missing: dict[str, Instruction] = {}
        for ask in ticket.job.asks:
            if ask.prepared is None:
                ask.prepared = self.pipeline.cache.get(ask.key)
            if ask.prepared is None:
                missing[ask.key] = ask.instruction
        for key, instruction in missing.items():
            self._line.join(instruction, key).tickets.append(ticket)
        ticket.n_missing = len(missing)
        if not missing:
            self._put(ticket)

    def _put(self, ticket: Ticket) -> None:
        """Queue a ticket that has all it needs, or let it join its like that is being read."""
        job = ticket.job
        if ticket.stay is not None:
            self._admission.measure(ticket.stay, job.n_tokens, job.reading)
        if self._readings.join(ticket):
            return
        ticket.has_place = False
        ticket.entry = self._queue.put(
            ticket,
            n_tokens=job.n_tokens,
            deadline_s=job.deadline_s,
            arrived_s=job.submitted_s,
            tenant=job.request.tenant,
            share=job.request.share,
            reading=job.reading,
        )

    def _prepare_step(self, made: Preparation, lane: int) -> None:
        """Read one batch of an instruction's candidates."""
        start = self._clock()
        prepared: PreparedInstruction | None = None
        error: InstructRecError | None = None
        try:
            prepared = made.advance()
        except Exception as fault:  # noqa: BLE001  # the worker's border
            error = known_error(fault)
        now = self._clock()
        made.spent_s += now - start
        self._busy_since_s[lane] += now - start  # no time for texts
        if prepared is not None:
            self.pipeline.cache.put(prepared)
        with self._changed:
            if self._is_closed:  # `close` has ended whoever waited
                return
            if prepared is None and error is None and made.is_wanted(now):
                self._line.turn(made)
                return
            self._line.end(made)
            if prepared is not None:
                self._hand_out(made, prepared)
            self._changed.notify_all()
            self._open.ended.notify_all()
        if prepared is not None:
            self._observer.prepared(len(prepared.labels), made.spent_s)
        else:
            self._open.refuse(made.tickets, error or late_error(), None if error else "expired")
        for future in made.futures:
            deliver(future, prepared or error or late_error())

    def _hand_out(self, made: Preparation, prepared: PreparedInstruction) -> None:
        """Queue the tickets that have all they need now. Holds the lock."""
        for ticket in made.tickets:
            for ask in ticket.job.asks:
                if ask.key == made.key:
                    ask.prepared = prepared
            ticket.n_missing -= 1
            if ticket.n_missing == 0 and ticket.has_place:
                self._put(ticket)

    def _compute(self, taken: Taken[Ticket], lane: int) -> None:
        """Answer a batch."""
        if taken.expired:
            self._open.refuse([entry.payload for entry in taken.expired], late_error(), "expired")
        tickets = self._open.begin([entry.payload for entry in taken.batch])
        if not tickets:
            return
        with self._changed:
            reading = self._readings.begin(tickets)

        def join() -> list[Job]:
            joined = self._end_reading(reading, lane)
            tickets.extend(joined)
            return [ticket.job for ticket in joined]

        start = self._clock()
        outcomes: Sequence[Outcome]
        try:
            jobs = [ticket.job for ticket in tickets]
            outcomes = self.pipeline.compute(jobs, lane=lane, join=join)
        except Exception as fault:  # noqa: BLE001  # the worker's border
            join()
            outcomes = [known_error(fault)] * len(tickets)
        done_s = self._clock()
        self._open.finish(tickets, outcomes)
        stats = batch_stats(tickets, lane=lane, inference_s=done_s - start)
        with self._changed:
            self._queue.pace.note(stats.n_tokens, done_s - self._busy_since_s[lane])
            self._busy_since_s[lane] = done_s
            stats.n_waiting = self._queue.n_waiting
        self._observer.batch_done(stats)

    def _end_reading(self, reading: Reading, lane: int) -> list[Ticket]:
        """A batch is encoded: who joined it, those among them that nobody had time to read yet."""
        with self._changed:
            arrived = pick_twins(self._arrivals, reading, READ_ITEMS)
        if arrived:
            self._read(arrived, lane)
        with self._changed:
            joined = self._readings.end(reading)
        now = self._clock()
        late = [ticket for ticket in joined if ticket.is_late(now)]
        self._open.refuse(late, late_error(), "expired")
        return self._open.begin([ticket for ticket in joined if ticket.is_open])

    def _on_cancel(self, ticket: Ticket) -> None:
        """A cancelled ticket leaves the queue at once; elsewhere its next worker drops it."""
        with self._changed:
            if ticket.entry is None or not self._queue.discard(ticket.entry):
                return
        self._open.refuse([ticket], None, "cancelled")

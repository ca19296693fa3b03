"""A server that answers what `predict`, `evaluate` and `bench` ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instructrec_deploy.cli.asking import (
    Asked,
    KnownTask,
    Outcome,
    bundle_question,
    free_question,
)
from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import InstructionMissing, InstructRecError, TaskUnknown
from instructrec_deploy.core.instruction import Instruction, as_candidates
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.task import TaskKind

BATCH_ITEMS = 64  # of one message to a server
BATCH_BYTES = 2 << 20  # of its texts and candidates, about; a server takes 4 MiB by default
N_BATCHES_IN_FLIGHT = 3  # one in work, one waiting, one on its way
N_CALLERS = 64  # concurrent unary calls


def split_requests(requests: Sequence[Request], max_items: int) -> list[list[Request]]:
    """Parts in order, each within `max_items` and BATCH_BYTES; a longer request stands alone."""
    parts: list[list[Request]] = []
    free = 0
    for request in requests:
        size = _size_bytes(request)
        if not parts or len(parts[-1]) == max_items or size > free:
            parts.append([])
            free = BATCH_BYTES
        parts[-1].append(request)
        free -= size
    return parts


def _size_bytes(request: Request) -> int:
    """At most so many bytes on the wire, but for a few of framing."""
    inline = [q.instruction for q in request.questions if q.instruction is not None]
    words = sum(len(c.label) + len(c.description) for i in inline for c in i.candidates)
    return 4 * (len(request.text) + len(request.text2) + words)  # 4: of UTF-8, of one character


class RemoteAsker:
    """A server, by a message, by a stream where there is much, or by many calls (`is_unary`)."""

    def __init__(
        self,
        address: str,
        bundle: Bundle | None,
        *,
        is_unary: bool,
        timeout_s: float,
        model: str = "",
    ) -> None:
        from instructrec_deploy.client.security import Security
        from instructrec_deploy.client.sync import Client

        self._address = address
        self._bundle = bundle
        self._is_unary = is_unary
        self._timeout_s = timeout_s
        self._how: dict[str, Any] = {
            "timeout_s": timeout_s,
            "security": Security.from_environ(),
            "model": model,
        }
        self._client = Client(address, **self._how)

    def ask(self, requests: Sequence[Request]) -> list[Outcome]:
        """See `Asker`."""
        parts = split_requests(requests, BATCH_ITEMS)
        if self._is_unary or len(parts) < 2:
            return self._ask_parts(requests)
        found = self._ask_stream(requests, self._timeout_s * len(parts))
        left = [number for number in range(len(requests)) if number not in found]
        found.update(zip(left, self._ask_parts([requests[n] for n in left]), strict=True))
        return [found[number] for number in range(len(requests))]

    def _ask_stream(self, requests: Sequence[Request], timeout_s: float) -> dict[int, Outcome]:
        """By number what a stream answers; one that breaks off leaves the rest to messages."""
        found: dict[int, Outcome] = {}
        try:
            for number, outcome in self._client.predict_stream(requests, timeout_s=timeout_s):
                found[number] = outcome
        except InstructRecError:  # it drains, or it has no streams: a message will say
            pass
        return found

    def _ask_parts(self, requests: Sequence[Request]) -> list[Outcome]:
        """By messages, or by calls of one text each."""
        import asyncio

        parts = split_requests(requests, 1 if self._is_unary else BATCH_ITEMS)
        if len(parts) == 1 and not self._is_unary:
            try:
                return list(self._client.predict_batch(parts[0]))
            except InstructRecError as error:
                return [error] * len(requests)
        return asyncio.run(self._ask_many(parts)) if parts else []

    async def _ask_many(self, parts: Sequence[list[Request]]) -> list[Outcome]:
        import asyncio

        from instructrec_deploy.client.aio import AsyncClient

        gate = asyncio.Semaphore(N_CALLERS if self._is_unary else N_BATCHES_IN_FLIGHT)

        async def ask_part(part: list[Request]) -> list[Outcome]:
            async with gate:
                try:
                    if not self._is_unary:
                        return list(await client.predict_batch(part))
                    return [await client.predict_request(part[0])]
                except InstructRecError as error:  # of the whole call, so of each of its texts
                    return [error] * len(part)

        async with AsyncClient(self._address, **self._how) as client:
            found = await asyncio.gather(*(ask_part(part) for part in parts))
        return [outcome for outcomes in found for outcome in outcomes]

    def own_question(self, asked: Asked) -> Question:
        """See `Asker`: the task from the bundle where one is named too, else from the server."""
        if self._bundle is not None:
            return bundle_question(self._bundle, asked)
        if not (asked.instruction or asked.candidates):
            instruction = Instruction("", (), task=asked.task, decision=asked.change)
            return Question(instruction=instruction)  # the server knows its tasks
        if asked.task and asked.candidates:  # the server knows the task's words
            own = as_candidates(asked.candidates)
            instruction = Instruction(
                asked.instruction, own, task=asked.task, decision=asked.change
            )
            return Question(instruction=instruction)
        if not asked.instruction:
            raise InstructionMissing(
                "candidates, but no instruction",
                hint="say what is asked: --instruction TEXT, or whose words are meant: --task NAME",
            )
        if asked.candidates:
            return free_question(asked)
        # A task in other words: what it seeks, its kind, how it decides, the server knows.
        task = self._task_name(asked.task)
        words = Instruction(asked.instruction, (), task=task, decision=asked.change)
        return Question(instruction=words)

    def _task_name(self, name: str) -> str:
        """The task itself, or the default one."""
        for known in self._client.status().tasks:
            if known.name == name or (not name and known.is_default):
                return known.name
        raise TaskUnknown(
            f"the server has no task {name!r}" if name else "the server has no default task",
            hint="name another one by --task, or send --candidates",
        )

    def tasks(self) -> list[KnownTask]:
        """See `Asker`."""
        known = self._client.status().tasks
        return [KnownTask(task.name, TaskKind(task.kind), task.is_default) for task in known]

    def fixed(self, question: Question) -> Question:
        """See `Asker`: prepared on the server once, then asked by its id."""
        if question.instruction is None:
            return question
        return Question(prepared_id=self._client.prepare(question.instruction).prepared_id)

    def close(self) -> None:
        """See `Asker`."""
        self._client.close()

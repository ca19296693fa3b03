"""Instructions that are being prepared, step by step, and who waits for each: no threads here."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.runtime.prepared import PreparedInstruction, Preparer, Steps
from instructrec_deploy.runtime.tickets import Ticket


@dataclass(slots=True, eq=False)
class Preparation:
    """One instruction on its way into the cache."""

    key: str
    steps: Steps
    tickets: list[Ticket] = field(default_factory=list)  # requests that need it
    futures: list[Future[PreparedInstruction]] = field(default_factory=list)  # who asked for it
    spent_s: float = 0.0

    def advance(self) -> PreparedInstruction | None:
        """Do one step; the result after the last one.

        Raises:
            InstructRecError: it cannot be prepared.
        """
        try:
            next(self.steps)
        except StopIteration as end:
            prepared: PreparedInstruction = end.value
            return prepared
        return None

    def is_wanted(self, now_s: float) -> bool:
        """Whether anyone still waits for it."""
        return any(not future.cancelled() for future in self.futures) or any(
            ticket.is_wanted(now_s) for ticket in self.tickets
        )


class PreparationLine:
    """Preparations in turn, each instruction once. Not thread-safe: its owner holds a lock.

    Args:
        max_running: how many workers may prepare at a time.
    """

    def __init__(self, preparer: Preparer, *, max_running: int) -> None:
        self._preparer = preparer
        self._max_running = max_running
        self._n_running = 0
        self._by_key: dict[str, Preparation] = {}
        self._turns: deque[Preparation] = deque()

    def __len__(self) -> int:
        """Instructions under way."""
        return len(self._by_key)

    @property
    def is_ready(self) -> bool:
        """Whether a worker may do a step now."""
        return bool(self._turns) and self._n_running < self._max_running

    def join(self, instruction: Instruction, key: str) -> Preparation:
        """The preparation of an instruction: the one under way, or a new one at the end."""
        found = self._by_key.get(key)
        if found is None:
            found = Preparation(key, self._preparer.steps(instruction, key))
            self._by_key[key] = found
            self._turns.append(found)
        return found

    def start(self) -> Preparation:
        """Take the first in turn for one step; `turn` or `end` must follow."""
        self._n_running += 1
        return self._turns.popleft()

    def turn(self, made: Preparation) -> None:
        """It needs more steps: to the end of the line."""
        self._n_running -= 1
        self._turns.append(made)

    def end(self, made: Preparation) -> None:
        """It is done, has failed, or nobody wants it any more."""
        self._n_running -= 1
        self._by_key.pop(made.key, None)

    def take_all(self) -> list[Preparation]:
        """Empty the line; a step that runs may still `turn` or `end`."""
        found = list(self._by_key.values())
        self._by_key.clear()
        self._turns.clear()
        return found

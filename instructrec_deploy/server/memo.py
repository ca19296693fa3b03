"""Instructions by the bytes they came in, so that a repeated one is not checked and built anew."""

from __future__ import annotations

from collections import OrderedDict

from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.status import Limits
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import Lend, read_instruction


class InstructionMemo:
    """A bounded memory of inline instructions, least recently used out. For one thread.

    Checking 77 candidates takes 50 times as long as reading all the rest of a request; a caller
    who sends its instruction along each time should not pay for that each time. Equal bytes give
    the same object.
    """

    def __init__(self, max_bytes: int = 4 << 20, *, lend: Lend | None = None) -> None:
        """`lend`: fills in what an instruction leaves to a task of the bundle."""
        self._lend = lend
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._known: OrderedDict[bytes, Instruction] = OrderedDict()

    def read(self, message: pb.Instruction, limits: Limits) -> Instruction:
        """As `read_instruction`, remembered.

        Raises:
            RequestError, TaskUnknown: as `read_instruction`; what is refused is not remembered.
        """
        content = message.SerializeToString()
        known = self._known.get(content)
        if known is not None:
            self._known.move_to_end(content)
            return known
        instruction = read_instruction(message, limits, self._lend)
        self._known[content] = instruction
        self._size_bytes += len(content)
        while self._size_bytes > self._max_bytes:
            self._size_bytes -= len(self._known.popitem(last=False)[0])
        return instruction

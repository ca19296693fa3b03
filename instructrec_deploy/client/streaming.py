"""What both clients send on a `PredictStream`: texts as messages, some together where they can be.

An error of the caller's own texts must not be lost in gRPC's threads: sending ends there, what was
sent is answered, and then the error is raised to who reads the answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from instructrec_deploy.client.calls import addressed, build_batch
from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.answers import read_stream_results
from instructrec_deploy.wire.requests import write_stream_request

TOGETHER = 16  # texts of one message, where all are at hand
MAX_BYTES = 1 << 20  # of such a message: a server takes 4 MiB by default
Text = str | Request


class TextStream:
    """The caller's texts as messages, once. Texts that come one by one are not held back."""

    def __init__(
        self,
        texts: Iterable[Text] | AsyncIterable[Text],
        question: Mapping[str, Any],
        model: Mapping[str, str],
        *,
        together: int = 0,
    ) -> None:
        """`together`: texts of one message; 0: TOGETHER of a sequence, else 1."""
        is_at_hand = isinstance(texts, Sequence)
        self._texts = texts
        self._together = together or (TOGETHER if is_at_hand else 1)
        self._question = question
        self._model = model
        self._error: Exception | None = None

    def check(self) -> None:
        """Raise what went wrong with the texts, if anything did."""
        if self._error is not None:
            raise self._error

    def __iter__(self) -> Iterator[bytes]:
        group: list[Text] = []
        try:
            if isinstance(self._texts, AsyncIterable):
                raise TypeError("an async iterable of texts needs the AsyncClient")
            for text in self._texts:
                group.append(text)
                if len(group) == self._together:
                    yield from self._messages(group)
                    group = []
            if group:
                yield from self._messages(group)
        except Exception as error:  # noqa: BLE001 `check` raises it
            self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not isinstance(self._texts, AsyncIterable):
            for message in self:
                yield message
            return
        try:
            async for text in self._texts:
                for message in self._messages([text]):
                    yield message
        except Exception as error:  # noqa: BLE001 `check` raises it
            self._error = error

    def _messages(self, group: list[Text]) -> Iterator[bytes]:
        message = write_stream_request(build_batch(group, **self._question))
        if len(group) > 1 and message.ByteSize() > MAX_BYTES:
            for text in group:
                yield from self._messages([text])
        else:
            yield addressed(message, **self._model)


def read_stream(data: bytes) -> list[tuple[int, Prediction | InstructRecError]]:
    """The number of a text, and its prediction or error."""
    return read_stream_results(pb.PredictStreamResponse.FromString(data))

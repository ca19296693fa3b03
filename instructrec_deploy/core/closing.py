"""What is opened and has to be closed, as a context manager."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """`with` closes it at the end, whatever happened inside."""

    def close(self) -> None:
        """Give back what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""How fast the workers are: a worker's time for a token, learned from the batches it computed."""

from __future__ import annotations

import math

MEMORY = 0.9  # what a batch's figures keep when the next one is counted: about ten batches count
MIN_RETRY_MS, MAX_RETRY_MS = 10, 10_000


class Pace:
    """The workers' speed. Not thread-safe: its owner holds a lock.

    A call of n tokens is taken to cost as much as n + `call_tokens` tokens, so that lone requests
    of a quiet hour do not make a full batch look slower than it is: on a GPU both take alike.

    Args:
        n_workers: how many compute side by side.
        call_tokens: what a call costs beside its tokens, in tokens.
        batch_tokens: tokens of a full batch.
    """

    def __init__(
        self, *, n_workers: int = 1, call_tokens: int = 0, batch_tokens: int = 1024
    ) -> None:
        self._n_workers = n_workers
        self._call_tokens = call_tokens
        self._batch_tokens = batch_tokens
        self._tokens = 0.0  # fading sums over the batches so far
        self._seconds = 0.0

    @property
    def token_s(self) -> float:
        """Seconds of one worker for a token; 0.0 while nothing was computed."""
        return self._seconds / self._tokens if self._tokens else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens that all workers together compute in a second; 0.0: not known yet."""
        return self._n_workers / self.token_s if self.token_s else 0.0

    def note(self, n_tokens: int, seconds: float) -> None:
        """Learn from a batch: its tokens (padding apart), and how long its worker was busy."""
        if n_tokens > 0:
            self._tokens = MEMORY * self._tokens + n_tokens + self._call_tokens
            self._seconds = MEMORY * self._seconds + seconds

    def batch_s(self, n_tokens: float) -> float:
        """Seconds that one worker takes for a batch of so many tokens."""
        return (n_tokens + self._call_tokens) * self.token_s

    def wait_s(self, n_tokens: float) -> float:
        """Seconds that all workers together take for so many tokens, in full batches."""
        n_calls = math.ceil(n_tokens / self._batch_tokens)
        return (n_tokens + n_calls * self._call_tokens) * self.token_s / self._n_workers

    def tokens_in(self, seconds: float) -> float:
        """Tokens of the largest batch that one worker computes in that time; infinity: unknown."""
        if not self.token_s:
            return math.inf
        return max(0.0, seconds / self.token_s - self._call_tokens)


def retry_ms(seconds: float) -> int:
    """A wait as the hint of an `Overloaded`: neither at once nor never."""
    return int(min(MAX_RETRY_MS, max(MIN_RETRY_MS, seconds * 1000)))

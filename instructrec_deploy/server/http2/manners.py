"""What a caller may not do to a connection: frames that cost us and not the caller.

Resets of calls just begun (CVE-2023-44487), empty frames, settings and pings without end
(CVE-2019-9512 and its kin); of pings the rule of gRPC's core, which its clients know.
"""

from __future__ import annotations

from collections.abc import Callable

from instructrec_deploy.server.http2.frames import ENHANCE_YOUR_CALM, ProtocolError

IDLE_FRAMES, IDLE_FRAMES_PER_S = 4000, 1000  # at once, and for how long
MIN_PING_S = 10.0  # between two pings of a caller that gets no data meanwhile
MAX_STRIKES = 2  # pings that come too early and are forgiven


class Manners:
    """Counts them on one connection. `clock`: in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left, self._counted_s = float(IDLE_FRAMES), clock()
        self._strikes, self._last_ping_s = 0, float("-inf")

    def count(self) -> None:
        """One more frame that costs the caller nothing.

        Raises:
            ProtocolError: there were too many of them.
        """
        now = self._clock()
        grown = self._left + (now - self._counted_s) * IDLE_FRAMES_PER_S
        self._left, self._counted_s = min(float(IDLE_FRAMES), grown) - 1, now
        if self._left < 0:
            raise ProtocolError(ENHANCE_YOUR_CALM, "too many frames that say nothing")

    def count_ping(self) -> None:
        """One more ping.

        Raises:
            ProtocolError: they come too often.
        """
        now = self._clock()
        if now - self._last_ping_s < MIN_PING_S:
            self._strikes += 1
            if self._strikes > MAX_STRIKES:
                raise ProtocolError(ENHANCE_YOUR_CALM, "too_many_pings")
        self._last_ping_s = now
        self.count()

    def answered(self) -> None:
        """The caller gets something: its pings are no nuisance."""
        self._strikes, self._last_ping_s = 0, float("-inf")

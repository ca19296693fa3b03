"""What a supervisor is told: how many workers, what they serve, which sockets keep their port."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """For a supervisor that has just been started in this process's place."""

    n_workers: int
    bundle: str  # as given: links are followed when a worker starts; "": the settings' repository
    settings: dict[str, Any]  # of each worker, as JSON
    host: str
    metrics_port: int  # 0: off
    metrics_address: str  # URL; "" where off
    is_pinned: bool  # workers serve what a link led to at the start or the last SIGHUP
    stop_within_s: float  # after SIGTERM; what is left then is killed
    log_format: str
    log_level: str
    sockets: tuple[int, ...]  # bound and not listening: nobody else gets the port

    def hand_on(self) -> int:
        """The number of a file that a program started in our place can read it from."""
        number = os.memfd_create("plan", 0)
        with os.fdopen(os.dup(number), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        os.set_inheritable(number, True)
        for keeper in self.sockets:
            os.set_inheritable(keeper, True)
        return number

    @classmethod
    def take_over(cls, number: int) -> Plan:
        """The other side of `hand_on`."""
        os.lseek(number, 0, os.SEEK_SET)
        with os.fdopen(number, encoding="utf-8") as file:
            raw = json.load(file)
        raw["sockets"] = tuple(raw["sockets"])
        for keeper in raw["sockets"]:
            os.set_inheritable(keeper, False)
        return cls(**raw)

"""A policy file that is read again when it changes: without a restart, and never a broken one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.runtime.jobs import GuardLike
from instructrec_deploy.safety.guards import PolicyGuards, read_policy
from instructrec_deploy.safety.policy import Policy
from instructrec_deploy.server.access.watch import FileWatch
from instructrec_deploy.server.logs import LOGGER
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.safety.settings import SafetySettings

log = logging.getLogger(f"{LOGGER}.safety")
PolicyCheck = Callable[[Policy], None]


class PolicyReload:
    """Looks at a policy file now and then, in a thread of its own; a broken one stays out.

    Args:
        file: the policy that `guards` were opened with.
        interval_s: between two looks.
        check: raises where a policy does not go with what is served.
    """

    def __init__(
        self,
        file: Path,
        guards: PolicyGuards,
        metrics: Metrics,
        *,
        interval_s: float,
        check: PolicyCheck | None = None,
    ) -> None:
        self._file = file
        self._check = check
        self._guards = guards
        self._metrics = metrics
        self._interval_s = interval_s
        self._watch = FileWatch([file], 0.0)
        self._is_changing = False
        self._take()  # it may have changed since it was opened
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="safety-policy", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look(self) -> None:
        """Take over a file that has changed, once it has stopped changing.

        Half a file may be a valid policy, and an empty one is the default.
        """
        if self._watch.has_changed():
            self._is_changing = True
        elif self._is_changing:
            self._is_changing = False
            self._take()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.look()

    def _take(self) -> None:
        old = self._guards.policy
        try:
            new = read_policy(self._file)
            if new == old:
                return
            if self._check is not None:
                self._check(new)
            self._guards.replace(new)
        except InstructRecError as error:
            reason = f"{error.message} ({error.hint})" if error.hint else error.message
            log.error("safety policy not reloaded", extra={"reason": reason})
            self._metrics.metric("instructrec_safety_policy_reloads_total", "failed").inc()
            return
        if new.version == old.version:
            log.warning("the safety policy changed and its version did not")
        log.info("safety policy reloaded", extra={"was": old.version, "version": new.version})
        self._metrics.metric("instructrec_safety_policy_reloads_total", "done").inc()
        self._metrics.show_policies()


def watch_policy(
    settings: SafetySettings,
    guard: GuardLike | None,
    metrics: Metrics,
    *,
    tasks: frozenset[str],
    check: PolicyCheck | None = None,
) -> PolicyReload | None:
    """Follow the policy's file where it is not the bundle's own.

    Args:
        tasks: those of the bundle; a policy for several bundles may name more.
        check: raises where a changed policy does not go with the bundle: the old one stays.
    """
    if not isinstance(guard, PolicyGuards):
        return None
    _tell_unknown_tasks(guard.policy, tasks)
    if not settings.policy:
        return None
    reload = PolicyReload(
        Path(settings.policy), guard, metrics, interval_s=settings.reload_s, check=check
    )
    reload.start()
    return reload


def _tell_unknown_tasks(policy: Policy, tasks: frozenset[str]) -> None:
    if unknown := sorted(set(policy.tasks) - tasks):
        log.warning("the safety policy names tasks that are not here", extra={"tasks": unknown})

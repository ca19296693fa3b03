"""The guards of one policy: by the tasks that are asked and who asks; replaced when it changes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from instructrec_deploy.core.bundle import read_text
from instructrec_deploy.core.errors import BundleError, ConfigError, FileMissing, InstructRecError
from instructrec_deploy.core.result import Answer, Verdict
from instructrec_deploy.safety.guard import Guard, GuardedText
from instructrec_deploy.safety.keys import SafetyKeys, load_keys
from instructrec_deploy.safety.lexicon import Lexicon
from instructrec_deploy.safety.policy import Policy, parse_policy

Use = Literal["answering", "keeping", "reading"]
MAX_GUARDS = 1024  # each some kilobytes; sets of tasks and callers with words of their own


class PolicyGuards:
    """A policy with all that it says about tasks and callers. Threads may share it.

    By itself it is the guard for texts without task and caller.

    Raises:
        SafetyKeyMissing, MissingExtra: an operator of the policy needs what is not there.
    """

    def __init__(self, policy: Policy, *, keys: SafetyKeys | None = None) -> None:
        self._keys = keys
        self._lexicon = Lexicon()
        self._current = _Guards(policy, self._lexicon, keys)

    @classmethod
    def from_toml(
        cls,
        text: str,
        *,
        where: str,
        error: type[InstructRecError] = BundleError,
        keys: SafetyKeys | None = None,
    ) -> PolicyGuards:
        """By the content of a `safety.toml`; "" means the default policy.

        Raises:
            error: the policy has faults; the message names them all.
            SafetyKeyMissing, MissingExtra: an operator needs what is not there.
        """
        return cls(parse_policy(text, where=where, error=error), keys=keys)

    @classmethod
    def open(cls, path: Path) -> PolicyGuards:
        """By a file, with the key that the environment names.

        Raises:
            FileMissing, ConfigError: it cannot be read, or the policy has faults.
            SafetyKeyMissing, MissingExtra: as above.
        """
        return cls(read_policy(path), keys=load_keys())

    @property
    def policy(self) -> Policy:
        """What is in force."""
        return self._current.policy

    def replace(self, policy: Policy) -> None:
        """Put another policy in force; what is being checked is checked by the old one.

        Raises:
            SafetyKeyMissing, MissingExtra: an operator needs what is not there; the old one stays.
        """
        self._current = _Guards(policy, self._lexicon, self._keys)

    def of(self, tasks: Iterable[str], tenant: str = "") -> Guard:
        """The guard for questions about these tasks ("": of none) by this caller."""
        return self._current.of(tasks, tenant)

    def keeping(self, task: str = "") -> Guard:
        """The guard for what is kept on a disk: it masks in a dry run, too."""
        return self._current.of((task,), use="keeping")

    def reading(self, tasks: Iterable[str], tenant: str = "") -> Guard:
        """The guard for texts that a reviewer reads: personal data masked, content as it is."""
        return self._current.of(tasks, tenant, use="reading")

    def check_input(self, text: str) -> GuardedText:
        """See `Guard`."""
        return self.of(()).check_input(text)

    def check_output(self, answer: Answer) -> tuple[Answer, Verdict]:
        """See `Guard`."""
        return self.of(()).check_output(answer)


class _Guards:
    """Those of one version of the policy."""

    def __init__(self, policy: Policy, lexicon: Lexicon, keys: SafetyKeys | None) -> None:
        self.policy = policy
        self._lexicon = lexicon
        self._keys = keys
        self._made: dict[tuple[frozenset[str], str, Use], Guard] = {}
        self._is_one = not (policy.tasks or policy.tenants)
        self._base = self.of(())
        for task in policy.tasks:  # so that what one of them lacks is told now
            self.of((task,))
        for tenant in policy.tenants:
            self.of((), tenant)

    def of(self, tasks: Iterable[str], tenant: str = "", *, use: Use = "answering") -> Guard:
        if self._is_one and self._made and use == "answering":
            return self._base
        known = self.policy.tasks
        names = frozenset(task if task in known else "" for task in tasks) or frozenset(("",))
        key = (names, tenant if tenant in self.policy.tenants else "", use)
        guard = self._made.get(key)
        if guard is None:
            if len(self._made) >= MAX_GUARDS:
                self._made = {}
            found = self.policy.resolved(names, key[1])
            if use != "answering":
                found = found.enforced() if use == "keeping" else found.readable()
            guard = Guard(found, lexicon=self._lexicon, keys=self._keys)
            self._made[key] = guard
        return guard


def read_policy(path: Path) -> Policy:
    """The policy of a file.

    Raises:
        FileMissing: there is no such file.
        ConfigError: it cannot be read, or has faults; all are named.
    """
    if not path.is_file():
        raise FileMissing(f"no safety policy {path}", hint="a safety.toml: docs/safety.md")
    try:
        text = read_text(path)
    except BundleError as error:
        raise ConfigError(error.message, hint="a safety.toml in UTF-8") from error
    return parse_policy(text, where=str(path), error=ConfigError)

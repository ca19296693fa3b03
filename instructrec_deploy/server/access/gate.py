"""Lets callers in: by API key, token or client certificate, or anyone where none is wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from instructrec_deploy.core.errors import InstructRecError, Unauthenticated
from instructrec_deploy.server.access.callers import ANYONE, Caller, Quota
from instructrec_deploy.server.access.keys import PREFIX, KeyEntry, find_key, read_keys
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.access.tokens import TokenReader
from instructrec_deploy.server.access.watch import FileWatch
from instructrec_deploy.server.logs import LOGGER

AUTHORIZATION, API_KEY, SCHEME = "authorization", "x-api-key", "bearer "
COMMON_NAME = "x509_common_name"  # gRPC's name for who a client certificate was made out to
log = logging.getLogger(f"{LOGGER}.access")
Metadata = Iterable[tuple[str, str | bytes]]


class Gate:
    """Decides who a call comes from. Files of keys are read again when they change."""

    def __init__(
        self,
        settings: AccessSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the keys.

        Raises:
            FileMissing, ConfigError: they cannot be read.
            MissingExtra: tokens are wanted, and PyJWT is not installed.
        """
        self._settings = settings
        self._now = now
        self._keys: dict[str, KeyEntry] = {}
        paths = [Path(path) for path in (settings.keys, settings.jwt_keys) if path]
        self._watch = FileWatch(paths, settings.reload_s, clock=clock) if paths else None
        if settings.keys:
            self._keys = read_keys(Path(settings.keys))
        self._tokens = TokenReader(settings) if settings.jwt_keys else None

    @property
    def knows_callers(self) -> bool:
        """Whether a caller must say who it is."""
        return self._settings.knows_callers

    def admit(
        self, metadata: Metadata, certificate: Mapping[str, Iterable[bytes]], method: str
    ) -> Caller:
        """The caller of a method, by a call's metadata and gRPC's authentication context.

        Raises:
            Unauthenticated: no key or token, or one that is not valid.
            Denied: its roles do not cover the method.
        """
        caller = self._caller(metadata, certificate)
        caller.check_method(method)
        return caller

    def note(self, caller: Caller | None, method: str, status: str) -> None:
        """The audit line of a call, where it is wanted; `caller` is None if it was not let in."""
        if not self._settings.audit:
            return
        known = caller or Caller(name="?")
        log.info(
            "call",
            extra={"key": known.id, "caller": known.name, "method": method, "status": status},
        )

    def _caller(self, metadata: Metadata, certificate: Mapping[str, Iterable[bytes]]) -> Caller:
        if self._watch is not None:
            self._renew(self._watch)
            given = _given_key(metadata)
            if self._tokens is not None and not given.startswith(PREFIX):
                return self._tokens.read(given)
            id_, entry = find_key(self._keys, given, self._now())
            limits = entry.tasks, entry.models, _quota(entry), entry.share or 1.0
            return Caller(id_, entry.name, entry.roles, *limits)
        if self._settings.client_ca:
            names = [bytes(name).decode("utf-8", "replace") for name in _names(certificate)]
            return Caller("", names[0] if names else "", ("predict", "feedback"))
        return ANYONE

    def _renew(self, watch: FileWatch) -> None:
        """Take over a changed file; one that cannot be read leaves the keys as they were."""
        if not watch.has_changed():
            return
        try:
            if self._settings.keys:
                self._keys = read_keys(Path(self._settings.keys))
            if self._tokens is not None:
                self._tokens.reload()
        except InstructRecError as error:
            log.warning("keys not reloaded", extra={"reason": error.message})
        else:
            log.info("keys reloaded", extra={"n_keys": len(self._keys)})


def _given_key(metadata: Metadata) -> str:
    """The key or token that a call carries.

    Raises:
        Unauthenticated: none.
    """
    for name, value in metadata:
        if isinstance(value, bytes):
            continue
        if name == API_KEY:
            return value.strip()
        if name == AUTHORIZATION and value.lower().startswith(SCHEME):
            return value[len(SCHEME) :].strip()
    raise Unauthenticated(
        "the call carries no API key or token",
        hint='send metadata "authorization: Bearer KEY"; our clients: api_key=, or the environment '
        "variable INSTRUCTREC_API_KEY",
    )


def _quota(entry: KeyEntry) -> Quota | None:
    if entry.tokens_per_s is None:
        return None
    return Quota(entry.tokens_per_s, entry.burst_tokens or 0)


def _names(certificate: Mapping[str, Iterable[bytes]]) -> list[bytes]:
    return list(certificate.get(COMMON_NAME) or ())

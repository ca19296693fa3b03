"""How a client shows who it is, and whom it believes to be the server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from instructrec_deploy.core.errors import ConfigError

SYSTEM_ROOTS = "system"
API_KEY, TLS_CA = "INSTRUCTREC_API_KEY", "INSTRUCTREC_TLS_CA"
TLS_CERT, TLS_KEY = "INSTRUCTREC_TLS_CERT", "INSTRUCTREC_TLS_KEY"
TLS_NAME = "INSTRUCTREC_TLS_NAME"


@dataclass(frozen=True, slots=True)
class Security:
    """TLS and API key of a client; as it stands, neither.

    Args:
        tls_ca: PEM file of the authorities that the server's certificate may come from, or
            "system" for those of gRPC; "": no TLS.
        tls_cert, tls_key: PEM files of the client's own certificate, where the server wants one.
        tls_name: the name in the server's certificate, where it is another than the address.
        api_key: as `instructrec keys new` printed it, or a token (JWT) that the server accepts;
            it is sent with every call.
    """

    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_name: str = ""
    api_key: str = field(default="", repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Security:
        """INSTRUCTREC_API_KEY, and INSTRUCTREC_TLS_CA, _CERT, _KEY and _NAME."""
        found = os.environ if environ is None else environ
        names = (TLS_CA, TLS_CERT, TLS_KEY, TLS_NAME, API_KEY)
        return cls(*(found.get(name, "").strip() for name in names))

    def credentials(self) -> grpc.ChannelCredentials | None:
        """gRPC's, or None for a connection that is not encrypted.

        Raises:
            ConfigError: a file cannot be read, or a certificate of its own stands alone.
        """
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_cert and not self.tls_ca):
            raise ConfigError(
                "a client certificate needs its key, and TLS",
                hint="give tls_ca, tls_cert and tls_key together",
            )
        if not self.tls_ca:
            return None
        roots = None if self.tls_ca == SYSTEM_ROOTS else _read(self.tls_ca)
        key, cert = (_read(p) if p else None for p in (self.tls_key, self.tls_cert))
        return grpc.ssl_channel_credentials(roots, key, cert)

    def open_channel(self, api: Any, address: str, options: Sequence[tuple[str, Any]] = ()) -> Any:
        """A channel with TLS, or a plain one. `api`: `grpc`, or `grpc.aio` for a loop's.

        Raises:
            ConfigError: as `credentials`.
        """
        credentials = self.credentials()
        if credentials is None:
            return api.insecure_channel(address, options=[*options])
        name = [("grpc.ssl_target_name_override", self.tls_name)] if self.tls_name else []
        return api.secure_channel(address, credentials, options=[*options, *name])

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of each call."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {type(error).__name__}", hint="name a PEM file"
        ) from error

"""The server's certificate: checked before it is used, renewed without a restart."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from instructrec_deploy.core.errors import ConfigError, InstructRecError
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.access.watch import FileWatch
from instructrec_deploy.server.logs import LOGGER

log = logging.getLogger(f"{LOGGER}.access")


def server_credentials(settings: AccessSettings) -> grpc.ServerCredentials:
    """TLS by the files of the settings, read again by a handshake that finds them changed.

    A changed certificate that cannot be used leaves the old one in place, and the log says why.

    Raises:
        ConfigError: a file cannot be read, or key and certificate do not fit each other.
    """
    paths = [Path(settings.tls_cert), Path(settings.tls_key)]
    if settings.client_ca:
        paths.append(Path(settings.client_ca))
    watch = FileWatch(paths, settings.reload_s)
    initial = _configuration(settings)
    return grpc.dynamic_ssl_server_credentials(
        initial,
        _renewal(settings, watch),  # type: ignore[arg-type]  # None keeps what it has
        require_client_authentication=bool(settings.client_ca),
    )


class ServerContext:
    """The same for Python's own TLS: `context`, renewed in place while `follow` runs."""

    def __init__(self, settings: AccessSettings, *, protocol: str = "http/1.1") -> None:
        """Read the files. `protocol`: that is spoken, by its ALPN name.

        Raises:
            ConfigError: as `server_credentials`.
        """
        self._settings = settings
        paths = [settings.tls_cert, settings.tls_key, settings.client_ca]
        self._watch = FileWatch([Path(path) for path in paths if path], 0.0)
        _configuration(settings)  # says what is wrong
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols([protocol])
        if settings.client_ca:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._load()

    async def follow(self) -> None:
        """Look at the files now and then, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.reload_s)
            if not self._watch.has_changed():
                continue
            try:
                _configuration(self._settings)
                self._load()
            except InstructRecError as error:
                log.warning("certificate not reloaded", extra={"reason": error.message})

    def _load(self) -> None:
        settings = self._settings
        self.context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_passphrase)
        if settings.client_ca:
            self.context.load_verify_locations(settings.client_ca)


def _renewal(
    settings: AccessSettings, watch: FileWatch
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """What gRPC asks at every handshake: a new configuration, or None to keep the one it has."""

    def renew() -> grpc.ServerCertificateConfiguration | None:
        if not watch.has_changed():
            return None
        try:
            found = _configuration(settings)
        except InstructRecError as error:
            log.warning("certificate not reloaded", extra={"reason": error.message})
            return None
        log.info("certificate reloaded")
        return found

    return renew


def _configuration(settings: AccessSettings) -> grpc.ServerCertificateConfiguration:
    cert, key = _read(settings.tls_cert), _read(settings.tls_key)
    authorities = _read(settings.client_ca) if settings.client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # gRPC would take anything and fail at every handshake
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate with its private key",
            hint="PEM files that belong together, the key without a passphrase",
        ) from error
    if authorities is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"{settings.client_ca} holds no certificate", hint="a PEM file of authorities"
            ) from error
    return grpc.ssl_server_certificate_configuration([(key, cert)], authorities)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {type(error).__name__}", hint="check section [access]"
        ) from error


def _no_passphrase() -> str:
    """In place of OpenSSL's question on the terminal."""
    return ""

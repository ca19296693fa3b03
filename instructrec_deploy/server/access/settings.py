"""`[access]`: who reaches the server, and as whom."""

from __future__ import annotations

from pydantic import Field, model_validator

from instructrec_deploy.core.settings import Section


class AccessSettings(Section):
    """Paths are of PEM and TOML files; "" leaves the part off."""

    tls_cert: str = ""  # the server's certificate, with the chain behind it
    tls_key: str = ""  # its private key, without a passphrase
    client_ca: str = ""  # callers show a certificate that one of these has signed (mutual TLS)
    keys: str = ""  # API keys, made by `instructrec keys`
    audit: bool = False  # a line in the log for each call: who, which method, which status
    reload_s: float = Field(default=2.0, gt=0.0)  # how often the files are looked at for a change

    @model_validator(mode="after")
    def _is_whole(self) -> AccessSettings:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("access.tls_cert and access.tls_key go together")
        if self.client_ca and not self.tls_cert:
            raise ValueError("access.client_ca needs access.tls_cert and access.tls_key")
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.tls_cert)

    @property
    def knows_callers(self) -> bool:
        """Whether a caller must say who it is."""
        return bool(self.keys or self.client_ca)

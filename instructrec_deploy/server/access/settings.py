"""`[access]`: who reaches the server, and as whom."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from instructrec_deploy.core.settings import Section


class AccessSettings(Section):
    """Paths are of PEM and TOML files; "" leaves the part off."""

    tls_cert: str = ""  # the server's certificate, with the chain behind it
    tls_key: str = ""  # its private key, without a passphrase
    client_ca: str = ""  # callers show a certificate that one of these has signed (mutual TLS)
    keys: str = ""  # API keys, made by `instructrec keys`
    jwt_keys: str = ""  # public keys of who issues tokens (JWT), one after another
    jwt_algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"] = "RS256"  # theirs, and no other
    jwt_issuer: str = ""  # `iss` of a token
    jwt_audience: str = ""  # this must be in its `aud`
    jwt_leeway_s: float = Field(default=10.0, ge=0.0, le=300.0)  # by which clocks may differ
    audit: bool = False  # a line in the log for each call: who, which method, which status
    reload_s: float = Field(default=2.0, gt=0.0)  # how often the files are looked at for a change

    @model_validator(mode="after")
    def _is_whole(self) -> AccessSettings:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("access.tls_cert and access.tls_key go together")
        if self.client_ca and not self.tls_cert:
            raise ValueError("access.client_ca needs access.tls_cert and access.tls_key")
        if self.jwt_keys and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError("access.jwt_keys needs access.jwt_issuer and access.jwt_audience")
        return self

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.tls_cert)

    @property
    def knows_callers(self) -> bool:
        """Whether a caller must say who it is."""
        return bool(self.keys or self.jwt_keys or self.client_ca)

"""JSON Web Tokens of an identity provider: one algorithm, the provider's public keys, every claim.

The algorithm is the operator's choice and asymmetric, whatever a token's header says: a public key
can never be used as a shared secret, and `none` is no algorithm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from instructrec_deploy.core.errors import ConfigError, FileMissing, MissingExtra, Unauthenticated
from instructrec_deploy.server.access.callers import Caller
from instructrec_deploy.server.access.keys import Role
from instructrec_deploy.server.access.settings import AccessSettings

PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----")
REQUIRED = ["exp", "aud", "iss", "sub"]
MAX_NAME_CHARS = 100
ROLES: tuple[Role, ...] = get_args(Role)


class TokenReader:
    """Who a token was made out to, if one of the provider's keys has signed it."""

    def __init__(self, settings: AccessSettings) -> None:
        """Read the public keys.

        Raises:
            MissingExtra: PyJWT is not installed.
            FileMissing, ConfigError: the keys cannot be read, or are not of the algorithm.
        """
        try:
            import jwt
        except ImportError as error:
            raise MissingExtra(
                "access.jwt_keys needs PyJWT, which is not installed",
                hint="pip install 'instructrec-deploy[jwt]'",
            ) from error
        self._jwt = jwt
        self._settings = settings
        self._keys = self._read_keys(Path(settings.jwt_keys))

    def reload(self) -> None:
        """Read the public keys again; if they cannot be used, the old ones stay.

        Raises:
            FileMissing, ConfigError: they cannot.
        """
        self._keys = self._read_keys(Path(self._settings.jwt_keys))

    def read(self, token: str) -> Caller:
        """The caller that a token names.

        Raises:
            Unauthenticated: not signed by one of the keys, over, or for somebody else; the answer
                does not say which.
        """
        for key in self._keys:
            try:
                claims = self._jwt.decode(
                    token,
                    key,
                    algorithms=[self._settings.jwt_algorithm],
                    audience=self._settings.jwt_audience,
                    issuer=self._settings.jwt_issuer,
                    leeway=self._settings.jwt_leeway_s,
                    options={"require": REQUIRED},
                )
            except (self._jwt.PyJWTError, ValueError, RecursionError):
                continue
            return _caller(claims)
        raise _not_valid()

    def _read_keys(self, path: Path) -> list[Any]:
        algorithm = self._jwt.get_algorithm_by_name(self._settings.jwt_algorithm)
        hint = f"public keys in PEM for {self._settings.jwt_algorithm}, one after another"
        try:
            blocks = PEM_BLOCK.findall(path.read_text(encoding="utf-8"))
            keys = [algorithm.prepare_key(block) for block in blocks]
        except FileNotFoundError as error:
            raise FileMissing(f"no file of public keys {path}", hint=hint) from error
        except (OSError, ValueError, TypeError, self._jwt.PyJWTError) as error:
            raise ConfigError(
                f"access.jwt_keys {path} cannot be used: {type(error).__name__}", hint=hint
            ) from error
        if not keys:
            raise ConfigError(f"access.jwt_keys {path} holds no public key", hint=hint)
        return keys


def _caller(claims: Mapping[str, Any]) -> Caller:
    """By `sub`, `roles` (without it: predict), `tasks` and `models` (without them: all).

    Raises:
        Unauthenticated: a claim is not what it should be.
    """
    name, roles = str(claims["sub"]), claims.get("roles", ["predict"])
    tasks, models = claims.get("tasks"), claims.get("models")
    if not (_are_words(roles) and all(x is None or _are_words(x) for x in (tasks, models))):
        raise _not_valid()
    return Caller(
        name=name[:MAX_NAME_CHARS],
        roles=tuple(role for role in ROLES if role in roles),
        tasks=None if tasks is None else tuple(tasks),
        models=None if models is None else tuple(models),
    )


def _are_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _not_valid() -> Unauthenticated:
    return Unauthenticated(
        "the token is not valid here",
        hint="get a new one: it may have expired, or be for another audience",
    )

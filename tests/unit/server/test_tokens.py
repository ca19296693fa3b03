"""Tokens: who is let in by one, and by what it takes to refuse one."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import ValidationError

from instructrec_deploy.core.errors import (
    ConfigError,
    Denied,
    FileMissing,
    MissingExtra,
    Unauthenticated,
)
from instructrec_deploy.core.request import Question
from instructrec_deploy.server.access.gate import Gate
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from instructrec_deploy.server.access.settings import AccessSettings
from tests.tokens import AUDIENCE, ISSUER, pem, token


def settings(file: Path, **more: Any) -> AccessSettings:
    return AccessSettings(
        jwt_keys=str(file),
        jwt_algorithm="ES256",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        **more,
    )


def bearer(words: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {words}")]


def forged(header: dict[str, str], claims: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts) + "."


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def file(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path = tmp_path / "issuer.pem"
    path.write_text(pem(key))
    return path


def test_a_token_names_its_caller_roles_and_tasks(
    file: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    gate = Gate(settings(file))
    caller = gate.admit(
        bearer(token(key, roles=["predict", "else"], tasks=["intent"])), {}, "Predict"
    )
    assert (caller.name, caller.roles, caller.tasks) == ("客服", ("predict",), ("intent",))
    with pytest.raises(Denied, match="not for that task"):
        caller.check_questions([Question(task="other")])
    with pytest.raises(Denied, match="role feedback"):
        gate.admit(bearer(token(key)), {}, "Feedback")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": 1},
        {"aud": None},
        {"aud": "another"},
        {"iss": None},
        {"iss": "https://else.example"},
        {"sub": None},
        {"nbf": 9_999_999_999},
        {"roles": "admin"},
        {"tasks": "intent"},
        {"tasks": [1]},
    ],
)
def test_a_claim_that_is_missing_or_wrong_is_refused(
    claims: dict[str, Any], file: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    with pytest.raises(Unauthenticated, match="not valid here"):
        Gate(settings(file)).admit(bearer(token(key, **claims)), {}, "Predict")


def test_only_the_one_algorithm_and_the_issuers_keys_count(
    file: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    gate = Gate(settings(file))
    claims = {"sub": "x", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60}
    stranger = ec.generate_private_key(ec.SECP256R1())
    good = token(key)
    for wrong in (
        token(stranger),
        forged({"alg": "none", "typ": "JWT"}, claims),
        jwt.encode(claims, "a shared secret of enough bytes for it", algorithm="HS256"),
        good[: good.rindex(".") + 1],
        "a.b.c",
        "",
        "[" * 5000,
    ):
        with pytest.raises(Unauthenticated):
            gate.admit(bearer(wrong), {}, "Predict")


def test_keys_of_the_issuer_rotate_without_a_restart(
    file: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    now = [0.0]
    gate = Gate(settings(file, reload_s=1.0), clock=lambda: now[0])
    later = ec.generate_private_key(ec.SECP256R1())
    file.write_text(pem(key) + pem(later))
    now[0] = 2.0
    for one in (key, later):
        assert gate.admit(bearer(token(one)), {}, "Predict").name == "客服"
    file.write_text("broken")
    now[0] = 4.0
    assert gate.admit(bearer(token(later)), {}, "Predict").name == "客服"
    file.write_text(pem(later))
    now[0] = 6.0
    with pytest.raises(Unauthenticated):
        gate.admit(bearer(token(key)), {}, "Predict")


def test_keys_and_tokens_work_side_by_side(
    file: Path, key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    id_, own, kept = new_key()
    write_keys(tmp_path / "keys.toml", {id_: KeyEntry(name="shop", hash=kept)})
    gate = Gate(settings(file, keys=str(tmp_path / "keys.toml")))
    assert gate.admit(bearer(own), {}, "Predict").name == "shop"
    assert gate.admit(bearer(token(key)), {}, "Predict").name == "客服"
    with pytest.raises(Unauthenticated):
        Gate(settings(file)).admit(bearer(own), {}, "Predict")


def test_settings_and_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="jwt_issuer"):
        AccessSettings(jwt_keys="issuer.pem")
    with pytest.raises(FileMissing):
        Gate(settings(tmp_path / "none.pem"))
    wrong = tmp_path / "wrong.pem"
    wrong.write_text(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(ConfigError, match=r"wrong\.pem"):
        Gate(settings(wrong).model_copy(update={"jwt_algorithm": "RS256"}))
    wrong.write_text("nothing")
    with pytest.raises(ConfigError, match="no public key"):
        Gate(settings(wrong))


def test_tokens_without_the_package_name_the_extra(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(MissingExtra) as caught:
        Gate(settings(file))
    assert "instructrec-deploy[jwt]" in caught.value.hint


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_every_algorithm_reads_a_token(algorithm: str, tmp_path: Path) -> None:
    own: Any = {
        "R": lambda: rsa.generate_private_key(65537, 2048),
        "P": lambda: rsa.generate_private_key(65537, 2048),
        "E": lambda: ec.generate_private_key(ec.SECP256R1()),
    }[algorithm[0]]()
    if algorithm == "EdDSA":
        own = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "one.pem").write_text(pem(own))
    claims = {"sub": "x", "iss": ISSUER, "aud": [AUDIENCE], "exp": time.time() + 60}
    signed = jwt.encode(claims, own, algorithm=algorithm)
    gate = Gate(settings(tmp_path / "one.pem").model_copy(update={"jwt_algorithm": algorithm}))
    assert gate.admit(bearer(signed), {}, "Predict").name == "x"

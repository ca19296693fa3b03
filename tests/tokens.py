"""JSON Web Tokens of an issuer that the tests play."""

from __future__ import annotations

import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER, AUDIENCE = "https://id.example", "instructrec"


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key as the server wants it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def token(key: ec.EllipticCurvePrivateKey, **claims: Any) -> str:
    """A token of a minute; None takes a claim out."""
    whole = {"sub": "客服", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60} | claims
    kept = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(kept, key, algorithm="ES256")

"""A real server with TLS, client certificates and API keys."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from instructrec_deploy import Client, Security
from instructrec_deploy.client.calls import RetryPolicy
from instructrec_deploy.core.errors import Denied, InstructRecError, Unauthenticated, Unavailable
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from tests.certificates import Authority
from tests.serving import ServerProcess, running_server, start_server
from tests.tokens import AUDIENCE, ISSUER, pem, token

ONCE = RetryPolicy(max_attempts=1)


def give_key(file: Path, **more: Any) -> str:
    id_, key, kept = new_key()
    write_keys(file, {id_: KeyEntry.model_validate({"name": "shop", "hash": kept, **more})})
    return key


def ask(server: ServerProcess, security: Security, **question: Any) -> str | None:
    with Client(server.address, security=security, retry=ONCE, timeout_s=10) as client:
        return client.predict("I lost my card", **question).label


def refusal(server: ServerProcess, security: Security, **question: Any) -> InstructRecError:
    with pytest.raises(InstructRecError) as caught:
        ask(server, security, **question)
    return caught.value


def eventually(check: Callable[[], bool], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.05)
    return False


def test_keys_over_tls(tiny_bundle: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own = authority.issue("server")
    keys = tmp_path / "keys.toml"
    key = give_key(keys, tasks=["intent"])
    access = {"tls_cert": str(own.cert), "tls_key": str(own.key), "keys": str(keys)}
    access |= {"audit": True, "reload_s": 0.05}
    roots = str(authority.cert)
    with running_server(tiny_bundle, tmp_path / "server", access=access) as server:
        known = Security(roots, api_key=key)
        assert ask(server, known, task="intent")
        assert isinstance(refusal(server, Security(roots)), Unauthenticated)
        assert isinstance(refusal(server, Security(roots, api_key=key + "x")), Unauthenticated)
        other = refusal(server, known, task="sentiment")
        assert (type(other), other.code) == (Denied, "IR-1400")
        assert isinstance(refusal(server, known, instruction="Is it?", candidates=["a"]), Denied)
        assert isinstance(refusal(server, Security(api_key=key)), Unavailable)  # not encrypted
        with Security(roots).open_channel(grpc, server.address) as channel:  # probes need no key
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
            unlisted = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/X")
            with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                unlisted(b"")
        new = give_key(keys)  # in the old one's place
        assert eventually(lambda: _is_in(server, Security(roots, api_key=new)))
        assert isinstance(refusal(server, known, task="intent"), Unauthenticated)
        calls = [row for row in server.events() if row["event"] == "call"]
        assert {"OK", "UNAUTHENTICATED", "PERMISSION_DENIED"} <= {row["status"] for row in calls}
        assert {row["caller"] for row in calls} == {"shop", "?"}
        assert "lost my card" not in server.stdout + server.stderr
        assert key not in server.stdout + server.stderr


def _is_in(server: ServerProcess, security: Security) -> bool:
    try:
        return bool(ask(server, security))
    except Unauthenticated:
        return False


def test_tokens_over_tls(tiny_bundle: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own = authority.issue("server")
    issuer, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (tmp_path / "issuer.pem").write_text(pem(issuer))
    access = {"tls_cert": str(own.cert), "tls_key": str(own.key), "audit": True}
    access |= {"jwt_keys": str(tmp_path / "issuer.pem"), "jwt_algorithm": "ES256"}
    access |= {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    roots = str(authority.cert)
    with running_server(tiny_bundle, tmp_path / "server", access=access) as server:
        known = Security(roots, api_key=token(issuer, tasks=["intent"]))
        assert ask(server, known, task="intent")
        assert isinstance(refusal(server, known, task="sentiment"), Denied)
        assert isinstance(refusal(server, Security(roots)), Unauthenticated)
        late = token(issuer, exp=time.time() - 60)
        for refused in (late, token(stranger), token(issuer, aud="another"), "e30.e30."):
            fault = refusal(server, Security(roots, api_key=refused), task="intent")
            assert isinstance(fault, Unauthenticated)
        calls = [row for row in server.events() if row["event"] == "call"]
        assert {row["caller"] for row in calls} == {"客服", "?"}
        assert late not in server.stdout + server.stderr


def test_client_certificates(tiny_bundle: Path, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    own, caller = authority.issue("server"), authority.issue("caller")
    unknown = stranger.issue("caller")
    access = {"tls_cert": str(own.cert), "tls_key": str(own.key), "audit": True}
    access["client_ca"] = str(authority.cert)
    roots = str(authority.cert)
    with running_server(tiny_bundle, tmp_path / "server", access=access) as server:
        assert ask(server, Security(roots, str(caller.cert), str(caller.key)))
        assert isinstance(refusal(server, Security(roots)), Unavailable)
        forged = Security(roots, str(unknown.cert), str(unknown.key))
        assert isinstance(refusal(server, forged), Unavailable)
        calls = [row for row in server.events() if row["event"] == "call"]
        assert [row["caller"] for row in calls] == ["caller"]


def test_a_new_certificate_is_shown_without_a_restart(tiny_bundle: Path, tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    pair, next_pair = first.issue("server"), second.issue("server")
    access = {"tls_cert": str(pair.cert), "tls_key": str(pair.key), "reload_s": 0.05}
    with running_server(tiny_bundle, tmp_path / "server", access=access) as server:
        assert ask(server, Security(str(first.cert)))
        pair.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nbroken")  # the old one stays
        time.sleep(0.1)
        assert ask(server, Security(str(first.cert)))
        assert server.event("certificate not reloaded")
        shutil.copyfile(next_pair.key, pair.key)
        shutil.copyfile(next_pair.cert, pair.cert)
        assert eventually(lambda: _is_trusted(server, Security(str(second.cert))))


def _is_trusted(server: ServerProcess, security: Security) -> bool:
    try:
        return bool(ask(server, security))
    except Unavailable:
        return False


def test_a_certificate_that_cannot_be_used_ends_the_start(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    one, other = authority.issue("one"), authority.issue("other")
    access = {"tls_cert": str(one.cert), "tls_key": str(other.key)}
    server = start_server(tiny_bundle, tmp_path / "server", access=access)
    assert server.process.wait(30) == 2
    assert "no certificate with its private key" in server.stderr

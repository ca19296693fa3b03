"""The HTTP door of a real server: JSON calls, access, limits, deadline, health, metrics."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from instructrec_deploy.client.sync import Client
from tests.certificates import Authority
from tests.e2e.test_access import eventually, give_key
from tests.serving import ServerProcess, free_port, running_server, start_server

CANARY = "canary-7f3a 暗号"
JSON = {"content-type": "application/json"}
PATHS = {"/v1/predict", "/v1/predict_batch", "/v1/prepare", "/v1/feedback", "/v1/status"}


class Reply:
    """Status, headers, and the body, as JSON where it is."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status, self.headers = found.status, found.headers
        self.text = found.read().decode()
        self.json: Any = json.loads(self.text) if self.text[:1] == "{" else None


def fetch(
    server: ServerProcess,
    path: str,
    body: object = None,
    *,
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Reply:
    """GET, or POST where there is a body: JSON unless it is bytes."""
    host = urlsplit(server.http_url).netloc
    connection = (
        http.client.HTTPConnection(host, timeout=20)
        if tls is None
        else http.client.HTTPSConnection(host, timeout=20, context=tls)
    )
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("GET" if data is None else "POST", path, data, named)
        return Reply(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("http")
    door = {"http_port": free_port(), "max_message_bytes": 20_000}
    with running_server(tiny_bundle, folder, **door) as found:
        yield found


def test_the_same_answer_as_over_grpc(server: ServerProcess) -> None:
    asked = {
        "text": "I lost my card 余额",
        "questions": [{"task": "intent"}],
        "top_k": 2,
        "id": "7",
    }
    found = fetch(server, "/v1/predict", asked).json
    with Client(server.address) as client:
        same = client.predict(asked["text"], task="intent", top_k=2)  # type: ignore[arg-type]
    (answer,) = found["answers"]
    assert (found["id"], answer["label"], answer["abstained"]) == ("7", same.label, False)
    assert [score["label"] for score in answer["scores"]] == [
        s.label for s in same.answers[0].scores
    ]
    assert answer["score"] == pytest.approx(same.answers[0].score, abs=1e-6)
    assert (found["model"], found["model_version"]) == (same.model, same.model_version)


def test_every_call_there_is(server: ServerProcess) -> None:
    mine = {"text": "Which?", "candidates": [{"label": "左"}, {"label": "right"}]}
    key = fetch(server, "/v1/prepare", {"instruction": mine}).json["prepared_id"]
    batch = {"requests": [{"text": "one"}, {"text": " "}], "questions": [{"preparedId": key}]}
    one, two = fetch(server, "/v1/predict_batch", batch).json["items"]
    assert one["response"]["answers"][0]["label"] in ("左", "right")
    assert two["error"]["code"] == "IR-1101"
    status = fetch(server, "/v1/status?with_labels=true").json
    assert (status["model"], status["ready"]) == ("tiny", True)
    assert "refund" in status["tasks"][0]["labels"]
    assert (
        fetch(server, "/v1/feedback", {"text": "a", "labels": ["refund"]}).json["error"]["code"]
        == "IR-1611"
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": " "}, 400, "IR-1101"),
        ({"text": CANARY, "questions": [{"task": "none"}]}, 404, "IR-1201"),
        ({"text": CANARY, "model": "other"}, 404, "IR-1204"),
        ({"txt": CANARY}, 400, "IR-1100"),
        ({"text": 5}, 400, "IR-1100"),
        ([CANARY], 400, "IR-1100"),
        (CANARY.encode(), 400, "IR-1100"),
        (b"\xff\xfe", 400, "IR-1100"),
        (b"[" * 9_000, 400, "IR-1100"),
        ({"text": "long " * 9_000}, 413, "IR-1102"),
        ({"text": "a lone \ud800"}, 400, "IR-1100"),
    ],
)
def test_bad_bodies_are_told_what_is_wrong_and_not_quoted(
    server: ServerProcess, body: object, status: int, code: str
) -> None:
    found = fetch(server, "/v1/predict", body)
    assert (found.status, found.json["error"]["code"]) == (status, code)
    assert found.json["error"]["hint"]
    assert "canary" not in found.text + server.stdout + server.stderr


def test_a_form_of_another_site_is_not_taken(server: ServerProcess) -> None:
    found = fetch(server, "/v1/predict", b'{"text": "a"}', content_type="text/plain")
    assert (found.status, found.json["error"]["code"]) == (400, "IR-1100")
    assert fetch(server, "/v1/predict").status == 405
    assert fetch(server, "/v1/none", {}).status == 404


def test_the_time_for_an_answer(server: ServerProcess) -> None:
    labels = [{"label": f"{i} {'card ' * 5}"} for i in range(200)]
    slow = {"text": "a", "questions": [{"instruction": {"text": "Which?", "candidates": labels}}]}
    found = fetch(server, "/v1/predict", slow, instructrec_timeout_ms="1")
    assert (found.status, found.json["error"]["status"]) == (504, "DEADLINE_EXCEEDED")
    assert fetch(server, "/v1/predict", {"text": "a"}, instructrec_timeout_ms="9000").status == 200
    for wrong in ("0", "-1", "1.5", "x", "٣", "9" * 30):
        bad = fetch(
            server,
            "/v1/predict",
            {"text": "a"},
            instructrec_timeout_ms=wrong.encode().decode("latin-1"),
        )
        assert (bad.status, bad.json["error"]["code"]) == (400, "IR-1100")


def test_health_metrics_and_the_description(server: ServerProcess) -> None:
    assert [fetch(server, path).status for path in ("/healthz", "/readyz")] == [200, 200]
    assert 'method="Predict"' in fetch(server, "/metrics").text
    api = fetch(server, "/openapi.json").json
    assert set(api["paths"]) == PATHS
    asked = api["components"]["schemas"]["PredictRequest"]["properties"]
    assert asked["questions"]["items"] == {"$ref": "#/components/schemas/Question"}
    assert set(asked) >= {"text", "top_k", "model"}


def test_not_ready_while_draining_and_accepted_calls_are_answered(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    door = {"http_port": free_port(), "drain_wait_s": 30}
    with running_server(tiny_bundle, tmp_path, **door) as server:
        answers: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(fetch(server, "/v1/predict", {"text": "a"}).status)
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.process.terminate()
        server.event("draining")
        assert fetch(server, "/healthz").status == 200
        assert server.stop() == 0
    assert answers == [200] * 8


def test_keys_over_tls_with_a_renewed_certificate(tiny_bundle: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own, keys = authority.issue("server"), tmp_path / "keys.toml"
    key = give_key(keys, tasks=["intent"])
    access = {"tls_cert": str(own.cert), "tls_key": str(own.key), "keys": str(keys)}
    access |= {"reload_s": 0.05, "audit": True}
    tls = ssl.create_default_context(cafile=str(authority.cert))
    ask = {"text": CANARY, "questions": [{"task": "intent"}]}
    with running_server(
        tiny_bundle, tmp_path / "s", access=access, http_port=free_port()
    ) as server:
        assert server.http_url.startswith("https://")
        nobody = fetch(server, "/v1/predict", ask, tls=tls)
        assert (nobody.status, nobody.json["error"]["code"]) == (401, "IR-1401")
        assert nobody.headers["www-authenticate"] == "Bearer"
        for known in ({"authorization": f"Bearer {key}"}, {"x_api_key": key}):
            assert fetch(server, "/v1/predict", ask, tls=tls, **known).status == 200
        own_words = {"instruction": {"text": "Which?", "candidates": [{"label": "a"}]}}
        other = fetch(server, "/v1/prepare", own_words, tls=tls, x_api_key=key)
        assert (other.status, other.json["error"]["code"]) == (403, "IR-1400")
        assert fetch(server, "/metrics", tls=tls, x_api_key=key).status == 403
        assert fetch(server, "/metrics", tls=tls).status == 401
        assert fetch(server, "/healthz", tls=tls).status == 200
        serial = ssl.PEM_cert_to_DER_cert(own.cert.read_text())
        authority.issue("server")  # in the old one's place
        assert eventually(lambda: _certificate(server, tls) != serial)
        calls = [row for row in server.events() if row["event"] == "call"]
        assert {"OK", "UNAUTHENTICATED", "PERMISSION_DENIED"} <= {row["status"] for row in calls}
        assert "canary" not in server.stdout + server.stderr


def _certificate(server: ServerProcess, tls: ssl.SSLContext) -> bytes | None:
    address = urlsplit(server.http_url)
    connection = http.client.HTTPSConnection(address.netloc, timeout=20, context=tls)
    connection.connect()
    try:
        return connection.sock.getpeercert(binary_form=True)  # type: ignore[no-any-return]
    finally:
        connection.close()


def test_a_port_in_use_is_an_error_with_a_hint(
    tiny_bundle: Path, tmp_path: Path, server: ServerProcess
) -> None:
    port = urlsplit(server.http_url).port
    second = start_server(tiny_bundle, tmp_path, http_port=port)
    assert second.process.wait(30) == 2
    assert "IR-1601" in second.stderr

"""What both clients share: questions from loose arguments, options, and being small."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from instructrec_deploy.client.aio import AsyncClient
from instructrec_deploy.client.calls import (
    RetryPolicy,
    build_batch,
    build_question,
    build_request,
    channel_options,
)
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.errors import (
    ConfigError,
    DecisionInvalid,
    MarkInvalid,
    RequestError,
    TextUndecodable,
    Unavailable,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Mark, Question, Request

WHOLE = Instruction.of("想要什么？", ["退款", Candidate("b", "a description")])


@pytest.mark.parametrize(
    ("given", "question"),
    [
        ({}, Question()),
        ({"task": "意图"}, Question(task="意图")),
        ({"prepared_id": "ab"}, Question(prepared_id="ab")),
        ({"instruction": WHOLE}, Question(instruction=WHOLE)),
        (
            {"instruction": "想要什么？", "candidates": ["退款", Candidate("b", "a description")]},
            Question(instruction=WHOLE),
        ),
        (
            {"candidates": iter(["a"]), "task": "t"},
            Question(instruction=Instruction("", (Candidate("a"),), task="t")),
        ),
        (
            {"instruction": "own words", "task": "t"},
            Question(instruction=Instruction("own words", (), task="t")),
        ),
        (
            {"task": "t", "threshold": 0.3},
            Question(
                instruction=Instruction("", (), task="t", decision=Decision.of(threshold=0.3))
            ),
        ),
        (
            {"decision": "any", "none_label": "其他"},
            Question(instruction=Instruction("", (), decision=Decision("any", none_label="其他"))),
        ),
    ],
)
def test_loose_arguments_make_a_question(given: dict[str, object], question: Question) -> None:
    assert build_question(**given) == question  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"prepared_id": "ab", "task": "t"},
        {"prepared_id": "ab", "candidates": ["a"]},
        {"instruction": WHOLE, "candidates": ["a"]},
        {"instruction": WHOLE, "task": "t"},
        {"prepared_id": "ab", "decision": "any"},
    ],
)
def test_question_named_twice_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="together with"):
        build_question(**given)  # type: ignore[arg-type]


def test_a_decision_changes_a_whole_instruction() -> None:
    question = build_question(instruction=WHOLE, decision="any", threshold=0.4)
    assert question == Question(
        instruction=Instruction.of(
            WHOLE.text, WHOLE.candidates, decision=Decision.of("any", threshold=0.4)
        )
    )


def test_a_decision_that_cannot_be_is_refused_before_it_is_sent() -> None:
    with pytest.raises(DecisionInvalid):
        build_question(task="t", threshold=7.0)


def test_texts_of_a_batch_share_one_question() -> None:
    requests = build_batch(["a", "余额"], task="t", top_k=2)
    assert [(r.text, r.questions, r.top_k) for r in requests] == [
        ("a", (Question(task="t"),), 2),
        ("余额", (Question(task="t"),), 2),
    ]


def test_what_is_brought_beside_a_text_is_in_the_request() -> None:
    request = build_request("我的 card", text2="余额", head=(0, 2), tail=Mark(3, 7), id="7")
    assert request == Request("我的 card", id="7", text2="余额", head=Mark(0, 2), tail=Mark(3, 7))
    found = build_batch(["a", "b"], text2="丙", id="7")
    assert [(r.text, r.text2, r.id) for r in found] == [("a", "丙", "7"), ("b", "丙", "")]


@pytest.mark.parametrize("given", [{"head": (0, -1)}, {"tail": "ab"}, {"head": 3}])
def test_marks_that_are_no_positions_are_refused_before_they_are_sent(
    given: dict[str, object],
) -> None:
    with pytest.raises(MarkInvalid):
        build_request("a", **given)  # type: ignore[arg-type]


def test_ready_requests_of_a_batch_stay_as_they_are() -> None:
    request = Request("a", (Question(task="t"),))
    assert build_batch([request]) == [request]
    with pytest.raises(RequestError, match="beside ready requests"):
        build_batch([request], task="u")


@pytest.mark.parametrize("texts", ["a single str", b"bytes"])
def test_batch_that_is_one_text_is_refused(texts: object) -> None:
    with pytest.raises(RequestError):
        build_batch(texts)  # type: ignore[arg-type]


def test_text_that_is_no_str_is_refused() -> None:
    with pytest.raises(RequestError, match="bytes"):
        build_request(b"abc")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="text2"):
        build_request("abc", text2=None)  # type: ignore[arg-type]


def test_retry_policy_is_grpcs_service_config() -> None:
    config = json.loads(RetryPolicy(max_attempts=3).service_config())
    once, again = config["methodConfig"]
    assert (once["name"][0]["method"], "retryPolicy" in once) == ("SwapModel", False)
    policy = again["retryPolicy"]
    assert (policy["maxAttempts"], policy["initialBackoff"]) == (3, "0.1s")
    assert "UNAVAILABLE" in policy["retryableStatusCodes"]
    patient = json.loads(RetryPolicy(retry_overloaded=True).service_config())
    codes = patient["methodConfig"][1]["retryPolicy"]["retryableStatusCodes"]
    assert codes == ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"]
    assert "methodConfig" not in json.loads(RetryPolicy(max_attempts=1).service_config())


@pytest.mark.parametrize(
    ("address", "use_proxy"), [("127.0.0.1:1", 0), ("localhost:1", 0), ("example.org:1", 1)]
)
def test_loopback_is_never_asked_through_a_proxy(address: str, use_proxy: int) -> None:
    options = dict(channel_options(address, RetryPolicy(), 1))
    assert options["grpc.enable_http_proxy"] == use_proxy


def test_a_server_that_is_back_at_once_is_found_within_the_attempts() -> None:
    policy = RetryPolicy()
    pauses = [policy.initial_backoff_s * 2**n for n in range(policy.max_attempts - 1)]
    options = dict(channel_options("there:1", policy, 1))
    assert options["grpc.initial_reconnect_backoff_ms"] / 1000 <= sum(pauses) / 2


def test_each_client_has_a_connection_of_its_own() -> None:
    options = dict(channel_options("there:1", RetryPolicy(), 1))
    assert options["grpc.use_local_subchannel_pool"] == 1


def test_pings_and_compression_are_told_to_grpc() -> None:
    options = dict(channel_options("there:1", RetryPolicy(), 1, keepalive_s=15, compression="gzip"))
    assert options["grpc.keepalive_time_ms"] == 15_000
    assert options["grpc.default_compression_algorithm"] == 2
    silent = dict(channel_options("there:1", RetryPolicy(), 1, keepalive_s=0))
    assert "grpc.keepalive_time_ms" not in silent


@pytest.mark.parametrize("wrong", [{"keepalive_s": 1.0}, {"compression": "zip"}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        channel_options("there:1", RetryPolicy(), 1, **wrong)
    assert caught.value.hint


def test_server_that_is_not_there_is_unavailable_with_a_hint() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        client = Client(address, retry=RetryPolicy(2, 0.01, 0.01))
        with client, pytest.raises(Unavailable, match=address) as caught:
            client.predict("I lost my card")
    assert "instructrec serve" in caught.value.hint


def test_text_with_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(TextUndecodable):
        client.predict("a\ud800")


def test_empty_batch_asks_nobody() -> None:
    with Client("127.0.0.1:1") as client:
        assert client.predict_batch([]) == []


def test_both_clients_have_the_same_surface() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in vars(kind).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }

    assert surface(Client) == surface(AsyncClient)


def test_client_loads_no_engine() -> None:
    program = (
        "import json, sys; from instructrec_deploy import Client, AsyncClient; "
        "heavy = ('numpy', 'onnxruntime', 'tokenizers', 'torch', 'transformers', 'pydantic',"
        " 'instructrec_deploy.runtime', 'instructrec_deploy.server'); "
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(found.stdout) == []

"""A server's life: start, refusal to start, drain, stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from instructrec_deploy.client.calls import RetryPolicy
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import InstructRecError, PortInUse, Unavailable
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import SERVICE, method_path
from tests.serving import running_server, start_server
from tests.tiny import write_tiny_bundle

NO_RETRY = RetryPolicy(max_attempts=1)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def slow_request(number: int) -> Request:
    """One whose instruction is new and has to be prepared."""
    labels = [f"{number} {i} {'card ' * 10}" for i in range(100)]
    return Request(f"text {number}", (Question(instruction=Instruction.of("which?", labels)),))


def test_ready_is_told_to_people_and_to_programs(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path) as server:
        ready = server.event("ready")
        assert server.stop(signal.SIGINT) == 0
    assert (ready["model"], ready["metrics_address"], ready["load_s"] > 0) == ("tiny", "", True)
    assert server.stderr.startswith(f"Serving tiny {ready['model_version']} on {ready['address']}")
    assert server.stderr.count("\n") == 1
    assert [row["event"] for row in server.events()][-1] == "stopped"


def test_port_in_use_is_an_error_with_a_hint(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path / "first") as first:
        port = int(first.address.rsplit(":", 1)[1])
        second = start_server(tiny_bundle, tmp_path / "second", port=port)
        assert second.process.wait(30) == PortInUse.exit_code
        with Client(first.address) as client:
            assert client.predict("I lost my card").label == "card lost"
    assert second.stderr.startswith(f"{PortInUse.code} cannot listen on {first.address} ")
    assert "--port 0" in second.stderr
    assert second.stderr.count("\n") == 1  # gRPC's own lines about it are not for people


@pytest.mark.parametrize(
    ("door", "word"),
    [({"host": "0.0.0.0"}, "allow_insecure"), ({"host": "192.0.2.1"}, "open to the network")],
)
def test_address_open_to_the_network_refuses_to_start(
    tiny_bundle: Path, tmp_path: Path, door: dict[str, str], word: str
) -> None:
    server = start_server(tiny_bundle, tmp_path, **door)
    assert server.process.wait(30) == 2
    assert word in server.stderr


def test_bundle_that_fails_its_golden_pairs_does_not_start(tmp_path: Path) -> None:
    wrong = {"text": "I lost my card", "task": "intent", "label": "refund", "scores": {}}
    bundle = write_tiny_bundle(tmp_path / "wrong", golden=[wrong])
    server = start_server(bundle, tmp_path / "server")
    assert server.process.wait(30) == 6
    assert "IR-1502" in server.stderr


def test_accepted_calls_are_answered_and_new_ones_refused_on_sigterm(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    def ask(number: int) -> Prediction | InstructRecError:
        try:
            return client.predict_request(slow_request(number))
        except InstructRecError as error:
            return error

    with (
        running_server(tiny_bundle, tmp_path) as server,
        Client(server.address, timeout_s=60, retry=NO_RETRY) as client,
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor(64) as pool,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        next(watch)
        calls = [pool.submit(ask, number) for number in range(64)]
        calls[0].result()
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        outcomes = [call.result() for call in calls]
        assert server.process.wait(60) == 0
    counts = Counter(type(outcome) for outcome in outcomes)
    assert set(counts) <= {Prediction, Unavailable}
    assert counts[Prediction] > 1
    refused = [str(o) for o in outcomes if isinstance(o, Unavailable)]
    assert all("shutting down" in message for message in refused)
    assert server.event("drained")["n_lost"] == 0


def test_no_call_is_lost_when_a_server_stops_under_load(tiny_bundle: Path, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    data = pb.PredictRequest(text="I lost my card").SerializeToString()

    def call_on(channel: grpc.Channel) -> None:
        predict = channel.unary_unary(method_path("Predict"))
        while True:
            try:
                predict(data, timeout=20)
                name = "answered"
            except grpc.RpcError as error:
                name = error.code().name
            with lock:
                outcomes[name] += 1
            if name != "answered":
                return

    with (
        running_server(tiny_bundle, tmp_path) as server,
        grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)]) as channel,
    ):
        threads = [threading.Thread(target=call_on, args=(channel,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        while outcomes["answered"] < 100:
            time.sleep(0.01)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
    assert set(outcomes) == {"answered", "UNAVAILABLE"}
    assert server.event("drained")["n_lost"] == 0


def test_callers_who_never_let_go_are_refused_and_never_cancelled(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """As the test above, but refused callers call again at once, until the server is gone."""
    data = pb.PredictRequest(text="我的卡丢了 I lost my card").SerializeToString()
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    has_ended = threading.Event()

    def hammer(address: str) -> None:
        no_retry = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, no_retry) as channel:
            predict = channel.unary_unary(method_path("Predict"))
            while not has_ended.is_set():
                try:
                    predict(data, timeout=60)
                    name = "answered"
                except grpc.RpcError as error:
                    name = error.code().name
                with lock:
                    outcomes[name] += 1

    with running_server(tiny_bundle, tmp_path) as server:
        threads = [threading.Thread(target=hammer, args=(server.address,)) for _ in range(24)]
        for thread in threads:
            thread.start()
        while outcomes["answered"] < 100:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        has_ended.set()
        for thread in threads:
            thread.join()
    assert code == 0
    assert set(outcomes) == {"answered", "UNAVAILABLE"}
    assert server.event("drained")["n_lost"] == 0
    assert server.stderr.count("\n") == 1


def test_a_draining_server_is_alive_and_not_ready(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        running_server(tiny_bundle, tmp_path, drain_wait_s=60) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        server.process.send_signal(signal.SIGTERM)
        server.event("draining")
        found = {
            name: stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
            for name in ("", SERVICE, "tiny")
        }
        assert server.stop() == 0
    assert found == {"": SERVING, SERVICE: NOT_SERVING, "tiny": NOT_SERVING}


def test_second_signal_ends_the_waiting(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        running_server(tiny_bundle, tmp_path, drain_wait_s=60) as server,
        Client(server.address) as client,
    ):
        server.process.send_signal(signal.SIGTERM)
        server.event("draining")
        # Until then it still answers, so that balancers have time to see its health.
        assert client.predict("I lost my card").label == "card lost"
        assert server.stop() == 0


def test_server_loads_no_training_framework() -> None:
    program = (
        "import json, sys; import instructrec_deploy.server.app; "
        "print(json.dumps([m for m in ('torch', 'transformers', 'onnx', 'optimum', 'onnxruntime')"
        " if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(found.stdout) == []

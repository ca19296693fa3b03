"""Several worker processes on one port: they start, die, are replaced, and stop."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from instructrec_deploy.client.calls import RetryPolicy
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import PortInUse, WorkersCannot
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.requests import method_path
from tests.serving import ServerProcess, free_port, running_server, start_server
from tests.tiny import write_tiny_bundle

NO_RETRY = RetryPolicy(max_attempts=1)
# No retry policy; what a GOAWAY crosses on its way, gRPC sends again by itself ("transparent").
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
DATA = pb.PredictRequest(text="我的卡丢了 I lost my card").SerializeToString()


def wait_until(is_so: Callable[[], bool], *, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def started(server: ServerProcess, reason: str) -> list[int]:
    """Process ids of workers started for that reason, oldest first."""
    rows = [row for row in server.events() if row["event"] == "worker started"]
    return [row["worker_pid"] for row in rows if row["reason"] == reason]


def n_events(server: ServerProcess, name: str) -> int:
    return sum(row["event"] == name for row in server.events())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def metric(server: ServerProcess, start: str) -> float:
    text = urllib.request.urlopen(server.metrics_url, timeout=30).read().decode()
    return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(start))


class Callers:
    """Call without a pause, each over a connection of its own; count what comes of it."""

    def __init__(self, address: str, n_callers: int = 8) -> None:
        self.outcomes: Counter[str] = Counter()
        self._has_ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._call, args=(address,)) for _ in range(n_callers)
        ]
        for thread in self._threads:
            thread.start()

    def _call(self, address: str) -> None:
        with grpc.insecure_channel(address, OWN_CONNECTION) as channel:
            predict = channel.unary_unary(method_path("Predict"))
            while not self._has_ended.is_set():
                try:
                    predict(DATA, timeout=60, wait_for_ready=True)
                    name = "answered"
                except grpc.RpcError as error:
                    name = error.code().name
                with self._lock:
                    self.outcomes[name] += 1

    def end(self) -> None:
        self._has_ended.set()
        for thread in self._threads:
            thread.join()


def test_workers_answer_on_one_port_and_are_counted_together(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    with running_server(tiny_bundle, tmp_path, workers=2, metrics_port=free_port()) as server:
        pids = started(server, "start")
        # Connections are spread by chance: 40 of them reach both workers but once in 2 ** 39.
        for _ in range(40):
            with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
                predict = channel.unary_unary(method_path("Predict"))
                answer = pb.PredictResponse.FromString(predict(DATA, timeout=60))
                assert answer.answers[0].label == "card lost"
        assert metric(server, "instructrec_texts_total") == 40
        assert metric(server, "instructrec_workers ") == 2
        assert metric(server, "instructrec_ready ") == 1
        assert metric(server, 'instructrec_worker_starts_total{reason="start"}') == 2
        assert server.stop() == 0
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
    assert n_events(server, "drained") == 2
    assert server.stderr.count("\n") == 1


def test_a_killed_worker_is_started_again_and_its_calls_stay_counted(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    with running_server(tiny_bundle, tmp_path, workers=2, metrics_port=free_port()) as server:
        with Client(server.address) as client:
            for _ in range(5):
                client.predict("I lost my card")
        assert metric(server, "instructrec_texts_total") == 5
        for pid in started(server, "start"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: n_events(server, "worker ready") == 4)
        with Client(server.address) as client:
            assert client.predict("I lost my card").label == "card lost"
        assert metric(server, "instructrec_texts_total") == 6
        assert metric(server, 'instructrec_worker_starts_total{reason="crash"}') == 2
        assert server.stop() == 0


def test_no_call_fails_while_workers_are_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path, workers=2, connection_age_s=1.0) as server:
        callers = Callers(server.address)
        wait_until(lambda: callers.outcomes["answered"] > 50)
        server.process.send_signal(signal.SIGHUP)
        server.event("workers replaced", within_s=120)
        n_before = callers.outcomes["answered"]
        wait_until(lambda: callers.outcomes["answered"] > n_before + 50)
        callers.end()
        old = started(server, "start")
        assert not any(map(is_alive, old))
        assert len(started(server, "replace")) == 2
        assert server.stop() == 0
    assert set(callers.outcomes) == {"answered"}


def test_a_new_version_that_cannot_serve_leaves_the_old_workers(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    wrong = {"text": "I lost my card", "task": "intent", "label": "refund", "scores": {}}
    bad = write_tiny_bundle(tmp_path / "wrong", golden=[wrong])
    link = tmp_path / "current"
    link.symlink_to(tiny_bundle)
    with running_server(link, tmp_path / "server", workers=2) as server:
        pids = started(server, "start")
        link.unlink()
        link.symlink_to(bad)
        server.process.send_signal(signal.SIGHUP)
        assert server.event("workers not replaced", within_s=60)["code"] == "IR-1502"
        os.kill(pids[0], signal.SIGKILL)  # whoever dies now comes back as it was
        wait_until(lambda: n_events(server, "worker ready") == 3)
        with Client(server.address) as client:
            assert client.predict("I lost my card").label == "card lost"
        assert is_alive(pids[1])
        assert server.stop() == 0


def test_a_bundle_that_cannot_serve_ends_all_with_its_own_error(tmp_path: Path) -> None:
    wrong = {"text": "I lost my card", "task": "intent", "label": "refund", "scores": {}}
    bundle = write_tiny_bundle(tmp_path / "wrong", golden=[wrong])
    server = start_server(bundle, tmp_path / "server", workers=2)
    assert server.process.wait(60) == 6
    assert server.stderr.startswith("error IR-1502: ")
    assert not any(map(is_alive, started(server, "start")))


def test_workers_drain_when_their_supervisor_is_killed(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path, workers=2) as server:
        pids = started(server, "start")
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(map(is_alive, pids)))
    assert n_events(server, "the supervisor is gone") == 2
    assert n_events(server, "drained") == 2


def test_a_swap_is_refused_with_the_way_to_do_it(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        running_server(tiny_bundle, tmp_path, workers=1) as server,
        Client(server.address, retry=NO_RETRY) as client,
        pytest.raises(WorkersCannot) as caught,
    ):
        client.swap()
    assert "SIGHUP" in caught.value.hint


def test_a_second_server_on_the_port_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path / "first", workers=1) as first:
        port = int(first.address.rsplit(":", 1)[1])
        second = start_server(tiny_bundle, tmp_path / "second", workers=1, port=port)
        assert second.process.wait(60) == PortInUse.exit_code
    assert PortInUse.code in second.stderr

"""The verbs against a real server process: ask, evaluate, measure, stop."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.cli.benchmark.load import Plan, run_load
from instructrec_deploy.cli.predict import CHUNK
from instructrec_deploy.cli.server_process import ServerProcess, running_server, verb_command
from instructrec_deploy.core.errors import InternalError, Unavailable


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with running_server(tiny_bundle, log) as running:
        running.wait_ready()
        yield running


def verb(*words: str, stdin: str = "") -> list[dict[str, Any]]:
    """A verb's JSON lines; it must succeed and say nothing on standard error."""
    done = subprocess.run(
        verb_command(*words), input=stdin, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_predict_answers_over_grpc_as_it_does_in_process(
    server: ServerProcess, tiny_bundle: Path
) -> None:
    texts = ("I lost my card", "我的余额是多少😀", "mail jo@example.com about the refund")
    remote = verb("predict", "-a", server.address, *texts, "--json")
    local = verb("predict", str(tiny_bundle), *texts, "--json")
    for one, other in zip(remote, local, strict=True):
        assert (one["label"], one["text"]) == (other["label"], other["text"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)  # float32 on the wire


@pytest.mark.parametrize(
    "words",
    [
        ("--decision", "any", "--threshold", "0.01"),
        ("--threshold", "0.999", "--none-label", "其他"),
        ("--task", "sentiment", "--decision", "any"),
        ("-i", "什么？", "--candidates", "refund,change pin,卡", "--decision", "any"),
        ("-i", "what?", "--candidates", "refund,卡", "--threshold", "0.9999"),
    ],
)
def test_a_decision_is_the_same_over_grpc_and_in_process(
    server: ServerProcess, tiny_bundle: Path, words: tuple[str, ...]
) -> None:
    texts = ("refund, or change pin?", "我的卡丢了", "😀")
    remote = verb("predict", "-a", server.address, *texts, *words, "--json")
    local = verb("predict", str(tiny_bundle), *texts, *words, "--json")
    for one, other in zip(remote, local, strict=True):
        for name in ("label", "labels", "abstained"):
            assert one[name] == other[name]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)  # float32 on the wire


def test_lines_of_standard_input_are_answered_in_order(server: ServerProcess) -> None:
    lines = [json.dumps({"text": f"refund {n}", "id": str(n)}) for n in range(300)]
    rows = verb("predict", "-a", server.address, stdin="\n".join(lines))
    assert [row["id"] for row in rows] == [str(n) for n in range(300)]


def test_many_long_texts_are_answered_though_one_message_could_not_hold_them(
    server: ServerProcess,
) -> None:
    long = "我的余额是多少" * 7_000
    rows = verb("predict", "-a", server.address, stdin="\n".join([long] * 64))
    assert [row["truncated"] for row in rows] == [True] * 64


def test_lines_after_the_server_went_away_get_an_error_each(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    n_before, n_after = (
        CHUNK,
        CHUNK + 44,
    )  # the second chunk goes by a stream, the third in one message
    lines = [json.dumps({"text": f"refund {n}", "id": str(n)}) for n in range(n_before + n_after)]
    with running_server(tiny_bundle, tmp_path / "server.log") as running:
        running.wait_ready()
        asking = subprocess.Popen(
            verb_command("predict", "-a", running.address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asking.stdin is not None
        assert asking.stdout is not None
        asking.stdin.write("\n".join(lines[:n_before]) + "\n")
        asking.stdin.flush()
        answered = [json.loads(asking.stdout.readline()) for _ in range(n_before)]
        running.process.kill()
        running.process.wait()
    out, err = asking.communicate("\n".join(lines[n_before:]))
    refused = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in answered + refused] == [str(n) for n in range(len(lines))]
    assert all("label" in row for row in answered)
    assert {row["error"]["code"] for row in refused} == {Unavailable.code}
    assert (asking.returncode, err) == (Unavailable.exit_code, "")


@pytest.mark.parametrize("way", [[], ["--unary"]])
def test_evaluate_over_grpc_agrees_with_in_process(
    server: ServerProcess, tiny_bundle: Path, tmp_path: Path, way: list[str]
) -> None:
    rows = [("I lost my card", "card lost"), ("余额查询", "余额"), ("refund", "nothing")] * 50
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"text": t, "target": y}) for t, y in rows))
    words = ("--data", str(data), "--json")
    (remote,) = verb("evaluate", "-a", server.address, *words, *way)
    (local,) = verb("evaluate", str(tiny_bundle), *words)
    same = ("n", "accuracy", "macro_f1", "accuracy_interval", "n_candidates", "n_errors")
    assert [remote[name] for name in same] == [local[name] for name in same]
    assert remote["n_gold_outside_candidates"] == 50


def test_rows_with_candidates_of_their_own_are_evaluated_over_grpc(
    server: ServerProcess, tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = [
        {"text": "my card", "text2": "pin 😊", "candidates": ["card", "pin"], "target": "pin"},
        {"history": ["refund", "余额"], "candidates": ["card", "余额", "pin"], "target": "余额"},
        {"text": "余额 card", "head": [0, 2], "tail": [3, 7], "candidates": ["a"], "target": "a"},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    for words in (["-i", "Which one?"], ["--task", "intent"], ["--task", "intent", "-i", "哪个？"]):
        (remote,) = verb("evaluate", "-a", server.address, "--data", str(data), *words, "--json")
        (local,) = verb("evaluate", str(tiny_bundle), "--data", str(data), *words, "--json")
        assert (remote["accuracy"], remote["n_errors"]) == (local["accuracy"], 0)


def test_an_instruction_takes_the_labels_of_the_servers_task(server: ServerProcess) -> None:
    words = ("-a", server.address, "love it", "--task", "sentiment", "-i", "good or bad?", "--json")
    (row,) = verb("predict", *words)
    assert set(row["scores"]) == {"positive", "negative"}


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ((), (0, "SERVING\n")),
        (("--live",), (0, "SERVING\n")),
        (("--model", "tiny"), (0, "SERVING\n")),
        (("--model", "other"), (4, "")),
        (("--model", "tiny", "--live"), (2, "")),
    ],
)
def test_health_is_what_a_container_asks(
    server: ServerProcess, words: tuple[str, ...], outcome: tuple[int, str]
) -> None:
    command = verb_command("health", "-a", server.address, *words)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == outcome


@pytest.mark.parametrize("n_texts", [1, 16])
def test_the_load_process_measures_calls(server: ServerProcess, n_texts: int) -> None:
    plan = Plan(
        server.address, ["I lost my card", "余额"], n_callers=4, n_texts=n_texts, seconds=0.2
    )
    measured = run_load(plan)
    assert measured.texts_per_s > 0
    assert measured.errors == {}
    assert min(measured.latencies_ms) > 0


def test_load_without_a_server_is_an_error() -> None:
    with pytest.raises(InternalError, match="load process failed"):
        run_load(Plan("127.0.0.1:1", ["a"], n_callers=1, n_texts=2, seconds=0.1))


def test_a_server_stops_with_0_and_a_broken_one_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    with running_server(tiny_bundle, tmp_path / "good.log") as running:
        running.wait_ready()
        assert running.memory_mb() > 10
        assert running.stop() == 0
    with (
        running_server(tmp_path / "nowhere", tmp_path / "bad.log") as broken,
        pytest.raises(Unavailable, match="IR-1203"),
    ):
        broken.wait_ready()

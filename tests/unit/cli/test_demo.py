"""What the demo runs, and what it reuses. The verbs themselves are run by nobody here."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from instructrec_deploy.cli import demo as demo_module
from instructrec_deploy.cli import server_process
from instructrec_deploy.cli.demo_stories import STORIES
from instructrec_deploy.safety.guard import Guard
from tests.unit.cli.conftest import Run


class FakeServer:
    """A server that is ready at once and stops with a code."""

    address = "127.0.0.1:7"
    log = Path("server.log")
    exit_code = 0

    def wait_ready(self) -> float:
        return 0.5

    def stop(self) -> int:
        return self.exit_code


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs that were run, in order; training and export leave their folders behind."""
    ran: list[str] = []

    def note(*words: str) -> None:
        ran.append(words[0])
        if words[0] in ("train", "export"):
            folder = Path(words[words.index("--out") + 1])
            folder.mkdir(parents=True)
            (folder / {"train": "evaluation.json", "export": "bundle.json"}[words[0]]).touch()

    @contextmanager
    def serve(*_: object) -> Iterator[FakeServer]:
        yield FakeServer()

    monkeypatch.setattr(demo_module, "verb", note)
    monkeypatch.setattr(demo_module, "stop_all_on_sigterm", lambda: None)
    monkeypatch.setattr(server_process, "running_server", serve)
    return ran


ASKED = ["predict"] * 4 + ["evaluate"]


def test_each_language_runs_the_whole_job(run: Run, verbs: list[str], tmp_path: Path) -> None:
    done = run("demo", "--keep", tmp_path)
    assert done.code == 0
    assert verbs == ["models", "train", "export", *ASKED] * 2
    assert "中文" in done.out


def test_a_second_run_reuses_run_and_bundle_and_says_so(
    run: Run, verbs: list[str], tmp_path: Path
) -> None:
    run("demo", "--lang", "en", "--keep", tmp_path)
    verbs.clear()
    done = run("demo", "--lang", "en", "--keep", tmp_path)
    assert verbs == ["models", *ASKED]
    assert done.out.count("reusing") == 2
    verbs.clear()
    run("demo", "--lang", "en", "--keep", tmp_path, "--fresh")
    assert verbs == ["models", "train", "export", *ASKED]


def test_a_server_that_stops_badly_fails_the_demo(
    run: Run, verbs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "exit_code", 3)
    done = run("demo", "--lang", "zh", "--keep", tmp_path)
    assert done.code == 3
    assert "failed with exit code 3" in done.out


def test_another_language_is_refused(run: Run, verbs: list[str]) -> None:
    assert run("demo", "--lang", "fr").code == 2
    assert verbs == []


def test_the_stories_hold_one_text_to_mask_and_one_to_block() -> None:
    guard = Guard()
    for story in STORIES:
        assert guard.check_input(story.private_text).verdict.action == "mask"
        assert guard.check_input(story.threatening_text).verdict.action == "block"
        for text in (*story.texts, *story.own_texts):
            assert guard.check_input(text).verdict.action == "allow"


def is_running(pid: str) -> bool:
    """Whether a process has not ended; one that nobody reaps, as in many containers, has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
def test_a_stopped_demo_leaves_no_process_behind() -> None:
    program = (
        "from instructrec_deploy.cli.demo import stop_all_on_sigterm, verb\n"
        "stop_all_on_sigterm()\nverb('guard')"  # which waits for standard input
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
    try:
        until = time.monotonic() + 60
        while not (found := children.read_text().split()) and time.monotonic() < until:
            time.sleep(0.02)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(timeout=60) == 128 + signal.SIGTERM
        assert found
        while is_running(found[0]) and time.monotonic() < until:
            time.sleep(0.02)
        assert not is_running(found[0])
    finally:
        demo.kill()
        demo.communicate()

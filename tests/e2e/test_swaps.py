"""A running server takes new versions of its bundle, refuses bad ones, and goes back."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from instructrec_deploy.client.calls import RetryPolicy
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import GoldenFailed, InstructRecError, RollbackImpossible
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from tests.serving import ServerProcess, running_server
from tests.tiny import write_tiny_bundle

ONCE = RetryPolicy(max_attempts=1)
TEXT = "I lost my card"
MINE = Instruction.of("Which one?", ["left", "right", "左"])


def point(link: Path, folder: Path) -> None:
    """Have the link lead to the folder, in one step."""
    new = link.with_name("new-link")
    new.symlink_to(folder)
    os.replace(new, link)  # noqa: PTH105  what `ln -sfn` cannot do in one step


def eventually(check: Callable[[], bool], within_s: float = 20.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.02)
    return False


class Place:
    """Two versions side by side and a link to one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.one = write_tiny_bundle(folder / "one", version="v1", seed=1)
        self.two = write_tiny_bundle(folder / "two", version="v2", seed=2)
        self.link = folder / "current"
        point(self.link, self.one)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def serving(place: Place, watch_s: float = 0.0) -> Iterator[tuple[ServerProcess, Client]]:
    models = {"watch_s": watch_s}
    with (
        running_server(place.link, place.folder / "server", models=models) as server,
        Client(server.address, retry=ONCE, timeout_s=30) as client,
    ):
        yield server, client


def scores_of(client: Client) -> tuple[str, tuple[float, ...]]:
    """Version and scores of an answer to two questions, which only one version can have given."""
    asked = Request(TEXT, (Question(), Question(instruction=MINE)), top_k=0)
    found = client.predict_request(asked)
    scores = [s.score for answer in found.answers for s in answer.scores]
    return found.model_version, tuple(round(score, 4) for score in scores)


def test_swaps_under_load_lose_no_call_and_mix_no_versions(place: Place) -> None:
    seen: Counter[tuple[str, tuple[float, ...]]] = Counter()
    failed: list[InstructRecError] = []
    has_ended = threading.Event()

    with serving(place) as (server, client):
        alone = {}
        for folder in (place.one, place.two):
            point(place.link, folder)
            client.swap()
            version, scores = scores_of(client)
            alone[version] = scores

        def hammer() -> None:
            while not has_ended.is_set():
                try:
                    seen[scores_of(client)] += 1
                except InstructRecError as error:
                    failed.append(error)

        threads = [threading.Thread(target=hammer) for _ in range(8)]
        for thread in threads:
            thread.start()
        for number in range(6):
            point(place.link, place.one if number % 2 else place.two)
            client.swap()
        has_ended.set()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
    assert failed == []
    assert set(seen) == set(alone.items())
    assert len(set(alone.values())) == 2
    closed = [row for row in server.events() if row["event"] == "old version closed"]
    assert {row["is_drained"] for row in closed} == {True}


def test_a_watched_link_is_followed_and_a_bundle_written_in_place_is_taken(place: Place) -> None:
    with serving(place, watch_s=0.05) as (server, client):
        point(place.link, place.two)
        assert eventually(lambda: client.predict(TEXT).model_version == "v2")
        write_tiny_bundle(place.two, version="v3", seed=3)
        assert eventually(lambda: client.predict(TEXT).model_version == "v3")
        status = client.status()
        assert (status.model_version, status.is_ready) == ("v3", True)
        assert server.event("swapped")["previous_version"] == "v1"


def test_a_bundle_that_fails_is_refused_and_the_old_one_goes_on(place: Place) -> None:
    wrong = {"text": TEXT, "task": "intent", "label": "refund", "scores": {}}
    bad = write_tiny_bundle(place.folder / "bad", version="bad", golden=[wrong])
    with serving(place, watch_s=0.05) as (server, client):
        point(place.link, bad)
        refused = server.event("new version refused")
        assert (refused["code"], refused["folder"]) == ("IR-1502", str(bad))
        assert TEXT not in server.stdout
        with pytest.raises(GoldenFailed):
            client.swap()
        shutil.rmtree(bad)  # gone altogether
        assert eventually(lambda: server.stdout.count("IR-1203") > 0)
        assert client.predict(TEXT).model_version == "v1"
        point(place.link, place.two)
        assert eventually(lambda: client.predict(TEXT).model_version == "v2")


def test_sighup_takes_the_new_version_and_rollback_the_old_one(place: Place) -> None:
    with serving(place, watch_s=0.05) as (server, client):
        with pytest.raises(RollbackImpossible):
            client.swap(rollback=True)
        point(place.link, place.two)
        server.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: client.predict(TEXT).model_version == "v2")
        back = client.swap(rollback=True)
        assert (back.model_version, back.previous_version) == ("v1", "v2")
        time.sleep(0.3)  # the watcher looks several times, and leaves it so
        assert client.predict(TEXT).model_version == "v1"
        assert server.event("rolled back")["model_version"] == "v1"
        assert client.swap().model_version == "v2"  # asked for once more
        shutil.rmtree(place.one)
        with pytest.raises(RollbackImpossible, match="does not lie"):
            client.swap(rollback=True)


def test_prepared_ids_outlive_a_swap(place: Place) -> None:
    with serving(place) as (_, client):
        mine = client.prepare(MINE).prepared_id
        task = client.prepare(task="sentiment").prepared_id
        point(place.link, place.two)
        assert client.swap().model_version == "v2"
        assert client.status().n_prepared == 3  # two tasks, and mine
        for key, labels in ((mine, set(MINE.labels)), (task, {"positive", "negative"})):
            found = client.predict(TEXT, prepared_id=key)
            assert (found.model_version, found.label in labels) == ("v2", True)

"""Hot swaps under load: are calls lost or failed, does an answer mix versions, what of memory?

    .venv/bin/python benchmarks/hot_swaps.py BUNDLE --out benchmarks/results/hot_swaps.json

Two versions of the bundle (the second one at half the temperature, so that every answer tells which
version gave it) lie side by side; a link is pointed from one to the other, and `SwapModel` takes it
over, while callers ask without a pause: single texts and batches of 16, no retries. An answer is
mixed if its scores are not those that its version gives alone, or if a batch holds two versions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from instructrec_deploy import Client, InstructRecError, Prediction, Predictor
from instructrec_deploy.cli.benchmark.figures import machine_facts
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.cli.server_process import ServerProcess, running_server
from instructrec_deploy.client.calls import RetryPolicy

TOLERANCE = 1e-5  # float32 sums in another order
ONCE = RetryPolicy(max_attempts=1)
Scores = dict[str, float]


def make_second(bundle: Path, folder: Path) -> Path:
    """A version that decides at half the temperature, with golden pairs of its own."""
    shutil.copytree(bundle, folder)
    tasks = folder / "tasks.toml"
    halved = re.sub(
        r"^temperature = (.*)$",
        lambda found: f"temperature = {float(found[1]) / 2}",
        tasks.read_text(encoding="utf-8"),
        flags=re.M,
    )
    tasks.write_text(halved, encoding="utf-8")
    golden = folder / "golden.jsonl"
    rows = [json.loads(line) for line in golden.read_text(encoding="utf-8").splitlines()]
    seal(folder)
    with Predictor(folder, guard=False) as predictor:
        for row in rows:
            answer = predictor.predict(row["text"], task=row["task"], top_k=0).answers[0]
            row["scores"] = {score.label: score.score for score in answer.scores}
    golden.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
    )
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write the manifest anew: hashes of the files as they are, another version."""
    path = folder / "bundle.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in raw["files"].items():
        content = (folder / name).read_bytes()
        entry.update(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    raw["version"] = raw["files"]["tasks.toml"]["sha256"][:12]
    path.write_text(json.dumps(raw), encoding="utf-8")


def point(link: Path, folder: Path) -> None:
    """Have the link lead to the folder, in one step."""
    new = link.with_name("new-link")
    new.symlink_to(folder)
    new.rename(link)


def scores_of(prediction: Prediction) -> Scores:
    """All scores of an answer."""
    return {score.label: score.score for score in prediction.answers[0].scores}


class Load:
    """Callers that ask again and again and look at every answer.

    Args:
        right: by version, the scores of each text.
        n_clients: connections, which the callers share out among them.
        retry: of the clients.
        pause_s: of each caller between two calls.
    """

    def __init__(
        self,
        address: str,
        texts: list[str],
        right: dict[str, list[Scores]],
        *,
        n_clients: int = 1,
        retry: RetryPolicy = ONCE,
        pause_s: float = 0.0,
    ) -> None:
        self._texts, self._right, self._pause_s = texts, right, pause_s
        self._clients = [Client(address, retry=retry, timeout_s=60) for _ in range(n_clients)]
        self._has_ended = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        kinds = [self._ask_one] * 8 + [self._ask_batch] * 2
        self._threads = [
            threading.Thread(target=kind, args=(self._clients[number % n_clients],))
            for number, kind in enumerate(kinds)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let every caller finish its call."""
        self._has_ended.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()

    def _ask_one(self, client: Client) -> None:
        place = 0
        while not self._has_ended.is_set():
            place = (place + 7) % len(self._texts)
            time.sleep(self._pause_s)
            try:
                found = client.predict(self._texts[place], top_k=0)
            except InstructRecError as error:
                self._count(f"failed {error.code}")
            else:
                self._count("calls", self._judge(found, place))

    def _ask_batch(self, client: Client) -> None:
        while not self._has_ended.is_set():
            time.sleep(self._pause_s)
            try:
                found = client.predict_batch(self._texts[:16], top_k=0)
            except InstructRecError as error:
                self._count(f"failed {error.code}")
                continue
            whole = [item for item in found if isinstance(item, Prediction)]
            is_mixed = len({item.model_version for item in whole}) != 1
            words = ["mixed"] if is_mixed else [self._judge(p, i) for i, p in enumerate(whole)]
            self._count("batches", *words, *["failed item"] * (len(found) - len(whole)))

    def _judge(self, found: Prediction, place: int) -> str:
        right, scores = self._right[found.model_version][place], scores_of(found)
        near = all(abs(scores[label] - right[label]) <= TOLERANCE for label in right)
        return "right" if near and scores.keys() == right.keys() else "mixed"

    def _count(self, *words: str) -> None:
        with self._lock:
            self.counts.update(words)


def measure(bundle: Path, n_swaps: int) -> dict[str, Any]:
    """Swap to and fro under load."""
    texts = load_texts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, two, link = folder / "one", folder / "two", folder / "current"
        shutil.copytree(bundle, one)
        make_second(bundle, two)
        right = {}
        for version in (one, two):
            with Predictor(version) as predictor:
                key = predictor.bundle.manifest.version
                right[key] = [scores_of(predictor.predict(text, top_k=0)) for text in texts]
        point(link, one)
        with running_server(link, folder / "log") as server:
            server.wait_ready()
            return swap_under_load(server, link, (one, two), texts, right, n_swaps)


def swap_under_load(
    server: ServerProcess,
    link: Path,
    versions: tuple[Path, Path],
    texts: list[str],
    right: dict[str, list[Scores]],
    n_swaps: int,
) -> dict[str, Any]:
    """The swaps themselves."""
    load = Load(server.address, texts, right)
    seconds, memory, n_changed = [], [], 0
    with Client(server.address, retry=ONCE, timeout_s=120) as admin:
        for number in range(n_swaps):
            time.sleep(0.5)
            point(link, versions[(number + 1) % 2])
            start = time.monotonic()
            n_changed += admin.swap().is_changed
            seconds.append(time.monotonic() - start)
            memory.append(server.memory_mb())
    load.end()
    time.sleep(1.0)
    return {
        "swaps": n_changed,
        "counts": dict(sorted(load.counts.items())),
        "mixed": load.counts["mixed"],
        "failed": sum(n for word, n in load.counts.items() if word.startswith("failed")),
        "swap_s": {"median": round(statistics.median(seconds), 2), "most": round(max(seconds), 2)},
        "memory_mb": {
            "after_each": [round(mb) for mb in memory],
            "at_rest": round(server.memory_mb()),
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--swaps", type=int, default=20)
    given = parser.parse_args()
    result = {"machine": machine_facts(), **measure(given.bundle, given.swaps)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""Our server beside others, one model for all, in one run.

    python benchmarks/serving/peers.py BUNDLE --data FILE --out benchmarks/results/peers.json

Every server gets the bundle's own graph and tokenizer, a text, and gives its label; peers in
environments of their own (`--environments`, `benchmarks/serving/peers/*.txt`); one that is not
installed is named and left out. Before the rounds each peer is tried in several layouts (batch
size, waiting time) by 32 callers, and is measured in the fastest. A round:

- *bound*: the engine in this process on batches sorted by length (1.00 of all ratios), before and
  after; and one text after the other in this process;
- *closed*: 1, 8, 32 and 64 callers on each server; ours also by batch messages of 16 and by one
  stream, 64 texts under way each, and by 1 and 64 calls of grpcio's own client, which takes more of
  the cores than the load's; an empty gRPC handler, too: the floor of gRPC for Python;
- *open*: calls at random moments (Poisson) and bursts of 16, at 60 % of the best peer's peak of
  this round, on each server.

Servers are started anew for each part of a round, one at a time; processor time is that of all
their processes for all texts answered. The load takes part of the same cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from peer_load import Measured, Plan
from peer_servers import (
    FLOOR,
    PEERS,
    READY_WITHIN_S,
    Layout,
    Peer,
    Running,
    start_ours,
    start_peer,
    write_model,
)

from instructrec_deploy.cli.benchmark.bound import Bound
from instructrec_deploy.cli.benchmark.figures import machine_facts, percentile, spread
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import Predictor

CALLERS = (1, 8, 32, 64)
TRIED_BY = 32  # callers, when layouts are tried
OPEN_SHARE = 0.6
N_ASKED, N_SINGLE = 40, 200
FIGURES = ("texts_per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_s_per_1000", "load_cpu_s_per_1000")
# Ours beside unary calls: name -> (form, callers); 64 texts under way, but for one.
OWN_POINTS = {
    "batch_16": ("batch", 4),
    "stream": ("stream", 64),
    "grpcio_1": ("grpcio", 1),
    "grpcio_64": ("grpcio", 64),
}


@dataclass
class Subject:
    """A server that is measured."""

    name: str
    form: str
    path: str
    start: Callable[[Path], AbstractContextManager[Running]]
    layout: Layout = field(default_factory=dict)
    points: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    n_agreeing: int = 0  # of N_ASKED labels, those that the engine in process gives
    peaks: list[float] = field(default_factory=list)

    def ask(self, address: str, text: str) -> str:
        """One label."""
        if self.form == "unary":
            with Client(address, timeout_s=5.0) as client:
                return client.predict(text).answers[0].label
        if self.form == "naive":  # of the empty one, too
            with grpc.insecure_channel(address) as channel:
                call = channel.unary_unary("/peer.Classifier/Predict")
                return bytes(call(text.encode(), timeout=5.0)).decode()
        is_json = self.form == "json"
        body = json.dumps({"text": text}) if is_json else text
        request = urllib.request.Request(f"http://{address}{self.path}", body.encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            content = answer.read().decode()
        return str(json.loads(content)["label"]) if is_json else content

    def wait_answering(self, server: Running) -> None:
        """Until it has given an answer.

        Raises:
            SystemExit: it took too long.
        """
        reason = ""
        while time.monotonic() - server.begun_s < READY_WITHIN_S:
            try:
                self.ask(server.address, "ok")
                return
            except (InstructRecError, OSError, grpc.RpcError, ValueError) as error:
                reason = repr(error)
                time.sleep(0.1)
        raise SystemExit(f"{self.name} does not answer: {reason}; its log:\n{server.tail()}")


def load(server: Running, subject: Subject, texts: Sequence[str], **plan: Any) -> dict[str, Any]:
    """One load on a server: texts a second, latencies, processor time of a thousand texts."""
    plan = {"form": subject.form, "path": subject.path, **plan}
    before_s = server.cpu_s()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("peer_load.py"))],
        input=json.dumps(asdict(Plan(server.address, texts=list(texts), **plan))),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the load on {subject.name} failed:\n{done.stderr}\n{server.tail()}")
    spent_s = server.cpu_s() - before_s
    got = Measured(**json.loads(done.stdout))
    return {
        "texts_per_s": round(got.n_texts / got.seconds, 1),
        **{f"p{p}_ms": round(percentile(got.latencies_ms, p), 3) for p in (50, 95, 99)},
        "cpu_s_per_1000": round(1000 * spent_s / max(1, got.n_all), 3),
        "load_cpu_s_per_1000": round(1000 * got.load_cpu_s / max(1, got.n_all), 3),
        "n_calls": len(got.latencies_ms),
        "errors": got.errors,
    }


class Run:
    """All that is measured, round by round."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.texts = load_texts(given.data)
        bundle = open_bundle(given.bundle)
        pipeline = Pipeline.open(bundle, guard=False)
        self.model = folder / "model"
        self.model.mkdir()
        self.n_labels = write_model(bundle, pipeline, self.model)
        pipeline.close()
        self.predictor = Predictor(bundle)
        self.bound = Bound(given.bundle, self.texts)
        self.bounds: list[float] = []
        self.singles_ms: list[float] = []
        self.rates: list[float] = []
        ours = Subject("ours", "unary", "", lambda log: start_ours(given.bundle, log))
        self.subjects = [*map(self.find_layout, self.installed()), ours]
        self.floor = self.find_layout(FLOOR)

    def installed(self) -> list[Peer]:
        """The peers that there are; what the others need is said."""
        chosen = self.given.peers.split(",") if self.given.peers else [p.name for p in PEERS]
        unknown = set(chosen) - {peer.name for peer in PEERS}
        if unknown:
            known = ", ".join(peer.name for peer in PEERS)
            raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are: {known}")
        found = []
        for peer in PEERS:
            if peer.name not in chosen:
                continue
            missing = peer.missing(self.given.environments)
            print(missing or f"{peer.name}: installed", file=sys.stderr, flush=True)
            if not missing:
                found.append(peer)
        if not found:
            raise SystemExit("no peer is installed: there is nothing to compare with")
        return found

    def find_layout(self, peer: Peer) -> Subject:
        """The peer in its fastest layout."""

        def subject(layout: Layout) -> Subject:
            def start(log: Path) -> AbstractContextManager[Running]:
                return start_peer(peer, layout, self.model, self.given.environments, log)  # type: ignore[no-any-return]

            return Subject(peer.name, peer.form, peer.path, start, layout)

        if len(peer.layouts) == 1:
            return subject(peer.layouts[0])
        reached = []
        for layout in peer.layouts:
            one = subject(layout)
            with self.started(one) as server:
                one.wait_answering(server)
                got = load(server, one, self.texts, n_callers=TRIED_BY, seconds=self.given.try_s)
            reached.append(got["texts_per_s"])
            print(
                f"{peer.name} {dict(layout)}: {got['texts_per_s']}/s", file=sys.stderr, flush=True
            )
        best = subject(peer.layouts[reached.index(max(reached))])
        best.points["tried"] = [
            {"layout": dict(layout), "texts_per_s": rate}
            for layout, rate in zip(peer.layouts, reached, strict=True)
        ]
        return best

    def started(self, subject: Subject) -> AbstractContextManager[Running]:
        """Its server, listening."""
        return subject.start(self.folder / f"{subject.name}.log")

    def round(self, number: int) -> None:
        """Everything once; the order of the servers turns from round to round."""
        turn = number % len(self.subjects)
        order = [*self.subjects[turn:], *self.subjects[:turn]]
        before = self.bound.measure(self.given.seconds)
        self.singles_ms.append(self.single_ms())
        for subject in order:
            with self.started(subject) as server:
                subject.wait_answering(server)
                self.check_labels(subject, server)
                self.closed(subject, server)
        with self.started(self.floor) as server:
            self.floor.wait_answering(server)
            self.closed(self.floor, server)
        self.bounds.append((before + self.bound.measure(self.given.seconds)) / 2)
        best = max(s.peaks[-1] for s in self.subjects if s.name != "ours")
        self.rates.append(OPEN_SHARE * best)
        for subject in order:
            with self.started(subject) as server:
                subject.wait_answering(server)
                for name, is_bursty in (("open_poisson", False), ("open_bursts", True)):
                    rate = self.rates[-1]
                    self.add(subject, server, name, calls_per_s=rate, is_bursty=is_bursty)

    def closed(self, subject: Subject, server: Running) -> None:
        """All closed loops on one server."""
        reached = [self.add(subject, server, f"closed_{n}", n_callers=n) for n in CALLERS]
        subject.peaks.append(max(reached))
        if subject.name == "ours":
            for name, (form, n_callers) in OWN_POINTS.items():
                self.add(subject, server, name, form=form, n_callers=n_callers)

    def add(self, subject: Subject, server: Running, name: str, **plan: Any) -> float:
        """Measure and keep one point; texts a second."""
        got = load(server, subject, self.texts, seconds=self.given.seconds, **plan)
        subject.points.setdefault(name, []).append(got)
        print(subject.name, name, json.dumps(got), file=sys.stderr, flush=True)
        return float(got["texts_per_s"])

    def check_labels(self, subject: Subject, server: Running) -> None:
        """Whether it serves the same model: its labels beside those in process."""
        step = max(1, len(self.texts) // N_ASKED)
        asked = self.texts[::step][:N_ASKED]
        subject.n_agreeing = sum(
            subject.ask(server.address, text) == self.predictor.predict(text).answers[0].label
            for text in asked
        )

    def single_ms(self) -> float:
        """One text after the other in this process: the middle of their times."""
        spent = []
        for text in self.texts[:N_SINGLE]:
            begun = time.perf_counter()
            self.predictor.predict(text)
            spent.append(1000 * (time.perf_counter() - begun))
        return statistics.median(spent)

    def result(self) -> dict[str, Any]:
        """For JSON: medians over the rounds, and each round's ratios to its own bound."""
        return {
            "machine": machine_facts(),
            "note": self.given.note,
            "settings": {
                "bundle": self.given.bundle.name,
                "n_labels": self.n_labels,
                "n_texts": len(self.texts),
                "mean_tokens": round(self.bound.mean_tokens, 1),
                "seconds": self.given.seconds,
                "n_rounds": len(self.bounds),
                "open_share_of_best_peer": OPEN_SHARE,
            },
            "bound_texts_per_s": spread(self.bounds),
            "in_process_single_p50_ms": spread(self.singles_ms),
            "open_calls_per_s": spread(self.rates),
            "bound_cpu_s_per_1000": spread([1000 * self.bound.n_threads / b for b in self.bounds]),
            "servers": {subject.name: self.summary(subject) for subject in self.subjects},
            "floor": self.summary(self.floor)["points"],
        }

    def summary(self, subject: Subject) -> dict[str, Any]:
        """One server's figures."""
        points = {}
        for name, rounds in subject.points.items():
            if name == "tried":
                continue
            shares = [r["texts_per_s"] / b for r, b in zip(rounds, self.bounds, strict=True)]
            points[name] = {
                "of_bound": spread(shares),
                **{key: spread([one[key] for one in rounds]) for key in FIGURES},
                "n_calls": sum(one["n_calls"] for one in rounds),
                "n_errors": sum(sum(one["errors"].values()) for one in rounds),
            }
        return {
            "layout": dict(subject.layout),
            "tried": subject.points.get("tried", []),
            "labels_as_in_process": round(subject.n_agreeing / N_ASKED, 3),
            "points": points,
        }


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="its default task is asked")
    parser.add_argument("--data", default="", help="texts of this file, not the shipped ones")
    parser.add_argument("--out", type=Path, required=True, help="JSON; the plot goes beside it")
    parser.add_argument("--environments", type=Path, default=Path("build/peers"))
    parser.add_argument("--peers", default="", help="only these, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--try-s", type=float, default=2.0, help="of each layout that is tried")
    parser.add_argument("--note", default="", help="what else the reader should know")
    given = parser.parse_args()
    given.environments = given.environments.absolute()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="instructrec-peers-") as folder:
        run = Run(given, Path(folder))
        for number in range(given.rounds):
            run.round(number)
            text = json.dumps(run.result(), indent=1, ensure_ascii=False)
            given.out.write_text(text + "\n", encoding="utf-8")
    draw(given.out, given.environments)


def draw(result: Path, environments: Path) -> None:
    """PNG and SVG beside the JSON, where matplotlib is installed."""
    script = Path(__file__).with_name("peer_plot.py")
    own = environments / "plot" / "bin" / "python"
    python = own if own.exists() else Path(sys.executable)
    if subprocess.run([str(python), str(script), str(result)], check=False).returncode:
        print(
            f"no plot; to have one:\n    python -m venv {environments}/plot && "
            f"{environments}/plot/bin/pip install -r {script.parent}/peers/plot.txt\n"
            f"    {own} {script} {result}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()

"""A server at three times its capacity, and one tenant's flood beside another, in one run.

    .venv/bin/python benchmarks/serving/overload.py BUNDLE --out benchmarks/results/overload.json

Each round, with texts of about 200 tokens, so that making the load costs little:

- *peak*: 16 closed-loop callers on a server without a target; texts a second;
- *overload*: calls at random moments (Poisson), three times the peak, on a server with the target:
  how many are answered, how late those accepted and how soon those refused are answered;
- *tenants*: a quiet tenant at a fifth of the peak alone, then beside another one's flood of three
  times the peak, then beside the same flood with a quota of a fifth of the peak (and a second's
  worth of it at once).

Latencies are those of whole calls, as the caller sees them. The load takes part of the same cores:
close other programs. It is made by a client of few lines (`grpc_door.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from grpc_door import CallFailed, GrpcDoor
from tokenizers import Tokenizer

from instructrec_deploy.cli.benchmark.figures import machine_facts, percentile, spread
from instructrec_deploy.cli.benchmark.load import Plan, run_load
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.cli.server_process import ServerProcess, running_server
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.request import Request
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from instructrec_deploy.wire.requests import method_path, write_request

N_TOKENS, N_TEXTS, N_CALLERS = 200, 32, 16
TIMES, SHARE = 3.0, 0.2  # of the peak: the flood, and a quiet tenant
WARM_UP_S, SETTLE_S, CALL_TIMEOUT_S = 1.0, 1.0, 60
REFUSED = "8"  # RESOURCE_EXHAUSTED


@dataclass(frozen=True)
class Stream:
    """One tenant's calls: so many a second, at random moments, whatever becomes of them."""

    name: str
    calls_per_s: float
    key: str = ""


@dataclass(frozen=True)
class OpenPlan:
    """What a load process does; the first second is not counted."""

    address: str
    texts: list[str]
    streams: list[dict[str, Any]]  # `Stream`s
    seconds: float
    seed: int


@dataclass
class Got:
    """What one tenant got. Milliseconds."""

    n_sent: int = 0
    accepted_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def figures(self, seconds: float) -> dict[str, Any]:
        """For people."""
        return {
            "sent_per_s": round(self.n_sent / seconds, 2),
            "answered_per_s": round(len(self.accepted_ms) / seconds, 2),
            "n_answered": len(self.accepted_ms),
            "n_refused": len(self.refused_ms),
            "errors": self.errors,
            "p50_ms": round(percentile(self.accepted_ms, 50), 1),
            "p99_ms": round(percentile(self.accepted_ms, 99), 1),
            "refused_p50_ms": round(percentile(self.refused_ms, 50), 2),
            "refused_p99_ms": round(percentile(self.refused_ms, 99), 2),
        }


async def send_all(plan: OpenPlan) -> dict[str, dict[str, Any]]:
    """Run all streams side by side; what each got."""
    payloads = [write_request(Request.of(text)).SerializeToString() for text in plan.texts]
    rng = random.Random(plan.seed)
    got: dict[str, Got] = {}
    runs = []
    for stream in (Stream(**stream) for stream in plan.streams):
        got[stream.name] = Got()
        door = await GrpcDoor.open(
            plan.address, method_path("Predict"), timeout_s=CALL_TIMEOUT_S, key=stream.key
        )
        runs.append(send(door, stream, got[stream.name], payloads, plan.seconds, rng.random()))
    await asyncio.gather(*runs)
    return {name: asdict(one) for name, one in got.items()}


async def send(
    door: GrpcDoor, stream: Stream, got: Got, payloads: Sequence[bytes], seconds: float, seed: float
) -> None:
    """Send one stream at its moments, then wait for what is under way."""
    rng = random.Random(seed)
    errors: Counter[str] = Counter()
    begun = time.perf_counter()
    moment, tasks = 0.0, set()

    async def one(payload: bytes, is_counted: bool) -> None:
        sent = time.perf_counter()
        try:
            await door.call(payload)
        except CallFailed as error:
            spent_ms = (time.perf_counter() - sent) * 1000
            if not is_counted:
                return
            if str(error) == REFUSED:
                got.refused_ms.append(spent_ms)
            else:
                errors[str(error)] += 1
            return
        spent_ms = (time.perf_counter() - sent) * 1000
        if is_counted:
            got.accepted_ms.append(spent_ms)

    while (moment := moment + rng.expovariate(stream.calls_per_s)) < WARM_UP_S + seconds:
        await asyncio.sleep(max(0.0, begun + moment - time.perf_counter()))
        is_counted = moment >= WARM_UP_S
        got.n_sent += is_counted
        task = asyncio.create_task(one(rng.choice(payloads), is_counted))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    got.errors = dict(errors)


def run_open(
    server: ServerProcess, texts: list[str], streams: list[Stream], seconds: float, seed: int
) -> dict[str, Got]:
    """The streams from a process of their own."""
    plan = OpenPlan(server.address, texts, [asdict(stream) for stream in streams], seconds, seed)
    done = subprocess.run(
        [sys.executable, __file__, "--load"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the load process failed:\n{done.stderr}")
    time.sleep(SETTLE_S)
    return {name: Got(**one) for name, one in json.loads(done.stdout).items()}


def long_texts(bundle: Path, seed: int = 1) -> list[str]:
    """Texts of about `N_TOKENS` tokens, put together from the shipped messages."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rng = random.Random(seed)
    messages = [text for text in load_texts() if text.isascii() and not any(map(str.isdigit, text))]
    texts = []
    for _ in range(N_TEXTS):
        parts = [rng.choice(messages)]
        while len(tokenizer.encode(" ".join(parts)).ids) < N_TOKENS - 6:
            parts.append(rng.choice(messages))
        texts.append(" ".join(parts))
    return texts


def key_of(name: str, **quota: float) -> tuple[str, str, KeyEntry]:
    """(id, key, entry)."""
    id_, key, kept = new_key()
    return id_, key, KeyEntry.model_validate({"name": name, "hash": kept, **quota})


@contextmanager
def servers(
    bundle: Path, folder: Path, target_ms: float
) -> Iterator[tuple[ServerProcess, ServerProcess, ServerProcess]]:
    """Without a target; with it; with it and API keys. While one is measured the others idle."""
    apart = ["--set", "batching.join_equal=false"]  # the load has few texts, users have many
    target = [*apart, "--target-p99-ms", f"{target_ms:g}"]
    keys = ["--set", f"access.keys={folder / 'keys.toml'}", "--set", "access.reload_s=0.1"]
    with ExitStack() as stack:
        found = [
            stack.enter_context(running_server(bundle, folder / f"{name}.log", options=options))
            for name, options in (("plain", apart), ("target", target), ("keys", [*target, *keys]))
        ]
        for server in found:
            server.wait_ready()
        yield found[0], found[1], found[2]


def peak_of(server: ServerProcess, texts: list[str], seconds: float) -> float:
    """Texts a second of a server that refuses nobody."""
    return run_load(Plan(server.address, texts, N_CALLERS, seconds=seconds)).texts_per_s


def measure_round(
    bundle: Path, folder: Path, texts: list[str], seconds: float, target_ms: float, seed: int
) -> dict[str, Any]:
    """All figures once."""
    quiet_id, quiet, quiet_entry = key_of("quiet")
    flood_id, flood, flood_entry = key_of("flood")
    entries = {quiet_id: quiet_entry, flood_id: flood_entry}
    write_keys(folder / "keys.toml", entries)
    with servers(bundle, folder, target_ms) as (plain, target, keyed):
        before = peak_of(plain, texts, seconds / 4)
        loaded = run_open(target, texts, [Stream("all", TIMES * before)], seconds, seed)["all"]
        peak = (before + peak_of(plain, texts, seconds / 4)) / 2
        streams = [Stream("quiet", SHARE * peak, quiet), Stream("flood", TIMES * peak, flood)]
        alone = run_open(keyed, texts, streams[:1], seconds, seed)
        flooded = run_open(keyed, texts, streams, seconds, seed)
        n_tokens = round(SHARE * peak * N_TOKENS)
        quota = {"tokens_per_s": n_tokens, "burst_tokens": n_tokens}
        limited = KeyEntry.model_validate({**flood_entry.model_dump(), **quota})
        write_keys(folder / "keys.toml", {**entries, flood_id: limited})
        time.sleep(SETTLE_S)
        with_quota = run_open(keyed, texts, streams, seconds, seed)
    of_all = loaded.figures(seconds)
    alone_p99 = percentile(alone["quiet"].accepted_ms, 99)
    return {
        "peak_per_s": round(peak, 2),
        "overload": of_all,
        "quiet_alone": alone["quiet"].figures(seconds),
        "flooded": {name: one.figures(seconds) for name, one in flooded.items()},
        "flooded_with_quota": {name: one.figures(seconds) for name, one in with_quota.items()},
        "ratios": {
            "goodput_to_peak": round(of_all["answered_per_s"] / peak, 3),
            "accepted_p99_to_target": round(of_all["p99_ms"] / target_ms, 3),
            "refused_p99_ms": of_all["refused_p99_ms"],
            "flooded_p99_to_alone": round(
                percentile(flooded["quiet"].accepted_ms, 99) / alone_p99, 3
            ),
            "with_quota_p99_to_alone": round(
                percentile(with_quota["quiet"].accepted_ms, 99) / alone_p99, 3
            ),
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--target-ms", type=float, default=500.0)
    parser.add_argument("--note", default="", help="what else the reader should know")
    given = parser.parse_args()
    texts = long_texts(given.bundle)
    facts = machine_facts()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            rounds.append(
                measure_round(
                    given.bundle, Path(folder), texts, given.seconds, given.target_ms, number
                )
            )
            print(json.dumps(rounds[-1]["ratios"]), flush=True)
    result = {
        "machine": facts,
        "note": given.note,
        "settings": {
            "bundle": given.bundle.name,
            "n_tokens": N_TOKENS,
            "n_tokens_read": min(N_TOKENS, open_bundle(given.bundle).manifest.model.max_tokens),
            "seconds": given.seconds,
            "target_p99_ms": given.target_ms,
            "times_peak": TIMES,
            "quiet_share": SHARE,
            "loop": "open, Poisson; the peak closed, 16 callers",
        },
        "peak_per_s": spread([one["peak_per_s"] for one in rounds]),
        "median": {
            name: round(statistics.median(one["ratios"][name] for one in rounds), 3)
            for name in rounds[0]["ratios"]
        },
        "rounds": rounds,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--load"]:
        json.dump(asyncio.run(send_all(OpenPlan(**json.load(sys.stdin)))), sys.stdout)
    else:
        main()

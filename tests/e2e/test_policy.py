"""A real server with a policy file: callers, dry runs, reload without restart."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from instructrec_deploy import Client, Security
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.review_store import ReviewStore
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from tests.serving import ServerProcess, free_port, running_server, start_server

POLICY = """
version = "1"
[tasks.intent.input.content]
threat = "flag"
[tenants.bank.input.personal_data]
PHONE = "block"
"""
NUMBER = "打13812345678"
THREAT = "I will kill you"


def ask(server: ServerProcess, text: str, key: str, task: str = "intent") -> Prediction:
    with Client(server.address, security=Security(api_key=key), timeout_s=20) as client:
        return client.predict(text, task=task)


def eventually(check: Callable[[], bool], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.05)
    return False


def test_a_policy_by_task_and_caller_and_its_reload(tiny_bundle: Path, tmp_path: Path) -> None:
    (shop_id, shop, shop_kept), (bank_id, bank, bank_kept) = new_key(), new_key()
    entries = {shop_id: ("shop", shop_kept), bank_id: ("bank", bank_kept)}
    keys = tmp_path / "keys.toml"
    write_keys(
        keys,
        {id_: KeyEntry.model_validate({"name": n, "hash": h}) for id_, (n, h) in entries.items()},
    )
    policy = tmp_path / "safety.toml"
    policy.write_text(POLICY)
    audit = tmp_path / "audit.jsonl"
    with running_server(
        tiny_bundle,
        tmp_path / "server",
        access={"keys": str(keys)},
        safety={"policy": str(policy), "reload_s": 0.2, "audit": str(audit)},
        environ={"INSTRUCTREC_SAFETY_KEY": "k" * 32},
        metrics_port=free_port(),
    ) as server:
        masked = ask(server, NUMBER, shop)
        assert (masked.action, masked.text) == ("mask", "打[PHONE]")
        assert masked.verdicts[0].policy_version == "1"
        assert ask(server, NUMBER, bank).action == "block"
        assert ask(server, THREAT, shop).action == "flag"
        assert ask(server, THREAT, shop, task="sentiment").action == "block"

        policy.write_text("[input")
        assert server.event("safety policy not reloaded")
        assert ask(server, NUMBER, shop).verdicts[0].policy_version == "1"

        policy.write_text('version = "2"\n[input]\ndry_run = true\n')
        assert eventually(lambda: ask(server, NUMBER, shop).verdicts[0].policy_version == "2")
        tried = ask(server, THREAT, shop)
        assert tried.label
        assert (tried.action, tried.text) == ("flag", "")
        assert tried.verdicts[0].dry_run_action == "block"
        assert tried.verdicts[0].findings[0].dry_run_action == "block"
        found = urllib.request.urlopen(server.metrics_url, timeout=5).read().decode()
        assert 'instructrec_safety_policy_info{version="2"} 1.0' in found
        assert 'version="1"} 1.0' not in found.split("instructrec_model_info")[0]
        assert 'instructrec_safety_policy_reloads_total{outcome="failed"} 1.0' in found
        assert 'dry_run_findings_total{action="block",category="threat"} 1.0' in found
        assert server.stop() == 0
        lines = [json.loads(line) for line in audit.read_text().splitlines()]
        blocked = [row for row in lines if row["caller"] == "bank"]
        assert [(row["action"], row["tasks"], row["n_chars"]) for row in blocked] == [
            ("block", ["intent"], len(NUMBER))
        ]
        assert lines[-1]["dry_run_action"] == "block"
        for written in (server.stdout, server.stderr, audit.read_text()):
            assert "13812345678" not in written
            assert THREAT not in written


def test_cases_reach_the_review_queue_masked(tiny_bundle: Path, tmp_path: Path) -> None:
    policy, queue = tmp_path / "safety.toml", tmp_path / "review.db"
    policy.write_text('version = "1"\n[input]\nreview = ["block"]\n')
    files = {"policy": str(policy), "review": str(queue)}
    with running_server(tiny_bundle, tmp_path / "server", safety=files) as server:
        with Client(server.address, timeout_s=20) as client:
            for _ in range(2):
                found = client.predict(f"{NUMBER}, {THREAT}", task="intent")
                assert found.verdicts[0].review
            client.predict("fine", task="intent")
        assert server.stop() == 0
    with ReviewStore.open(queue) as store:
        (kept,) = store.cases()
    assert (kept.case.text, kept.n_seen) == (f"打[PHONE], {THREAT}", 2)
    assert b"13812345678" not in queue.read_bytes()


def test_a_policy_that_cannot_be_used_ends_the_start(tiny_bundle: Path, tmp_path: Path) -> None:
    policy = tmp_path / "safety.toml"
    policy.write_text('[input.content]\nthreat = "regenerate"')
    server = start_server(tiny_bundle, tmp_path / "server", safety={"policy": str(policy)})
    assert server.process.wait(30) == 2
    assert "input.content.threat" in server.stderr

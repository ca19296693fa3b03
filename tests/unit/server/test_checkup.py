"""What `doctor` says about machines, bundles and settings, each rule by itself."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.errors import BundleError, FileMissing
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.server.access.keys import KeyEntry, new_key, write_keys
from instructrec_deploy.server.checkup.bundles import check_bundle, check_repository
from instructrec_deploy.server.checkup.configuration import check_configuration
from instructrec_deploy.server.checkup.finding import Finding
from instructrec_deploy.server.checkup.machine import check_machine, memory_mb
from instructrec_deploy.server.settings import load_settings
from tests.certificates import Authority
from tests.tiny import write_tiny_bundle

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ONE_LANE = EngineSettings(n_lanes=1, threads_per_lane=1)
WRONG = {"text": "I lost my card", "task": "intent", "label": "refund", "scores": {}}


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


def machine(folder: Path, *, flags: str = "avx2", memory_kb: int = 1 << 23) -> dict[str, Finding]:
    """A machine as /proc would tell it."""
    (folder / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
    (folder / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {memory_kb} kB\n")
    return by_name(check_machine(proc=folder, cgroup=folder))


def configured(**sections: dict[str, Any]) -> dict[str, Finding]:
    settings = load_settings(overrides=sections, environ={}).settings
    return by_name(check_configuration(settings, NOW))


def keys_file(folder: Path, *expires: datetime | None) -> str:
    entries = {}
    for moment in expires:
        id_, _, kept = new_key()
        entries[id_] = KeyEntry(name="shop", hash=kept, expires=moment)
    write_keys(folder / "keys.toml", entries)
    return str(folder / "keys.toml")


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [("avx2 avx512_vnni", "ok"), ("avx2", "warn"), ("sse4_2", "warn")],
)
def test_a_processor_is_judged_by_what_int8_needs(tmp_path: Path, flags: str, verdict: str) -> None:
    assert machine(tmp_path, flags=flags)["processor"].verdict == verdict


def test_memory_is_what_is_left_of_machine_and_container(tmp_path: Path) -> None:
    assert machine(tmp_path)["memory"].verdict == "ok"
    (tmp_path / "memory.max").write_text(f"{512 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{500 << 20}\n")
    assert memory_mb(tmp_path, tmp_path) == 12
    assert machine(tmp_path)["memory"].verdict == "warn"
    assert memory_mb(tmp_path / "none", tmp_path / "none") is None


def test_a_container_with_one_core_is_told(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine(tmp_path)["cores"].verdict == "warn"


def test_a_gpu_that_is_not_there_fails() -> None:
    found = by_name(check_machine(EngineSettings(provider="cuda")))["onnxruntime"]
    assert (found.verdict, found.code) == ("fail", "IR-1700")


def test_a_sound_bundle_is_told_to_be_one(tmp_path: Path) -> None:
    right = {"text": "I lost my card", "task": "intent", "label": "card lost", "scores": {}}
    found = list(check_bundle(write_tiny_bundle(tmp_path, golden=[right]), ONE_LANE))
    assert [finding.verdict for finding in found] == ["ok", "ok"]
    assert "1 golden pairs agree" in found[1].message


def test_a_bundle_that_answers_otherwise_or_is_damaged_fails(tmp_path: Path) -> None:
    other = list(check_bundle(write_tiny_bundle(tmp_path / "a", golden=[WRONG]), ONE_LANE))
    assert [(finding.verdict, finding.code) for finding in other[1:]] == [("fail", "IR-1502")]
    assert "lost my card" not in other[1].message
    damaged = write_tiny_bundle(tmp_path / "b")
    (damaged / "tokenizer.json").write_text("{}")
    (found,) = check_bundle(damaged, ONE_LANE)
    assert (found.verdict, found.code) == ("fail", BundleError.code)
    (found,) = check_bundle(tmp_path / "nowhere", ONE_LANE)
    assert (found.verdict, found.code) == ("fail", FileMissing.code)


def test_every_bundle_of_a_repository_is_looked_at(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bank" / "1", golden=[WRONG], version="one")
    write_tiny_bundle(tmp_path / "客服" / "1", version="two")
    given = {"models": {"repository": str(tmp_path)}}
    found = by_name(check_repository(load_settings(overrides=given, environ={}).settings))
    assert {name: finding.verdict for name, finding in found.items()} == {
        "bundle tiny one": "fail",
        "bundle tiny two": "warn",  # no golden pairs
    }
    given = {"models": {"repository": str(tmp_path), "pins": ["bank=7"]}}
    found = by_name(check_repository(load_settings(overrides=given, environ={}).settings))
    assert found["model bank"].verdict == "fail"


@pytest.mark.parametrize(
    ("door", "verdict"),
    [
        ({}, "ok"),
        ({"host": "0.0.0.0"}, "fail"),
        ({"host": "0.0.0.0", "allow_insecure": True}, "warn"),
    ],
)
def test_an_open_address_without_protection(door: dict[str, Any], verdict: str) -> None:
    assert configured(server={"port": 0, **door})["address"].verdict == verdict


def test_a_port_in_use_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = configured(server={"port": taken.getsockname()[1]})["port"]
    assert (found.verdict, found.code) == ("fail", "IR-1601")


@pytest.mark.parametrize(
    ("days", "verdict"),
    [((None,), "ok"), ((None, -1), "ok"), ((None, 3), "warn"), ((-1,), "fail"), ((), "fail")],
)
def test_keys_that_are_over_or_will_be(
    tmp_path: Path, days: tuple[int | None, ...], verdict: str
) -> None:
    file = keys_file(tmp_path, *(None if n is None else NOW + timedelta(days=n) for n in days))
    assert configured(server={"port": 0}, access={"keys": file})["keys"].verdict == verdict


def test_secrets_that_others_may_read_are_told(tmp_path: Path) -> None:
    file = keys_file(tmp_path, None)
    assert "access.keys" not in configured(server={"port": 0}, access={"keys": file})
    Path(file).chmod(0o644)
    found = configured(server={"port": 0}, access={"keys": file})["access.keys"]
    assert (found.verdict, found.hint) == ("warn", f"chmod 600 {file}")


def test_certificates_that_do_not_fit_or_end(tmp_path: Path) -> None:
    one, two = Authority(tmp_path).issue("one"), Authority(tmp_path).issue("two")
    access = {"tls_cert": str(one.cert), "tls_key": str(two.key)}
    found = configured(server={"port": 0}, access=access)["certificate"]
    assert (found.verdict, found.code) == ("fail", "IR-1600")
    settings = load_settings(
        overrides={"server": {"port": 0}, "access": access | {"tls_key": str(one.key)}}, environ={}
    ).settings
    for years, verdict in ((0, "ok"), (99, "fail")):
        moment = datetime.now(UTC) + timedelta(days=365 * years)
        found = by_name(check_configuration(settings, moment))["certificate"]
        assert found.verdict in ((verdict, "warn") if years == 0 else (verdict,))


def test_files_that_are_to_be_written(tmp_path: Path) -> None:
    for file, verdict in ((tmp_path / "new" / "f.db", "ok"), (tmp_path, "fail")):
        found = configured(server={"port": 0}, feedback={"file": str(file)})
        assert found["feedback"].verdict == verdict


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is missing")
def test_the_runtime_that_the_settings_name_is_looked_at() -> None:
    found = by_name(check_machine(EngineSettings(runtime="openvino")))
    assert found["openvino"].verdict == "ok"
    assert "onnxruntime" not in found

"""`instructrec doctor`: lines for people, JSON for programs, an exit code for both."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import write_tiny_bundle
from tests.unit.cli.conftest import Run

FREE = ("--set", "server.port=0")


def test_a_sound_bundle_passes_line_by_line(run: Run, tiny_bundle: Path) -> None:
    ran = run("doctor", tiny_bundle, *FREE)
    assert (ran.code, ran.err) == (0, "")
    *lines, last = ran.out.splitlines()
    assert all(line[:6] in ("ok    ", "warn  ", "      ") for line in lines)
    assert last.endswith("0 failed")


def test_a_broken_bundle_fails_with_what_to_do(run: Run, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path)
    (bundle / "tokenizer.json").unlink()
    ran = run("doctor", bundle, "--json", *FREE)
    (row,) = ran.rows
    (failed,) = [check for check in row["checks"] if check["verdict"] == "fail"]
    assert (ran.code, row["ok"], row["counts"]["fail"]) == (9, False, 1)
    assert failed["code"] == "IR-1500"
    assert failed["hint"]


def test_faulty_settings_are_told_and_the_rest_is_looked_at(run: Run, tmp_path: Path) -> None:
    ran = run("doctor", "--json", "--set", "server.prot=1", "--config", tmp_path / "none.toml")
    (row,) = ran.rows
    assert ran.code == 9
    assert next(c["name"] for c in row["checks"] if c["verdict"] == "fail") == "settings"
    assert len(row["checks"]) > 5

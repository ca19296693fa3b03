"""The audit log: a line a decision, no word of a text, what goes wrong is counted."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.errors import FileUnusable, Overloaded, SafetyKeyMissing
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Answer, Finding, Prediction, Verdict
from instructrec_deploy.safety.keys import SafetyKeys
from instructrec_deploy.server.metrics import Metrics
from instructrec_deploy.server.safety import desk as desk_module
from instructrec_deploy.server.safety.audit import AuditLog, text_hash
from instructrec_deploy.server.safety.desk import SafetyDesk, open_safety_desk
from instructrec_deploy.server.safety.settings import SafetySettings

KEYS = SafetyKeys.of(b"k" * 32)
NOW = datetime(2026, 6, 1, 12, 0, 0, 5000, tzinfo=UTC)
REQUEST = Request(
    text="zebra-canary 打13812345678", text2="第二 canary-two", tenant="shop", id="a-1"
)
FOUND = Verdict("mask", (Finding("PHONE", "cn_mobile", "mask", 14, 25),), "v1", "input")
SECOND = Verdict(
    "flag",
    (Finding("threat", "r", "flag", 0, 2, 0.5, dry_run_action="block", review=True),),
    "v1",
    "text2",
    "block",
)
CLEAN = Verdict(policy_version="v1", direction="output")
PREDICTION = Prediction(
    (Answer("intent", "a", 1.0, ()),), verdicts=(FOUND, SECOND, CLEAN), model="m", model_version="1"
)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def done(result: Prediction | Exception) -> Future[Prediction]:
    future: Future[Prediction] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_each_decision_that_found_something_is_a_line_without_the_text(tmp_path: Path) -> None:
    file = tmp_path / "new" / "audit.jsonl"
    log = AuditLog(file, KEYS, now=lambda: NOW)
    assert log.write(REQUEST, PREDICTION) == 2
    log.close()
    first, second = rows(file)
    assert first == {
        "time": "2026-06-01T12:00:00.005+00:00",
        "caller": "shop",
        "tasks": ["intent"],
        "model": "m",
        "model_version": "1",
        "direction": "input",
        "action": "mask",
        "dry_run_action": "",
        "policy_version": "v1",
        "text_hash": text_hash(REQUEST.text, KEYS.auditing),
        "n_chars": len(REQUEST.text),
        "findings": [FOUND.findings[0].to_dict()],
    }
    assert (second["dry_run_action"], second["findings"][0]["review"]) == ("block", True)
    assert second["text_hash"] == text_hash(REQUEST.text2, KEYS.auditing)
    written = file.read_text()
    assert not any(word in written for word in ("zebra", "13812345678", "第二", "canary", "a-1"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_hash_needs_the_key() -> None:
    other = SafetyKeys.of(b"o" * 32)
    assert text_hash("a", KEYS.auditing) == text_hash("a", KEYS.auditing)
    assert text_hash("a", KEYS.auditing) != text_hash("a", other.auditing)
    assert len(text_hash("\ud800", KEYS.auditing)) == 64


def test_a_log_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file, KEYS)
    log.write(REQUEST, PREDICTION)
    file.rename(tmp_path / "old")
    log.write(REQUEST, PREDICTION)
    log.write(REQUEST, PREDICTION)
    assert (len(rows(tmp_path / "old")), len(rows(file))) == (2, 4)


def test_a_line_that_was_cut_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file, KEYS)
    write = os.write
    monkeypatch.setattr(os, "write", lambda number, data: write(number, data[:10]))
    with pytest.raises(OSError, match="space"):
        log.write(REQUEST, PREDICTION)
    monkeypatch.setattr(os, "write", write)
    log.write(REQUEST, PREDICTION)
    assert [json.loads(line)["caller"] for line in file.read_text().splitlines()[1:]] == [
        "shop"
    ] * 2


def test_no_key_or_no_place_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSTRUCTREC_SAFETY_KEY", raising=False)
    monkeypatch.delenv("INSTRUCTREC_SAFETY_KEY_FILE", raising=False)
    settings = SafetySettings(audit=str(tmp_path / "a"))
    with pytest.raises(SafetyKeyMissing):
        open_safety_desk(settings, Metrics())
    with pytest.raises(FileUnusable):
        AuditLog(tmp_path, KEYS)
    assert not open_safety_desk(SafetySettings(), Metrics()).is_on


Count = Callable[[str], float | None]


def counter(metrics: Metrics) -> Count:
    name = "instructrec_safety_audit_total"
    return lambda outcome: metrics.registry.get_sample_value(name, {"outcome": outcome})


def test_the_desk_notes_answers_with_findings_alone(tmp_path: Path) -> None:
    file, metrics = tmp_path / "audit.jsonl", Metrics()
    desk = SafetyDesk(metrics, audit=AuditLog(file, KEYS))
    desk.note(REQUEST, done(PREDICTION))
    desk.note(REQUEST, done(Prediction((), verdicts=(CLEAN,))))
    desk.note(REQUEST, done(Overloaded("full")))
    cancelled: Future[Prediction] = Future()
    cancelled.cancel()
    desk.note(REQUEST, cancelled)
    desk.close()
    assert len(rows(file)) == 2
    assert counter(metrics)("written") == 2.0


def test_what_cannot_be_written_is_counted_and_told_without_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    desk = SafetyDesk(metrics, audit=AuditLog(tmp_path / "audit.jsonl", KEYS))
    monkeypatch.setattr(os, "write", lambda number, data: 0)
    desk.note(REQUEST, done(PREDICTION))
    desk.close()
    assert counter(metrics)("failed") == 1.0
    assert "audit line not written" in caplog.text
    assert "canary" not in caplog.text


def test_a_disk_that_lags_behind_drops_lines_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "MAX_WAITING", 0)
    metrics = Metrics()
    desk = SafetyDesk(metrics, audit=AuditLog(tmp_path / "audit.jsonl", KEYS))
    desk.note(REQUEST, done(PREDICTION))
    desk.close()
    assert counter(metrics)("dropped") == 1.0

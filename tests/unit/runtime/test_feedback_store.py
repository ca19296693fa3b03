"""The store: what is acknowledged stays, whatever happens; once, and within bounds."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import (
    FeedbackFull,
    FeedbackInvalid,
    FeedbackUnusable,
    FileMissing,
    Overloaded,
)
from instructrec_deploy.core.feedback import Feedback, SpanMark, Target
from instructrec_deploy.runtime import feedback_store, sqlite_file
from instructrec_deploy.runtime.feedback_store import FeedbackSettings, FeedbackStore

WRITER = """
import sys
from instructrec_deploy.core.feedback import Feedback, Target
from instructrec_deploy.runtime.feedback_store import FeedbackStore
store = FeedbackStore.open(sys.argv[1], create=True)
name, n, stops_at = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def stop_before_commit(statement):
    if statement == "COMMIT":
        print("in the middle", flush=True)
        sys.stdin.read()
for i in range(n):
    if i == stops_at:
        store._file._connection.set_trace_callback(stop_before_commit)
    feedback = Feedback.of(f"{name} 第{i}条", Target(("refund",)), task="intent")
    print(store.add(feedback).id, flush=True)
"""


def feedback(text: str, label: str = "refund", **more: str) -> Feedback:
    return Feedback.of(text, Target((label,)), task="intent", **more)


def writer(file: Path, name: str, n: int, stops_at: int = -1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), name, str(n), str(stops_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


def test_what_was_added_is_read_by_the_next_who_opens_it(file: Path) -> None:
    texts = ["I lost my card", "我的卡丢了", "ＡＰＰ 打不开 😡", "nul \x00 inside"]
    with FeedbackStore.open(file, create=True) as store:
        receipts = [store.add(feedback(text)) for text in texts]
    assert {receipt.outcome for receipt in receipts} == {"accepted"}
    with FeedbackStore.open(file) as store:
        rows = list(store.rows())
    assert [row.feedback.text for row in rows] == texts
    assert [row.feedback.id for row in rows] == [receipt.id for receipt in receipts]


def test_the_same_answer_is_kept_once_and_another_replaces_it(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store:
        first = store.add(feedback("Where is my money?", "refund"))
        again = store.add(feedback("where is  my MONEY?", "refund"))
        other = store.add(feedback("Where is my money?", "top up"))
        assert (again.outcome, again.id) == ("duplicate", first.id)
        assert other.outcome == "replaced"
        (now,) = store.rows()
        assert now.feedback.right == Target(("top up",))
        history = [(row.feedback.id, row.replaced_by) for row in store.rows(with_history=True)]
        assert history == [(first.id, other.id), (other.id, "")]


def test_a_mind_changed_twice_leaves_the_last_answer(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store:
        outcomes = [store.add(feedback("钱呢", label)).outcome for label in ("a", "b", "a")]
        assert outcomes == ["accepted", "replaced", "replaced"]
        (now,) = store.rows()
        assert now.feedback.right.labels == ("a",)
        assert len(list(store.rows(with_history=True))) == 3


def test_spans_in_another_order_are_the_same_answer(file: Path) -> None:
    spans = (SpanMark(0, 2, "person"), SpanMark(3, 5, "place"))
    with FeedbackStore.open(file, create=True) as store:
        for order in (spans, spans[::-1]):
            outcome = store.add(Feedback.of("李雷在北京", Target(spans=order), task="ner")).outcome
        assert outcome == "duplicate"
        nothing = Feedback.of("李雷在北京", Target(spans=()), task="ner")
        assert store.add(nothing).outcome == "replaced"


def test_rows_come_by_task_and_page_by_page(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "PAGE_ROWS", 3)
    with FeedbackStore.open(file, create=True) as store:
        for n in range(7):
            store.add(Feedback.of(f"t{n}", Target(("a",)), task="even" if n % 2 == 0 else "odd"))
        assert [row.feedback.text for row in store.rows()] == [f"t{n}" for n in range(7)]
        assert [row.feedback.text for row in store.rows(task="odd")] == ["t1", "t3", "t5"]


def test_a_full_store_refuses_and_says_what_to_do(file: Path) -> None:
    with FeedbackStore.open(file, FeedbackSettings(max_rows=2), create=True) as store:
        store.add(feedback("one"))
        store.add(feedback("two"))
        with pytest.raises(FeedbackFull) as caught:
            store.add(feedback("three"))
        assert "feedback.max_rows" in caught.value.hint
        assert store.add(feedback("one")).outcome == "duplicate"  # costs no room


def test_the_file_never_grows_past_its_limit_of_bytes(file: Path) -> None:
    settings = FeedbackSettings(max_bytes=100_000)
    n_kept = 0
    with FeedbackStore.open(file, settings, create=True) as store:
        for n in range(1_000):
            try:
                store.add(feedback(f"{n} " + "长文本 " * 200))
            except FeedbackFull:
                break
            n_kept += 1
        assert 10 < n_kept < 1_000
        assert 0 < store.size_bytes <= 100_000
        assert len(list(store.rows())) == n_kept
    assert file.stat().st_size <= 100_000


def test_an_id_cannot_be_taken_twice(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store:
        store.add(feedback("one", id="mine"))
        with pytest.raises(FeedbackInvalid):
            store.add(feedback("two", id="mine"))
        assert store.add(feedback("two")).outcome == "accepted"


def test_only_its_owner_may_read_the_file(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store:
        store.add(feedback("private"))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in file.parent.glob("feedback.db*")}
    assert modes == {0o600}


def test_threads_share_a_store(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: store.add(feedback(f"text {n % 20}")), range(60)))
        assert len(list(store.rows())) == 20
    assert [r.outcome for r in receipts].count("accepted") == 20


def test_processes_share_a_file_that_none_of_them_found(file: Path) -> None:
    writers = [writer(file, name, 25) for name in ("a", "b", "c")]
    printed = [process.communicate()[0].split() for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    with FeedbackStore.open(file) as store:
        kept = {row.feedback.id for row in store.rows()}
    assert kept == {id for ids in printed for id in ids}
    assert len(kept) == 75


def test_a_process_killed_in_the_middle_of_a_write_loses_nothing_acknowledged(file: Path) -> None:
    process = writer(file, "killed", 100, stops_at=20)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(20)]
    assert process.stdout.readline().strip() == "in the middle"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with FeedbackStore.open(file) as store:
        assert [row.feedback.id for row in store.rows()] == acknowledged
        assert store.add(feedback("after it")).outcome == "accepted"
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_process_killed_at_any_moment_loses_nothing_acknowledged(file: Path) -> None:
    process = writer(file, "killed", 100_000)
    assert process.stdout is not None
    for _ in range(30):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split("\n")[:-1]  # a line cut off was not heard
    with FeedbackStore.open(file) as store:
        kept = [row.feedback.id for row in store.rows()]
    # at most the one write it could not tell about any more
    assert 30 + len(rest) <= len(kept) <= 30 + len(rest) + 1
    assert kept[30 : 30 + len(rest)] == rest


def test_every_write_is_synced_before_it_is_acknowledged(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store:
        settings = [
            store._file._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
    assert settings == ["wal", 2]  # 2: FULL


def test_a_write_waits_for_another_process_but_not_for_ever(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_store, "BUSY_TIMEOUT_S", 0.05)
    with FeedbackStore.open(file, create=True) as store:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Overloaded):
            store.add(feedback("now"))
        other.execute("COMMIT")
        other.close()
        assert store.add(feedback("now")).outcome == "accepted"


def test_a_file_that_is_missing_is_not_made_by_looking(file: Path) -> None:
    with pytest.raises(FileMissing):
        FeedbackStore.open(file)
    assert not file.exists()


@pytest.mark.parametrize("create", [True, False])
def test_another_kind_of_file_is_refused_and_left_alone(file: Path, create: bool) -> None:
    file.write_text("precious notes, and not a database at all\n" * 40)
    with pytest.raises(FeedbackUnusable):
        FeedbackStore.open(file, create=create)
    assert "precious" in file.read_text()
    other = file.with_name("other.db")
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(FeedbackUnusable, match="no feedback store"):
        FeedbackStore.open(other, create=create)


def test_a_store_of_a_later_version_is_refused(file: Path) -> None:
    FeedbackStore.open(file, create=True).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FeedbackUnusable, match="version"):
        FeedbackStore.open(file)


def test_a_damaged_row_is_an_error_without_its_text(file: Path) -> None:
    with FeedbackStore.open(file, create=True) as store:
        store.add(feedback("secret words"))
        store._file._connection.execute("UPDATE feedback SET content = substr(content, 1, 60)")
        with pytest.raises(FeedbackUnusable) as caught:
            list(store.rows())
    assert "secret" not in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FeedbackUnusable):
        FeedbackStore.open(tmp_path / "feedback.db", create=True)


def test_a_place_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FeedbackUnusable):
        FeedbackStore.open(tmp_path / "file" / "feedback.db", create=True)

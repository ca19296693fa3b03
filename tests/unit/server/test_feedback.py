"""The desk, and the call on a real gRPC server: counted, off without a store, no text in logs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import (
    BundleError,
    FeedbackInvalid,
    FeedbackOff,
    FeedbackRefused,
    LabelUnknown,
    Overloaded,
    TextEmpty,
)
from instructrec_deploy.core.feedback import Feedback, Receipt, Target
from instructrec_deploy.core.manifest import TaskBook, parse_toml
from instructrec_deploy.runtime.feedback_intake import FeedbackIntake
from instructrec_deploy.runtime.feedback_store import FeedbackSettings, FeedbackStore
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.server import feedback as feedback_module
from instructrec_deploy.server.feedback import FeedbackDesk, open_desk
from tests.unit.server.test_service import Setting, play

TASKS = 'default_task = "意图"\n[tasks."意图"]\nlabels = ["退款", "余额"]\n'
BOOK = parse_toml(TaskBook, TASKS, where="tasks.toml", error=BundleError)
ONE = Feedback.of("钱呢？", Target(("退款",)))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[FeedbackDesk]:
    settings = FeedbackSettings(file=str(tmp_path / "feedback.db"), max_rows=2)
    opened = open_desk(settings, book=BOOK, guard=Guard())
    yield opened
    opened.close()


def test_a_desk_without_a_store_says_how_to_get_one() -> None:
    desk = open_desk(FeedbackSettings(), book=BOOK, guard=None)
    with pytest.raises(FeedbackOff) as caught:
        desk.submit(ONE)
    assert "--feedback" in caught.value.hint
    desk.close()


def test_what_was_accepted_is_kept_when_the_desk_closes(tmp_path: Path) -> None:
    file = tmp_path / "feedback.db"
    desk = open_desk(FeedbackSettings(file=str(file)), book=BOOK, guard=Guard())
    futures = [desk.submit(Feedback.of(f"第{n}条", Target(("退款",)))) for n in range(20)]
    desk.close()
    assert {future.result(0).outcome for future in futures} == {"accepted"}
    with FeedbackStore.open(file) as store:
        assert len(list(store.rows())) == 20


def test_corrections_do_not_pile_up_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_module, "MAX_WAITING", 3)
    gate = threading.Event()

    class Slow(FeedbackIntake):
        def __init__(self) -> None:
            """Without a store."""

        def take(self, feedback: Feedback) -> Receipt:
            gate.wait(10)
            return Receipt(feedback.id, "accepted")

        def close(self) -> None:
            """Nothing is open."""

    desk = FeedbackDesk(Slow())
    futures = [desk.submit(ONE) for _ in range(3)]
    with pytest.raises(Overloaded):
        desk.submit(ONE)
    gate.set()
    assert [future.result(10).outcome for future in futures] == ["accepted"] * 3
    desk.submit(ONE).result(10)
    desk.close()


def outcomes(setting: Setting) -> dict[str, float]:
    value = setting.metrics.registry.get_sample_value
    names = ("accepted", "duplicate", "refused")
    return {n: value("instructrec_feedback_total", {"outcome": n}) or 0.0 for n in names}


def test_corrections_are_kept_and_counted(desk: FeedbackDesk) -> None:
    async def scene(setting: Setting) -> None:
        setting.model.desk = desk
        client = setting.client
        first = await client.feedback("钱呢？电话13812345678", "退款")
        assert (first.outcome, first.text) == ("accepted", "钱呢？电话[PHONE]")
        again = await client.feedback("钱呢？电话13987654321", "退款")
        assert (again.outcome, again.id) == ("duplicate", first.id)
        assert (await client.feedback("钱呢？电话[PHONE]", "余额")).outcome == "replaced"
        with pytest.raises(Overloaded):
            await client.feedback("a third row", "余额")
        for words, error in [
            (("x", "no label of it"), LabelUnknown),
            (("I will kill you", "余额"), FeedbackRefused),
        ]:
            with pytest.raises(error):
                await client.feedback(*words)
        assert outcomes(setting) == {"accepted": 2, "duplicate": 1, "refused": 3}

    play(scene)


def test_a_ready_correction_is_sent_unchecked_and_the_server_refuses(desk: FeedbackDesk) -> None:
    async def scene(setting: Setting) -> None:
        setting.model.desk = desk
        with pytest.raises(TextEmpty):
            await setting.client.feedback(Feedback(" ", Target(("退款",))))
        with pytest.raises(FeedbackInvalid):
            await setting.client.feedback(Feedback("x", Target()))

    play(scene)


def test_a_server_without_a_store_refuses_with_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scene(setting: Setting) -> None:
        with pytest.raises(FeedbackOff) as caught:
            await setting.client.feedback("canary-7f3a", "退款")
        assert "--feedback" in caught.value.hint

    play(scene)
    assert "canary" not in caplog.text

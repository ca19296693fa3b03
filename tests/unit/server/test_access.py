"""Keys, roles and tasks: who is let in, and what a caller may ask."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from instructrec_deploy.core.errors import ConfigError, Denied, FileMissing, Unauthenticated
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.server.access.callers import ANYONE, STRANGER, Caller, Quota
from instructrec_deploy.server.access.gate import Gate
from instructrec_deploy.server.access.keys import (
    KeyEntry,
    find_key,
    new_key,
    read_keys,
    write_keys,
)
from instructrec_deploy.server.access.settings import AccessSettings
from instructrec_deploy.server.settings import DoorSettings

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def keys_of(**more: object) -> tuple[str, dict[str, KeyEntry]]:
    id_, key, kept = new_key()
    return key, {id_: KeyEntry.model_validate({"name": "shop", "hash": kept, **more})}


def bearer(key: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("trace-bin", b"\x00"), ("authorization", f"Bearer {key}")]


def test_a_key_opens_its_entry_and_nothing_else_does() -> None:
    key, keys = keys_of()
    assert find_key(keys, key, NOW)[1].name == "shop"
    for wrong in (
        "",
        "ir_",
        key[:-1],
        key + "x",
        "x" + key,
        key.upper(),
        new_key()[1],
        "ir_\ud800",
    ):
        with pytest.raises(Unauthenticated, match="not valid"):
            find_key(keys, wrong, NOW)


def test_a_key_ends_when_it_expires() -> None:
    key, keys = keys_of(expires=NOW)
    find_key(keys, key, NOW - timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        find_key(keys, key, NOW)


def test_the_file_holds_hashes_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    more = {"tokens_per_s": 12.5, "burst_tokens": 100, "share": 2.0}
    key, keys = keys_of(name='a "b" \\ 客服', tasks=("意图",), expires=NOW, created=NOW, **more)
    file = tmp_path / "new" / "keys.toml"
    write_keys(file, keys)
    assert read_keys(file) == keys
    assert key.split("_", 2)[2] not in file.read_text("utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    ["keys = 1", "[keys.a]\nname = 'x'", "[keys", '[keys.a]\nname = "x"\nhash = "md5:00"'],
)
def test_a_wrong_file_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"keys\.toml"):
        read_keys(file)
    with pytest.raises(FileMissing):
        read_keys(tmp_path / "none.toml")


def test_a_gate_wants_a_key_in_either_header(tmp_path: Path) -> None:
    key, keys = keys_of()
    write_keys(tmp_path / "keys.toml", keys)
    gate = Gate(AccessSettings(keys=str(tmp_path / "keys.toml")))
    assert gate.admit(bearer(key), {}, "Predict").name == "shop"
    assert gate.admit([("x-api-key", key)], {}, "GetModelStatus").id in keys
    for none in ([], [("authorization", f"Basic {key}")], [("x-api-key", b"1")]):
        with pytest.raises(Unauthenticated, match="carries no API key"):
            gate.admit(none, {}, "Predict")  # type: ignore[arg-type]


def test_roles_decide_on_methods(tmp_path: Path) -> None:
    reader = Caller("1", "a", ("predict",))
    reader.check_method("PredictBatch")
    reader.check_method("GetModelStatus")
    with pytest.raises(Denied, match="role feedback"):
        reader.check_method("Feedback")
    Caller("2", "b", ("admin",)).check_method("Feedback")


def test_a_key_for_some_tasks_opens_no_others() -> None:
    caller = Caller("1", "a", ("predict",), ("intent",))
    caller.check_questions([Question(task="intent")])
    refused = (
        [],
        [Question()],
        [Question(task="other")],
        [Question(task="intent"), Question(prepared_id="k")],
        [Question(instruction=Instruction.of("Which?", ["a", "b"]))],
    )
    for questions in refused:
        with pytest.raises(Denied):
            caller.check_questions(questions)
    Caller("2", "b").check_questions([Question(prepared_id="k")])


def test_a_key_brings_its_quota(tmp_path: Path) -> None:
    own, keys = keys_of(tokens_per_s=0.0, share=4.0)
    usual, more = keys_of()
    write_keys(tmp_path / "keys.toml", {**keys, **more})
    gate = Gate(AccessSettings(keys=str(tmp_path / "keys.toml")))
    assert gate.admit(bearer(own), {}, "Predict").quota == Quota(0.0)
    assert gate.admit(bearer(own), {}, "Predict").share == 4.0
    assert gate.admit(bearer(usual), {}, "Predict").quota is None


def test_changed_keys_are_read_again_and_broken_ones_are_not(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    old, keys = keys_of()
    write_keys(file, keys)
    times: Iterator[float] = iter(range(1000))
    gate = Gate(AccessSettings(keys=str(file), reload_s=0.5), clock=lambda: next(times))
    gate.admit(bearer(old), {}, "Predict")
    new, more = keys_of(name="second")
    write_keys(file, {**keys, **more})
    assert gate.admit(bearer(new), {}, "Predict").name == "second"
    gate.admit(bearer(old), {}, "Predict")  # both, while callers change over
    file.write_text("[keys")
    gate.admit(bearer(old), {}, "Predict")
    write_keys(file, more)
    with pytest.raises(Unauthenticated):
        gate.admit(bearer(old), {}, "Predict")


def test_without_settings_anyone_is_let_in() -> None:
    gate = Gate(AccessSettings())
    assert not gate.knows_callers
    assert gate.admit([], {}, "Feedback").tasks is None


@pytest.mark.parametrize(
    "given", [{"tls_cert": "a"}, {"tls_key": "a"}, {"client_ca": "a"}, {"reload_s": 0}]
)
def test_halves_of_settings_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AccessSettings.model_validate(given)


def test_an_open_address_needs_both_encryption_and_known_callers() -> None:
    door = DoorSettings(host="0.0.0.0")
    tls = {"tls_cert": "c", "tls_key": "k"}
    door.check_exposure(AccessSettings(**tls, keys="keys.toml"))
    door.check_exposure(AccessSettings(**tls, client_ca="ca"))
    with pytest.raises(ConfigError, match=r"without authentication$"):
        door.check_exposure(AccessSettings(**tls))
    with pytest.raises(ConfigError, match=r"without TLS$"):
        door.check_exposure(AccessSettings(keys="keys.toml"))


def test_a_request_says_who_asks_only_where_the_server_knows() -> None:
    request = Request.of("a", (Question(task="intent"),))
    assert Caller("1", "shop").sign(request).tenant == "shop"
    assert Caller().sign(request) is request
    with pytest.raises(Denied):
        Caller("1", "shop", tasks=("other",)).sign(request)


def test_who_may_swap_models() -> None:
    for caller in (ANYONE, Caller(roles=("admin",))):
        caller.check_method("SwapModel")
    for caller in (STRANGER, Caller(roles=("predict", "feedback"))):
        with pytest.raises(Denied, match="admin"):
            caller.check_method("SwapModel")


def test_a_key_for_some_models_is_kept_with_them(tmp_path: Path) -> None:
    key, keys = keys_of(models=["客服", 'b"k'])
    write_keys(tmp_path / "keys", keys)
    _, entry = find_key(read_keys(tmp_path / "keys"), key, NOW)
    caller = Caller(models=entry.models)
    assert [caller.opens(name) for name in ("客服", 'b"k', "bank")] == [True, True, False]
    with pytest.raises(Denied, match="not for that model"):
        caller.check_model("bank")

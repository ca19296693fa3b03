"""`instructrec guard`: a line in, a verdict out; no text but the checked one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Ran, Run

CANARY = "zebra-canary"


def ask(run: Run, rows: list[object], *words: object) -> Ran:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return run("guard", *words, stdin="\n".join(lines).encode("utf-8"))


def test_each_line_has_its_verdict(run: Run) -> None:
    rows = [
        {"id": 1, "text": "我的手机是13812345678"},
        {"id": "b", "text": "The weather is fine."},
        {"text": "I will kill you"},
        {"id": "d", "text": "This is fucking slow", "direction": "output", "lang": "en"},
    ]
    done = ask(run, rows)
    first, second, third, fourth = done.rows
    assert done.code == 0
    assert (first["id"], first["action"], first["text"]) == (1, "mask", "我的手机是[PHONE]")
    assert first["spans"] == [{"type": "PHONE", "start": 5, "end": 16}]
    assert (second["action"], second["text"]) == ("allow", rows[1]["text"])  # type: ignore[index]
    assert (third["action"], third["text"], third["categories"]) == ("block", "", ["threat"])
    assert "id" not in third
    assert (fourth["action"], fourth["categories"], fourth["spans"]) == ("flag", ["profanity"], [])


def test_lines_that_cannot_be_read_do_not_stop_the_others(run: Run) -> None:
    bad = [f'{{"text": "{CANARY}', "[]", {"text": 3}, {"id": 4, "text": CANARY, "direction": "up"}]
    done = ask(run, [*bad, "", {"id": 5, "text": "ok"}])
    assert done.code == 2
    assert [("error" in row) for row in done.rows] == [True, True, True, True, False]
    assert done.rows[0]["error"]["code"] == "IR-1109"
    assert "4 lines" in done.err
    assert CANARY not in done.out + done.err


def test_a_policy_of_its_own_and_that_of_a_bundle(
    run: Run, tmp_path: Path, tiny_bundle: Path
) -> None:
    file = tmp_path / "safety.toml"
    file.write_text('version = "shop-1"\n[input.personal_data]\nEMAIL = "block"\n')
    (row,) = ask(run, [{"text": "mail bob@example.com"}], "--policy", file).rows
    assert (row["action"], row["text"], row["policy_version"]) == ("block", "", "shop-1")
    (row,) = ask(run, [{"text": "mail bob@example.com"}], "--policy", tiny_bundle).rows
    assert row["text"] == "mail [EMAIL]"
    file.write_text("[input.personal_data]\nEMIAL = 'block'\n")
    assert ask(run, [], "--policy", file).code == 2


def test_lines_of_a_task_and_a_caller_meet_their_policy(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "safety.toml"
    file.write_text('[tasks.a.input.content]\nthreat = "flag"\n[tenants.b.input]\ndry_run = true\n')
    text = "I will kill you"
    rows: list[object] = [
        {"text": text},
        {"text": text, "task": "a"},
        {"text": text, "tenant": "b"},
    ]
    first, second, third = ask(run, rows, "--policy", file).rows
    assert (first["action"], second["action"], third["action"]) == ("block", "flag", "flag")
    assert (third["text"], third["dry_run_action"]) == (text, "block")
    assert "dry_run_action" not in first


def test_encrypted_values_come_back(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "safety.toml"
    file.write_text('[input.operators]\ndefault = "encrypt"\n')
    monkeypatch.setenv("INSTRUCTREC_SAFETY_KEY", "k" * 32)
    text = "mail bob@example.com"
    (masked,) = ask(run, [{"text": text}], "--policy", file).rows
    assert "bob" not in masked["text"]
    (back,) = ask(run, [{"id": 1, "text": masked["text"]}], "--restore").rows
    assert back == {"id": 1, "text": text, "n_restored": 1, "n_left": 0}
    monkeypatch.delenv("INSTRUCTREC_SAFETY_KEY")
    assert ask(run, [], "--restore").code != 0


def test_rows_from_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n\n{"text": "b"}\n')
    assert [row["text"] for row in run("guard", file).rows] == ["a", "b"]
    assert run("guard", tmp_path / "none.jsonl").code == 3


def test_half_a_character_is_an_error_of_its_line_alone(run: Run) -> None:
    done = ask(run, ['{"id": 1, "text": "\\ud800"}', {"id": 2, "text": "ok"}])
    first, second = done.rows
    assert (done.code, first["error"]["code"], second["text"]) == (2, "IR-1103", "ok")


def test_a_stream_goes_on_masked_and_its_verdict_stands_on_standard_error(run: Run) -> None:
    text = "我的手机是13812345678，谢谢。\nBye! 😀"
    done = run("guard", "--stream", stdin=text.encode())
    assert (done.code, done.out) == (0, "我的手机是[PHONE]，谢谢。\nBye! 😀")
    verdict = json.loads(done.err)
    assert verdict["action"] == "mask"
    assert verdict["spans"] == [{"type": "PHONE", "start": 5, "end": 16}]
    blocked = run("guard", "--stream", "--direction", "input", stdin=b"So. I will kill you. Bye")
    assert (blocked.out, json.loads(blocked.err)["action"]) == ("So. ", "block")


@pytest.mark.parametrize("words", [("--direction", "up"), ("--restore",)])
def test_a_stream_refuses_what_does_not_go_with_it(run: Run, words: tuple[str, ...]) -> None:
    assert run("guard", "--stream", *words, stdin=b"x").code == 2


def test_a_stream_that_is_not_utf_8_names_no_text(run: Run) -> None:
    done = run("guard", "--stream", stdin=CANARY.encode() + b" \xff")
    assert done.code == 2
    assert "UTF-8" in done.err
    assert CANARY not in done.err


def test_a_bundle_scores_texts_where_the_policy_asks(
    run: Run, tmp_path: Path, tiny_bundle: Path
) -> None:
    file = tmp_path / "safety.toml"
    file.write_text('[input.heads.sentiment]\nlabel = "negative"\ncategory = "hate"\n')
    rows = [{"text": "negative negative"}, {"text": "negative negative", "direction": "output"}]
    one, two = ask(run, rows, "--policy", file, "--bundle", tiny_bundle).rows
    assert (one["action"], one["categories"], one["spans"]) == ("flag", ["hate"], [])
    assert two["action"] == "allow"
    alone = ask(run, rows[:1], "--policy", file)
    assert alone.rows[0]["action"] == "allow"
    assert "--bundle" in alone.err

"""`instructrec predict` in process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from instructrec_deploy.cli.predict import JsonWriter, read_lines, table_line
from instructrec_deploy.core.errors import TextEmpty, Unavailable
from instructrec_deploy.core.result import Answer, Finding, Prediction, Verdict
from instructrec_deploy.runtime.predictor import Predictor
from tests.unit.cli.conftest import Run


def test_texts_of_arguments_get_a_line_each(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "I lost my card", "余额查询")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["card", "余额"]


def test_json_is_one_object_a_line_and_nothing_else(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "I lost my card", "refund 😀", "--json", "--top-k", 2)
    assert [row["label"] for row in done.rows] == ["card lost", "refund"]
    assert all(len(row["scores"]) == 2 for row in done.rows)


def test_json_lines_keep_their_order_ids_and_faults(run: Run, tiny_bundle: Path) -> None:
    lines = [
        '{"text": "我的卡丢了", "id": "a"}',
        '{"text": "   ", "id": "b"}',
        "{broken",
        '{"text": "ＲＥＦＵＮＤ please", "id": "d", "task": "classification", "target": "x"}',
        '{"text": "love it", "id": "e", "task": "sentiment"}',
        '{"text": "great", "id": "f", "instruction": "good?", "candidates": ["good", "bad"]}',
        '{"text": "great", "id": "g", "candidates": "good"}',
    ]
    done = run("predict", tiny_bundle, stdin="\n".join(lines).encode())
    rows = done.rows
    assert [row["id"] for row in rows] == ["a", "b", "", "d", "e", "f", "g"]
    codes = [row.get("error", {}).get("code") for row in rows]
    assert codes == [None, "IR-1101", "IR-1109", None, None, None, "IR-1109"]
    assert set(rows[4]["scores"]) == {"positive", "negative"}
    assert set(rows[5]["scores"]) == {"good", "bad"}
    assert done.code == 2


@pytest.mark.parametrize("word", ["pii", "recommendation", "relation"])
def test_the_kind_that_a_data_row_names_is_no_task(run: Run, tiny_bundle: Path, word: str) -> None:
    line = json.dumps({"text": "refund please", "task": word})
    assert run("predict", tiny_bundle, stdin=line.encode()).rows[0]["label"] == "refund"


def test_an_error_of_the_machine_decides_the_exit_code_before_one_of_a_text() -> None:
    writer = JsonWriter()
    for error in (TextEmpty("empty"), Unavailable("gone"), TextEmpty("empty")):
        writer.note(error)
    assert isinstance(writer.error, Unavailable)


def test_texts_that_fail_together_are_told_once(run: Run) -> None:
    done = run("predict", "-a", "127.0.0.1:1", "a", "b", "c")
    assert (done.code, done.err.count("IR-1302")) == (4, 1)


def test_lines_bring_a_second_text_marks_a_history_and_candidates(
    run: Run, tiny_bundle: Path
) -> None:
    lines: list[dict[str, object]] = [
        {"id": "alone", "text": "my card"},
        {"id": "pair", "text": "my card", "text2": "余额查询"},
        {
            "id": "marks",
            "text": "我的 card 😊",
            "head": {"start": 0, "end": 2, "text": "我的"},
            "tail": [3, 7],
        },
        {"id": "history", "history": [{"title": "card", "genres": "lost"}, "pin"]},
        {
            "id": "prior",
            "text": "my card",
            "instruction": "which?",
            "candidates": [{"item": "7", "title": "pin", "prior": 100}, "card"],
        },
    ]
    done = run("predict", tiny_bundle, "--top-k", 0, stdin=_lines(lines))
    found = {row["id"]: row["scores"] for row in done.rows}
    with Predictor(tiny_bundle) as predictor:
        wanted = {
            "alone": predictor.predict("my card", top_k=0),
            "pair": predictor.predict("my card", text2="余额查询", top_k=0),
            "marks": predictor.predict("我的 card 😊", head=(0, 2), tail=(3, 7), top_k=0),
            "history": predictor.predict("pin\ncard: lost", top_k=0),
        }
    for name, prediction in wanted.items():
        assert found[name] == pytest.approx(prediction.to_dict()["scores"], abs=1e-5)
    assert found["prior"]["7"] > 0.99


def test_a_line_that_brings_something_odd_has_an_error_of_its_own(
    run: Run, tiny_bundle: Path
) -> None:
    odd: list[tuple[dict[str, object], str]] = [
        ({"text": "secret", "head": [0, 2]}, "IR-1121"),
        ({"text": "secret", "head": [0, 2], "tail": [2, 9]}, "IR-1120"),
        ({"text": "secret", "head": "s", "tail": [2, 3]}, "IR-1120"),
        ({"text": "secret", "text2": 3}, "IR-1109"),
        ({"text": "secret", "history": ["a"]}, "IR-1109"),
        ({"text2": "secret"}, "IR-1109"),
        ({"history": []}, "IR-1123"),
        ({"text": "secret", "instruction": "w", "candidates": [3]}, "IR-1109"),
        (
            {"text": "secret", "instruction": "w", "candidates": [{"title": "a", "prior": 9e9}]},
            "IR-1122",
        ),
        ({"text": "fine", "text2": "\ud800"}, "IR-1103"),
    ]
    done = run("predict", tiny_bundle, stdin=_lines([row for row, _ in odd]))
    assert [row["error"]["code"] for row in done.rows] == [code for _, code in odd]
    assert "secret" not in done.out


def test_a_second_text_of_the_command_line_serves_every_text(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "my card", "pin", "--text2", "余额查询", "--json")
    lines = [{"text": t, "text2": "余额查询"} for t in ("my card", "pin")]
    own = run("predict", tiny_bundle, "--text2", "other", stdin=_lines(lines))
    assert [r["scores"] for r in done.rows] == [r["scores"] for r in own.rows]
    plain = run("predict", tiny_bundle, "my card", "--json").rows[0]["scores"]
    assert done.rows[0]["scores"] != plain


def _lines(rows: Sequence[Mapping[str, object]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_plain_lines_are_texts(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, stdin="I lost my card\r\n\n余额查询\n".encode())
    assert [row["label"] for row in done.rows] == ["card lost", "余额"]


def test_hostile_lines_get_errors_and_the_rest_answers(run: Run, tiny_bundle: Path) -> None:
    lines = [
        '{"text": "refund"}',
        '{"text": ' + "[" * 100_000,
        '{"text": "a", "id": "\\ud800"}',
        '{"text": "a", "id": "q", "candidates": ["\\udfff", "b"]}',
        '{"text": "a", "top_k": 99999999999999999999}',
        '{"text": "a", "top_k": 1.5}',
        json.dumps({"text": "字a" * 500_000}),
        '{"text": "\\u0000", "id": "nul"}',
        '{"text": "\\ud83d\\ude42 refund"}',  # a pair of surrogates is a character
    ]
    rows = run("predict", tiny_bundle, stdin="\n".join(lines).encode()).rows
    codes = [row.get("error", {}).get("code") for row in rows]
    faults = ["IR-1109", "IR-1103", "IR-1103", "IR-1100", "IR-1109", "IR-1102"]
    assert codes == [None, *faults, None, None]
    assert [row["id"] for row in rows] == ["", "", "", "q", "", "", "", "nul", ""]


def test_words_of_the_command_line_that_are_not_utf8_are_refused(
    run: Run, tiny_bundle: Path
) -> None:
    done = run("predict", tiny_bundle, "hi", "-i", "ab\udcff", "--candidates", "a,b")
    assert (done.code, "IR-1103" in done.err) == (2, True)


def test_a_dash_is_standard_input(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "-", stdin="I lost my card\n余额查询\n".encode())
    assert [row["label"] for row in done.rows] == ["card lost", "余额"]
    assert "-: standard input" in run("predict", "--help").out


def test_a_dash_beside_texts_is_refused(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "refund", "-", stdin=b"refund\n")
    assert (done.code, "IR-1600" in done.err, done.out) == (2, True, "")


def test_undecodable_input_is_refused_and_the_rest_answered(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, stdin=b"\xff\xfe\nrefund\n")
    assert done.rows[0]["error"]["code"] == "IR-1103"
    assert done.rows[1]["label"] == "refund"
    done = run("predict", tiny_bundle, "ok\udcff", "--json")
    assert done.rows[0]["error"]["code"] == "IR-1103"


@pytest.mark.parametrize("joined", ["good,bad", "good，bad", "good、bad, "])
def test_candidates_are_split_at_commas_of_both_widths(
    run: Run, tiny_bundle: Path, joined: str
) -> None:
    done = run("predict", tiny_bundle, "nice", "-i", "How is it?", "--candidates", joined, "--json")
    assert set(done.rows[0]["scores"]) == {"good", "bad"}


def test_a_candidate_with_a_comma_is_given_by_itself(run: Run, tiny_bundle: Path) -> None:
    words = ("-i", "what?", "-c", "good, really", "-c", "bad")
    done = run("predict", tiny_bundle, "nice", *words, "--json")
    assert set(done.rows[0]["scores"]) == {"good, really", "bad"}


def test_candidates_alone_take_the_wording_of_the_default_task(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "refund", "--candidates", "refund,pin", "--json")
    assert done.rows[0]["label"] == "refund"


def test_faults_of_the_command_line_have_hints(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    cases = [
        (("predict",), 2, "IR-1600"),
        (("predict", tmp_path / "nowhere", "text"), 3, "IR-1203"),
        (("predict", tmp_path, "text"), 6, "IR-1500"),
        (("predict", tiny_bundle, "text", "--task", "nope"), 3, "IR-1201"),
        (("predict", tiny_bundle, "text", "--candidates", "a,a"), 2, "IR-1105"),
        (("predict", tiny_bundle, "text", "--top-k", "-1"), 2, "IR-1100"),
        (("predict", tiny_bundle, "text", "--decision", "some"), 2, "IR-1130"),
        (("predict", tiny_bundle, "text", "--threshold", "7"), 2, "IR-1130"),
        (("predict", tiny_bundle, "text", "-i", "x", "--candidates", "a,A"), 2, "IR-1131"),
        (("predict", tiny_bundle, "text", "-i", "?!", "--candidates", "a,b"), 2, "IR-1132"),
        (("predict", tiny_bundle, "text", "--none-label", "REFUND"), 2, "IR-1133"),
        (("predict", tiny_bundle, "x" * 60_000), 2, "IR-1102"),
        (("predict", "-a", "127.0.0.1:1", "text"), 4, "IR-1302"),
        (("predict", "-a", "127.0.0.1:1", "text", "--timeout", "nan"), 2, "IR-1602"),
        (("predict", "-a", "127.0.0.1:1", "text", "--timeout", "inf"), 2, "IR-1602"),
        (("predict", "-a", "127.0.0.1:1", "text", "--timeout", "0"), 2, "IR-1602"),
    ]
    for words, code, name in cases:
        done = run(*words)
        assert (done.code, name in done.err, "hint:" in done.err) == (code, True, True), words


def test_personal_data_is_masked_and_a_threat_blocked(run: Run, tiny_bundle: Path) -> None:
    done = run("predict", tiny_bundle, "refund to jo@example.com", "I will kill you", "--json")
    masked, blocked = done.rows
    assert (masked["action"], masked["text"]) == ("mask", "refund to [EMAIL]")
    assert (blocked["action"], blocked["label"]) == ("block", "")


def test_a_masked_line_shows_what_the_model_read() -> None:
    finding = Finding("PHONE", "cn_mobile", "mask", 2, 13)
    answer = Answer("intent", "退款", 0.5, ())
    prediction = Prediction((answer,), text="打[PHONE]", verdicts=(Verdict("mask", (finding,)),))
    line = table_line("打13800138000", prediction)
    assert "13800138000" not in line
    assert "[mask: PHONE]" in line


def test_any_of_the_candidates_may_be_answered_and_none_of_them(
    run: Run, tiny_bundle: Path
) -> None:
    words = ("--decision", "any", "--threshold", "0.01", "--none-label", "其他")
    done = run("predict", tiny_bundle, "refund, or change pin?", *words, "--json")
    assert set(done.rows[0]["labels"]) == {"refund", "change pin"}
    assert done.rows[0]["answers"][0]["labels"] == done.rows[0]["labels"]
    line = run("predict", tiny_bundle, "refund, or change pin?", *words).out
    assert line.startswith("refund, change pin ")
    own = (
        "-i",
        "什么？",
        "--candidates",
        "refund，pin",
        "--threshold",
        "1",
        "--none-label",
        "其他",
    )
    assert run("predict", tiny_bundle, "app", *own).out.startswith("其他 ")
    assert run("predict", tiny_bundle, "app", *own[:-2]).out.startswith("(none of these) ")


def test_a_line_may_decide_for_itself(run: Run, tiny_bundle: Path) -> None:
    lines = [
        {"text": "refund 😀", "threshold": 1, "none_label": "其他"},
        {"text": "refund", "decision": "any", "threshold": 0.9},
        {"text": "refund"},
        {"text": "refund", "threshold": "high"},
        {"text": "refund", "decision": "some"},
        {"text": "refund", "threshold": 0.5, "prepared_id": "ab"},
    ]
    done = run("predict", tiny_bundle, stdin="\n".join(map(json.dumps, lines)).encode())
    rows = done.rows
    assert [row.get("labels") for row in rows[:3]] == [[], ["refund"], ["refund"]]
    assert (rows[0]["label"], rows[0]["abstained"]) == ("其他", True)
    codes = [row["error"]["code"] for row in rows[3:]]
    assert codes == ["IR-1109", "IR-1130", "IR-1130"]


def test_objects_are_read_as_such_wherever_they_stand() -> None:
    import io

    one = json.dumps({"text": "a", "id": "7"}).encode()
    first, second = read_lines(io.BytesIO(one + b"\nplain\n"))
    assert (first.text, second.error is not None) == ("a", True)
    plain, told, broken = read_lines(io.BytesIO(b"plain\n\n" + one + b"\n{broken\n"))
    assert (plain.text, told.text, told.id) == ("plain", "a", "7")
    assert broken.error is not None

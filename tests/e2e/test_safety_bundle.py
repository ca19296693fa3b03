"""A real server with a safety model beside the one that answers, and what its policy lets out."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy import Client
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.export.run import export_run
from tests.serving import ServerProcess, running_server, start_server
from tests.tiny import write_tiny_bundle

HEADS = """
version = "judge-1"
[input.heads.sentiment]
label = "negative"
category = "hate"
act = [{action = "flag", threshold = 0.5}, {action = "block", threshold = 0.9}]
"""
OUTPUT = """
version = "out-1"
[input.personal_data]
EMAIL = "allow"
[output.personal_data]
PHONE = "block"
"""
NUMBER = "13812345678"


def ask(server: ServerProcess, text: str, **question: object) -> Prediction:
    with Client(server.address, timeout_s=20) as client:
        return client.predict(text, **question)  # type: ignore[arg-type]


def test_heads_ask_the_safety_bundle_and_the_other_model_answers(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "served")
    judge = write_tiny_bundle(tmp_path / "judge", name="judge", safety=HEADS)
    safety = {"bundle": str(judge)}
    with running_server(bundle, tmp_path / "server", safety=safety) as server:
        bad = ask(server, "negative negative")
        (finding,) = bad.verdicts[0].findings
        assert (finding.category, finding.rule) == ("hate", "task sentiment")
        assert (finding.start, finding.end) == (-1, -1)
        assert bad.action == ("block" if finding.score >= 0.9 else "flag")
        assert bool(bad.label) == (bad.action == "flag")
        good = ask(server, "positive positive 打" + NUMBER)
        assert [f.category for f in good.verdicts[0].findings] == ["PHONE"]
        assert (good.action, good.text) == ("mask", "positive positive 打[PHONE]")
        assert (good.model, ask(server, "I lost my card").label) == ("tiny", "card lost")
        assert server.stop() == 0
        assert NUMBER not in server.stdout + server.stderr


def test_a_safety_bundle_that_the_policy_asks_nothing_ends_the_start(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "served")
    server = start_server(bundle, tmp_path / "server", safety={"bundle": str(bundle)})
    assert server.process.wait(30) == 6
    assert "no head" in server.stderr


def test_labels_go_out_by_the_output_policy(tiny_bundle: Path, tmp_path: Path) -> None:
    policy = tmp_path / "safety.toml"
    policy.write_text(OUTPUT)
    question = {"instruction": "What does the customer want?"}
    with running_server(tiny_bundle, tmp_path / "server", safety={"policy": str(policy)}) as server:
        mail = "card lost, ask bob@mail.example.com"
        masked = ask(server, "card lost", **question, candidates=[mail, "余额"])
        assert masked.label == "card lost, ask [EMAIL]"
        assert mail not in str(masked.answers)
        assert (masked.verdicts[-1].direction, masked.verdicts[-1].action) == ("output", "mask")
        assert masked.verdicts[-1].policy_version == "out-1"
        blocked = ask(server, "card lost", **question, candidates=[f"card {NUMBER}", "余额"])
        assert (blocked.label, blocked.answers[0].scores) == ("", ())
        assert blocked.action == "block"
        assert server.stop() == 0
        assert NUMBER not in server.stdout + server.stderr


@pytest.mark.slow
def test_the_words_of_spans_go_out_by_the_output_policy(tmp_path: Path) -> None:
    from instructrec_training.run import train
    from tests.tiny_base import write_tiny_base
    from tests.tiny_heads import recipe_of, write_rows

    root = write_rows(tmp_path / "data", "ner")
    rows = root / "rows.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8").replace("余额", "傻逼"), encoding="utf-8")
    recipe = recipe_of(write_tiny_base(tmp_path / "base"), "token-classification", "ner")
    train(recipe, tmp_path / "run", data_root=root, is_quiet=True)
    export_run(tmp_path / "run", tmp_path / "bundle", precision="fp32")
    policy = tmp_path / "safety.toml"
    policy.write_text('[output.content]\nprofanity = "mask"\n')
    with running_server(
        tmp_path / "bundle", tmp_path / "server", safety={"policy": str(policy)}
    ) as server:
        found = ask(server, "查询傻逼")
        assert server.stop() == 0
    (span,) = found.answers[0].spans
    assert (span.start, span.end, span.text) == (2, 4, "[PROFANITY]")
    assert [(v.direction, v.action) for v in found.verdicts] == [
        ("input", "flag"),
        ("output", "mask"),
    ]

"""The command line is a promise: verbs and options as they are in the help."""

from __future__ import annotations

import re
import sys

import pytest

from instructrec_deploy.cli.main import main

OPTIONS = {
    "": {"--version", "--help"},
    "demo": {"--lang", "--keep", "--fresh"},
    "models list": {"--to", "--json"},
    "models get": {"--to"},
    "prune": {"--out", "--ffn", "--heads", "--layers", "--rows", "--epochs", "--learning-rate"}
    | {"--max-minutes", "--data-root", "--resume", "--json", "--quiet", "--refit"},
    "export": {"--out", "--precision", "--force", "--trim-vocabulary", "--vocabulary-size"}
    | {"--plan", "--target", "--data-root", "--work"},
    "serve": {"--host", "--port", "--metrics-port", "--allow-insecure", "--config", "--set"}
    | {
        "--print-config",
        "--feedback",
        "--policy",
        "--audit",
        "--review",
        "--safety-bundle",
        "--target-p99-ms",
        "--watch",
    }
    | {"--repository", "--http", "--workers"},
    "swap": {"--rollback", "--address", "--timeout", "--json"},
    "keys new": {"--file", "--role", "--task", "--model", "--days", "--tokens-per-s"}
    | {"--burst-tokens", "--share"},
    "keys list": {"--file"},
    "keys revoke": {"--file"},
    "predict": {"--address", "--task", "--instruction", "--candidates", "--candidate"}
    | {"--prepared-id", "--top-k", "--timeout", "--json"}
    | {"--decision", "--threshold", "--none-label", "--model"},
    "evaluate": {"--data", "--split", "--address", "--unary", "--task", "--instruction"}
    | {"--labels-from", "--none-label", "--limit", "--seed", "--json"}
    | {"--safety", "--policy", "--rename", "--abuse-label"},
    "instructions list": {"--json"},
    "instructions search": {"--data", "--split", "--task", "--instruction", "--labels-from"}
    | {"--lang", "--family", "--wordings", "--budget", "--metric", "--limit", "--seed"}
    | {"--test-split", "--out", "--json"},
    "bench": {"--data", "--rounds", "--seconds", "--cold-starts", "--out", "--json", "--set"}
    | {"--compare", "--checkpoint", "--task", "--split", "--limit", "--threads", "--batches"}
    | {"--lengths", "--against", "--plot"},
    "tune-engine": {"--data", "--rounds", "--json"},
    "feedback add": {"--label", "--task", "--predicted", "--lang", "--source", "--address"}
    | {"--bundle", "--timeout", "--json"},
    "feedback list": {"--task", "--with-text", "--history", "--limit", "--json"},
    "feedback export": {"--task", "--out"},
    "feedback stats": {"--json"},
    "review list": {"--status", "--limit", "--json"},
    "review show": {"--json"},
    "review approve": {"--by", "--note"},
    "review correct": {"--categories", "--nothing", "--by", "--note"},
    "review export": {"--out"},
    "guard": {"--policy", "--bundle", "--restore", "--stream", "--direction"},
    "bundle show": {"--json"},
    "bundle verify": {"--json"},
    "health": {"--address", "--timeout", "--model", "--live"},
    "doctor": {"--config", "--set", "--json"},
    "train": {"--out", "--data-root", "--seed", "--resume", "--from-feedback", "--from-run"}
    | {"--replay-share", "--max-loss", "--json", "--quiet", "--probe-only"}
    | {"--search", "--trials", "--base"},
}


def help_of(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["instructrec", *verb.split(), "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", OPTIONS)
def test_every_promised_option_is_in_the_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(verb, monkeypatch, capsys)))
    assert OPTIONS[verb] - found == set()


def test_the_verbs_are_the_promised_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of("", monkeypatch, capsys)
    found = re.findall(r"^  ([a-z-]+)  ", text.split("Commands:")[1], flags=re.M)
    assert set(found) == {name.split()[0] for name in OPTIONS if name}

"""`instructrec serve`: from words to settings."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from instructrec_deploy.cli.serve import parse_settings
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.server import app
from instructrec_deploy.server.metrics import calm_collector
from tests.unit.cli.conftest import Run


def test_print_config_says_where_each_value_came_from(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[server]\nmax_text_chars = 999\n")
    monkeypatch.setenv("INSTRUCTREC_SERVER__METRICS_PORT", "9191")
    words = ("--config", config, "--port", 7, "--set", "server.log_format=text", "--print-config")
    out = run("serve", *words).out
    assert f"server.max_text_chars = 999  # {config}" in out
    assert "server.metrics_port = 9191  # INSTRUCTREC_SERVER__METRICS_PORT" in out
    assert "server.port = 7  # command line" in out
    assert 'server.log_format = "text"  # command line' in out
    assert 'server.host = "127.0.0.1"  # default' in out


@pytest.mark.parametrize(("word", "value"), [("3", "3"), ("auto", '"auto"'), ("0", "0")])
def test_workers_are_a_number_or_left_to_the_machine(run: Run, word: str, value: str) -> None:
    out = run("serve", "--workers", word, "--print-config").out
    assert f"server.workers = {value}  # command line" in out


@pytest.mark.parametrize("word", ["-1", "many", "1.5", "9999"])
def test_other_numbers_of_workers_are_refused(run: Run, word: str) -> None:
    done = run("serve", f"--workers={word}", "--print-config")
    assert (done.code, "server.workers" in done.err) == (2, True)


def test_an_unknown_setting_names_the_nearest(run: Run) -> None:
    done = run("serve", "--set", "server.prot=1", "--print-config")
    assert done.code == 2
    assert "'port'" in done.err


def test_an_open_address_needs_a_word(run: Run, tiny_bundle: Path) -> None:
    done = run("serve", tiny_bundle, "--host", "0.0.0.0", "--port", 0)
    assert done.code == 2
    assert "--allow-insecure" in done.err


def test_a_missing_bundle_is_said_before_anything_starts(run: Run, tmp_path: Path) -> None:
    assert run("serve").code == 2
    assert run("serve", tmp_path / "nowhere", "--port", 0).code == 3


def test_no_garbage_is_looked_for_until_the_server_is_ready(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    seen = []

    def run_server(*_: object) -> None:
        seen.append(gc.isenabled())
        calm_collector()
        seen.append(gc.isenabled())

    monkeypatch.setattr(app, "run_server", run_server)
    before = gc.get_threshold()
    assert run("serve", tiny_bundle, "--port", 0).code == 0
    threshold = gc.get_threshold()
    gc.set_threshold(*before)
    gc.unfreeze()
    assert (seen, gc.isenabled()) == ([False, True], True)
    assert threshold[0] > 10_000  # what some hundred texts under way are made of


@pytest.mark.parametrize("word", ["port=1", "server.port", ".port=1", "server.=1", "="])
def test_another_form_of_setting_is_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        parse_settings([word])

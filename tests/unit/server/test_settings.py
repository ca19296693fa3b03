"""Layers of settings, their faults, and what is open to the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.server.settings import DoorSettings, load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "instructrec.toml"
    path.write_text('[server]\nport = 1001\nmetrics_port = 1002\nlog_level = "debug"\n')
    return path


def test_stronger_layer_wins(config: Path) -> None:
    loaded = load_settings(
        config,
        environ={"INSTRUCTREC_SERVER__METRICS_PORT": "2002", "INSTRUCTREC_SERVER__PORT": "2001"},
        overrides={"server": {"port": 3001, "host": None}},
    )
    server = loaded.settings.server
    assert (server.port, server.metrics_port, server.log_level, server.host) == (
        3001,
        2002,
        "debug",
        "127.0.0.1",
    )


def test_every_setting_says_where_it_came_from(config: Path) -> None:
    loaded = load_settings(
        config,
        environ={"INSTRUCTREC_SERVER__METRICS_PORT": "2002"},
        overrides={"server": {"port": 3001}},
    )
    rows = {key: (value, origin) for key, value, origin in loaded.rows()}
    assert rows["server.port"] == (3001, "command line")
    assert rows["server.metrics_port"] == (2002, "INSTRUCTREC_SERVER__METRICS_PORT")
    assert rows["server.log_level"] == ("debug", str(config))
    assert rows["server.host"] == ("127.0.0.1", "default")


def test_all_faults_of_all_layers_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("stray = 1\n[server]\nprot = 1\nmax_text_chars = 0\n[sever]\nport = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ={"INSTRUCTREC_SERVER__PORT": "many"})
    message = caught.value.message
    for part in (
        "stray stands outside a section",
        "no setting server.prot, did you mean 'port'?",
        "no section 'sever', did you mean 'server'?",
        f"server.max_text_chars ({path})",
        "server.port (INSTRUCTREC_SERVER__PORT)",
    ):
        assert part in message


def test_named_file_must_exist_and_the_usual_one_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}).settings.server.port == 50051
    with pytest.raises(FileMissing):
        load_settings(tmp_path / "none.toml", environ={})


def test_file_in_the_working_folder_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    assert load_settings(environ={}).settings.server.port == 1001


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    DoorSettings(host=host).check_exposure()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_address_open_to_the_network_is_refused_unless_allowed(host: str) -> None:
    with pytest.raises(ConfigError, match="open to the network"):
        DoorSettings(host=host).check_exposure()
    DoorSettings(host=host, allow_insecure=True).check_exposure()


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")],
)
def test_ipv6_host_stands_in_brackets(host: str, address: str) -> None:
    assert DoorSettings(host=host).address(7) == address

"""Models of the hub: only safe files are asked for, and a hub out of reach is told."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from instructrec_deploy.core.errors import ConfigError, Unavailable
from instructrec_deploy.models.hub import PROXIES, check_reachable, fetch_from_hub, is_hub_id


def test_only_names_of_two_parts_that_are_no_folders_are_hub_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "here").mkdir(parents=True)
    assert is_hub_id("org/name-2.1_b")
    for name in ("org/here", "name", "a/b/c", "../name", "./name", "/org/name", "~/name", "org/"):
        assert not is_hub_id(name)


def test_no_pickle_and_no_code_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(options["local_dir"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch_from_hub("org/name", home=tmp_path) == tmp_path / "hub" / "org" / "name"
    assert asked["name"] == "org/name"
    endings = {Path(pattern).suffix for pattern in asked["allow_patterns"]}
    assert endings == {".json", ".txt", ".model", ".safetensors"}


def test_a_hub_out_of_reach_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="org/name cannot be fetched") as error:
        fetch_from_hub("org/name", home=tmp_path)
    assert "hf:FOLDER" in error.value.hint


def test_a_hub_without_an_address_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise socket.gaierror("no address")

    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConfigError, match="hub cannot be reached"):
        check_reachable("org/name")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "config.json")
    check_reachable("org/name")  # transformers has a copy of it


def test_a_proxy_may_know_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("it was asked for"))
    check_reachable("org/name")

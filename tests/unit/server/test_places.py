"""Which folders are served: order of releases, pins, and what counts as a change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.server.places import OneBundle, Repository, look_at


def put(folder: Path, created: str = "2026-01-01T00:00:00Z") -> None:
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({"created": created}))


def releases(repository: Repository) -> list[str]:
    return [place.release for place in repository.look()["bank"]]


def test_numbers_order_releases_and_other_names_go_by_their_age(tmp_path: Path) -> None:
    for name in ("10", "9", "v2.1"):
        put(tmp_path / "bank" / name)
    assert releases(Repository(tmp_path)) == ["v2.1", "9", "10"]
    put(tmp_path / "bank" / "abc", created="2025-01-01T00:00:00Z")
    put(tmp_path / "bank" / "0f3", created="2026-12-01T00:00:00Z")
    assert releases(Repository(tmp_path))[0] == "abc"
    assert releases(Repository(tmp_path))[-1] == "0f3"


def test_the_newest_are_chosen_or_those_that_are_pinned(tmp_path: Path) -> None:
    for number in range(1, 5):
        put(tmp_path / "bank" / str(number))
    for source, wanted in (
        (Repository(tmp_path), ["4"]),
        (Repository(tmp_path, latest=2), ["3", "4"]),
        (Repository(tmp_path, pins=["bank=1", "bank=3", "other=4"]), ["1", "3"]),
    ):
        assert [p.release for p in source.choose("bank", source.look()["bank"])] == wanted


def test_hidden_folders_and_those_without_a_bundle_are_no_releases(tmp_path: Path) -> None:
    put(tmp_path / "bank" / "1")
    put(tmp_path / "bank" / ".part")
    (tmp_path / "bank" / "2").mkdir()
    (tmp_path / "notes").mkdir()
    found = Repository(tmp_path).look()
    assert {name: [p.release for p in places] for name, places in found.items()} == {"bank": ["1"]}


def test_what_is_no_repository_or_no_pin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        Repository(tmp_path / "nowhere")
    for pin in ("bank", "=1", "bank="):
        with pytest.raises(ConfigError, match="MODEL=RELEASE"):
            Repository(tmp_path, pins=[pin])


def test_a_place_is_another_one_when_a_file_or_the_link_changes(tmp_path: Path) -> None:
    put(tmp_path / "one")
    put(tmp_path / "two")
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "one")
    source = OneBundle(link)
    (first,) = source.look()[""]
    assert (first.folder, look_at(link)) == (tmp_path / "one", first)
    (tmp_path / "one" / "graphs").mkdir()
    (tmp_path / "one" / "graphs" / "encoder.onnx").write_bytes(b"x")
    second = look_at(link)
    assert second != first
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert look_at(link).folder == tmp_path / "two"
    link.unlink()
    assert look_at(link).stamp == ()

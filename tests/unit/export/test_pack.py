"""Bundle folders: whole or not at all, and nobody's files are lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.export.pack import (
    check_target,
    content_version,
    staged_folder,
    write_label_vectors,
)
from tests.tiny import write_tiny_bundle


def test_a_new_and_an_empty_folder_may_be_written(tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    check_target(tmp_path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no bundle"):
        check_target(tmp_path)


def test_a_file_and_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(write_tiny_bundle(tmp_path / "bundle"))
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="not a folder"):
            check_target(tmp_path / name)


def test_a_bundle_with_a_file_of_its_own_beside_it_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    check_target(bundle)
    (bundle / "笔记.md").write_text("mine")
    with pytest.raises(ConfigError, match="笔记"):
        check_target(bundle)


def test_a_failed_stage_leaves_the_old_bundle_and_nothing_beside_it(tmp_path: Path) -> None:
    out = write_tiny_bundle(tmp_path / "bundle")
    before = open_bundle(out).manifest
    with pytest.raises(FileExistsError), staged_folder(out) as stage:  # noqa: PT012
        (stage / "graphs").mkdir()
        (stage / "graphs").mkdir()  # fails half way
    assert open_bundle(out).manifest == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_finished_stage_replaces_the_old_bundle_whole(tmp_path: Path) -> None:
    out = write_tiny_bundle(tmp_path / "bundle", has_fusion=True)
    with staged_folder(out) as stage:
        write_tiny_bundle(stage, has_fusion=False, name="newer")
    bundle = open_bundle(out)
    assert bundle.manifest.name == "newer"
    assert not (out / "graphs" / "fusion.onnx").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_files_that_appear_while_it_is_written_are_not_lost(tmp_path: Path) -> None:
    out = write_tiny_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError), staged_folder(out):
        (out / "notes.md").write_text("mine")
    assert (out / "notes.md").read_text() == "mine"


def test_the_version_follows_what_decides_the_answers(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    version = content_version(bundle)
    (bundle / "CARD.md").write_text("words")
    (bundle / "golden.jsonl").write_text("")
    assert content_version(bundle) == version
    with (bundle / "tasks.toml").open("a") as stream:
        stream.write("# other\n")
    assert content_version(bundle) != version
    assert len(version) == 12


def test_label_vectors_come_back_whatever_a_task_is_called(tmp_path: Path) -> None:
    vectors = {name: np.full((2, 3), i, np.float32) for i, name in enumerate(("file", "意图"))}
    write_label_vectors(tmp_path, vectors)
    first = (tmp_path / "labels.npz").read_bytes()
    write_label_vectors(tmp_path, dict(reversed(vectors.items())))
    assert (tmp_path / "labels.npz").read_bytes() == first
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as archive:
        assert {k: archive[k].tolist() for k in archive.files} == {
            k: v.tolist() for k, v in vectors.items()
        }

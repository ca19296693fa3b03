"""From a model's name to its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.models.presets import (
    MARKER_FILE,
    PRESETS,
    find_preset,
    is_complete,
    models_home,
    preset_of,
    resolve_model,
)


def fill(folder: Path, weights_bytes: int) -> Path:
    """A folder that looks like an unpacked preset."""
    folder.mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.truncate(weights_bytes)  # sparse: takes no room
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def test_a_complete_preset_is_used_without_fetching(tmp_path: Path) -> None:
    folder = fill(tmp_path / "minilm", PRESETS["minilm"].weights_bytes)
    assert resolve_model("minilm", home=tmp_path, allow_fetch=False) == folder


def test_a_preset_with_cut_off_weights_is_not_complete(tmp_path: Path) -> None:
    folder = fill(tmp_path / "minilm", PRESETS["minilm"].weights_bytes - 1)
    assert not is_complete(PRESETS["minilm"], folder)
    with pytest.raises(FileMissing) as caught:
        resolve_model("minilm", home=tmp_path, allow_fetch=False)
    assert "instructrec models get minilm" in caught.value.hint


def test_an_existing_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["bert-base-uncased", "hfl/chinese-roberta-wwm-ext"])
def test_other_names_are_hub_ids(name: str) -> None:
    assert resolve_model(name) == name


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(name: str) -> None:
    with pytest.raises(FileMissing):
        resolve_model(name)


def test_an_unpacked_folder_knows_its_preset(tmp_path: Path) -> None:
    (tmp_path / MARKER_FILE).write_text("e5-enzh\n")
    found = preset_of(tmp_path)
    assert found is not None
    assert found.text_prefix == "query: "
    assert preset_of(tmp_path / "else") is None


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        find_preset("minlm")
    assert "minilm" in caught.value.hint


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSTRUCTREC_MODELS", str(tmp_path))
    assert models_home() == tmp_path
    monkeypatch.delenv("INSTRUCTREC_MODELS")
    assert models_home().parts[-2:] == ("instructrec", "models")


@pytest.mark.parametrize(("name", "meant"), [("minlm", "minilm"), ("e5_enzh", "e5-enzh")])
def test_a_misspelt_preset_is_not_looked_for_on_the_hub(name: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model(name)
    assert f"did you mean {meant!r}?" in caught.value.hint

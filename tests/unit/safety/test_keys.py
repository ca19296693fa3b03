"""The secret behind hashes and encryption: where it comes from, and what is no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import FileMissing, FileUnusable, SafetyKeyMissing
from instructrec_deploy.safety.keys import SafetyKeys, load_keys

SECRET = "0123456789abcdef0123456789abcdef"


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET + "\n")
    wanted = SafetyKeys.of(SECRET.encode())
    assert load_keys(file, environ={}) == wanted
    assert load_keys(environ={"INSTRUCTREC_SAFETY_KEY_FILE": str(file)}) == wanted
    assert load_keys(environ={"INSTRUCTREC_SAFETY_KEY": SECRET}) == wanted
    assert load_keys(environ={}) is None


def test_the_named_file_stands_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(SECRET)
    found = load_keys(file, environ={"INSTRUCTREC_SAFETY_KEY": SECRET[::-1]})
    assert found == SafetyKeys.of(SECRET.encode())


def test_each_purpose_has_a_key_of_its_own_and_none_shows() -> None:
    keys = SafetyKeys.of(SECRET.encode())
    assert len({keys.hashing, keys.auditing, keys.encrypting[:32], keys.encrypting[32:]}) == 4
    assert repr(keys) == "SafetyKeys()"


def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(SafetyKeyMissing) as caught:
        load_keys(environ={"INSTRUCTREC_SAFETY_KEY": "hunter2"})
    assert "hunter2" not in caught.value.message
    assert "7 bytes" in caught.value.message
    with pytest.raises(FileMissing):
        load_keys(tmp_path / "none", environ={})
    with pytest.raises(FileUnusable):
        load_keys(tmp_path, environ={})
    long = tmp_path / "long"
    long.write_bytes(b"x" * 5000)
    with pytest.raises(FileUnusable, match="too long"):
        load_keys(long, environ={})

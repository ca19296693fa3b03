"""`instructrec keys`: made, listed, revoked; the key itself is shown once."""

from __future__ import annotations

from pathlib import Path

from instructrec_deploy.server.access.keys import read_keys
from tests.unit.cli.conftest import Run


def test_a_key_is_made_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = run("keys", "new", "shop", "--file", file, "--task", "intent", "--days", "1")
    key = made.out.strip()
    (id_,) = read_keys(file)
    assert key.startswith(f"ir_{id_}_")
    run("keys", "new", "night shift", "--file", file, "--role", "admin")
    listed = run("keys", "list", "--file", file).out
    assert "shop  predict  tasks intent  until" in listed
    assert "night shift  admin  all tasks  no end" in listed
    assert key not in listed + file.read_text("utf-8")
    assert run("keys", "revoke", id_, "--file", file).code == 0
    assert id_ not in read_keys(file)
    gone = run("keys", "revoke", id_, "--file", file)
    assert (gone.code, id_ in gone.err) == (2, True)


def test_a_wrong_role_is_named(run: Run, tmp_path: Path) -> None:
    done = run("keys", "new", "shop", "--file", tmp_path / "keys.toml", "--role", "king")
    assert (done.code, "roles" in done.err) == (2, True)
    assert not (tmp_path / "keys.toml").exists()

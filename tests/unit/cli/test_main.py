"""The border of the command line: errors, exit codes, verbs from elsewhere."""

from __future__ import annotations

import errno
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from instructrec_deploy import __version__
from instructrec_deploy.cli import main as main_module
from instructrec_deploy.cli import models as models_verb
from instructrec_deploy.core.errors import FileUnusable, Overloaded
from tests.unit.cli.conftest import Run


def raise_in_models_list(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(models_verb.json, "dumps", fail)


def test_an_error_of_ours_is_its_code_message_and_hint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_in_models_list(monkeypatch, Overloaded("the queue is full", hint="try again"))
    done = run("models", "list", "--json")
    assert done.code == 4
    assert done.err == "error IR-1300: the queue is full\nhint: try again\n"
    assert done.out == ""


def test_an_unexpected_error_is_an_id_and_a_private_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    raise_in_models_list(monkeypatch, ZeroDivisionError("my card number"))
    done = run("models", "list", "--json")
    assert done.code == 1
    assert "error IR-1900" in done.err
    assert "my card number" not in done.err
    (saved,) = tmp_path.iterdir()
    assert saved.name in done.err
    assert saved.stat().st_mode & 0o077 == 0
    assert "ZeroDivisionError" in saved.read_text()


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "b/out"), "b/out: perm", "who may"),
        (OSError(errno.EROFS, "Read-only file system", "b/out"), "b/out: read-only", "who may"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left", "make room"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "数据"), "数据: is a", "check the path"),
    ],
)
def test_what_the_system_says_about_a_file_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str, hint: str
) -> None:
    raise_in_models_list(monkeypatch, error)
    done = run("models", "list", "--json")
    first, second = done.err.splitlines()
    assert (done.code, done.out) == (FileUnusable.exit_code, "")
    assert first.startswith(f"error {FileUnusable.code}: {message}")
    assert second.startswith("hint: ")
    assert hint in second


def test_a_full_disk_is_told_whatever_library_met_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rusty = ValueError("Error while serializing: I/O error: No space left (os error 28)")
    hidden = RuntimeError("unexpected pos 704")
    hidden.__context__ = OSError(errno.ENOSPC, "No space left on device")
    for error in (rusty, hidden):
        raise_in_models_list(monkeypatch, error)
        done = run("models", "list", "--json")
        assert done.err.startswith(f"error {FileUnusable.code}: no space left on device\n")


def test_a_system_error_about_no_file_is_unexpected(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    raise_in_models_list(monkeypatch, OSError(errno.EBADF, "Bad file descriptor"))
    assert "IR-1900" in run("models", "list", "--json").err


def test_ctrl_c_is_quiet_and_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in_models_list(monkeypatch, KeyboardInterrupt())
    done = run("models", "list", "--json")
    assert (done.code, done.out, done.err) == (130, "", "")


def test_an_unknown_verb_or_option_ends_with_2(run: Run) -> None:
    assert run("explode").code == 2
    assert run("models", "list", "--nope").code == 2


def test_the_version_is_the_packages(run: Run) -> None:
    assert __version__ in run("--version").out


def test_a_verb_joins_by_entry_point(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "tests.unit.cli.test_main:hello"
    plugins = {"hello": EntryPoint("hello", target, main_module.PLUGIN_GROUP)}
    monkeypatch.setattr(main_module, "_plugins", lambda: plugins)
    assert run("hello", "世界").out == "hello 世界\n"
    assert "hello" in run("--help").out


def hello(name: str) -> None:
    """Greet."""
    print(f"hello {name}")


def test_a_verb_that_cannot_be_loaded_fails_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = {"broken": EntryPoint("broken", "no_such_package:verb", main_module.PLUGIN_GROUP)}
    monkeypatch.setattr(main_module, "_plugins", lambda: plugins)
    assert run("--help").code == 0
    done = run("broken")
    assert done.code == 7
    assert "IR-1700" in done.err

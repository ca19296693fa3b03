"""The `train` verb."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from instructrec_deploy.cli.main import main
from instructrec_training import run


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    monkeypatch.setattr(sys, "argv", ["instructrec", "train", "demo-en", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (130, "")
    assert "--resume goes on" in captured.err

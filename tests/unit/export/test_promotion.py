"""Which runs are exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import PromotionRefused
from instructrec_deploy.export.promotion import check_promoted
from instructrec_deploy.export.run import export_run
from tests.unit.cli.conftest import Run, run  # noqa: F401  the fixture
from tests.unit.export.conftest import write_tiny_run

REFUSED = '{"promoted": false, "reason": "task \'意图\' lost 3 points"}'


def test_a_run_without_a_decision_to_make_is_exported(tmp_path: Path) -> None:
    check_promoted(tmp_path)
    (tmp_path / "promotion.json").write_text('{"promoted": true}')
    check_promoted(tmp_path)


@pytest.mark.parametrize("content", [REFUSED, "{}", "[]", "", "no json", '{"promoted": "true"}'])
def test_anything_but_a_promotion_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "promotion.json").write_text(content, encoding="utf-8")
    with pytest.raises(PromotionRefused) as caught:
        check_promoted(tmp_path)
    assert "--force" in caught.value.hint


def test_force_exports_a_refused_run(tmp_path: Path, run: Run) -> None:  # noqa: F811
    folder = write_tiny_run(tmp_path / "run")
    (folder / "promotion.json").write_text(REFUSED, encoding="utf-8")
    with pytest.raises(PromotionRefused, match="lost 3 points"):
        export_run(folder, tmp_path / "bundle", precision="fp32")
    words = ("export", folder, "--out", tmp_path / "bundle", "--precision", "fp32")
    assert run(*words).code == PromotionRefused.exit_code
    assert not (tmp_path / "bundle").exists()
    assert run(*words, "--force").code == 0
    assert (tmp_path / "bundle/bundle.json").is_file()

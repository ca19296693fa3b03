"""A wrong command line gets a code, a message and a hint, as every other error."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.errors import UsageInvalid
from tests.unit.cli.conftest import Run


@pytest.mark.parametrize(
    ("words", "message", "meant"),
    [
        (["predic"], "instructrec: no such command 'predic'", "predict"),
        (["bundle", "sho"], "instructrec bundle: no such command 'sho'", "show"),
        (["evaluate", "--seeed", "1"], "instructrec evaluate: no such option: --seeed", "--seed"),
        (["预测"], "instructrec: no such command '预测'", ""),
        (["export"], "instructrec export: missing argument 'RUN'", ""),
        (["export", "run"], "instructrec export: missing option '--out' / '-o'", ""),
        (["predict", "--top-k"], "instructrec predict: option '--top-k' requires an argument", ""),
        (["export", "--foo"], "instructrec export: no such option: --foo", ""),
        (
            ["export", "run", "-o", "b", "--precision", "int9"],
            "instructrec export: invalid value for '--precision': 'int9' is not one of "
            "'fp32', 'fp16', 'int8', 'int8-weights', 'int4-weights'",
            "",
        ),
    ],
)
def test_a_wrong_command_line_is_told_in_our_form(
    run: Run, words: list[str], message: str, meant: str
) -> None:
    done = run(*words)
    first, second = done.err.splitlines()
    assert (done.code, done.out, first) == (2, "", f"error {UsageInvalid.code}: {message}")
    assert second.startswith(f"hint: did you mean {meant}?" if meant else "hint: `instructrec")
    assert "--help` says what there is" in second


def test_a_text_too_many_is_not_repeated(run: Run) -> None:
    done = run("evaluate", "bundle", "我的卡号 4111")
    assert (done.code, UsageInvalid.code in done.err) == (2, True)
    assert "4111" not in done.err


@pytest.mark.parametrize("words", [[], ["bundle"], ["models"]])
def test_no_verb_at_all_is_answered_with_the_help(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: instructrec")

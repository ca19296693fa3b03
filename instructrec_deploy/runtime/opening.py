"""Open, warm and check a bundle in a thread of its own, while the caller does something else.

Most of it leaves the interpreter to others (hashing, reading graphs, inference), so a server
imports its other half meanwhile.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.memory import return_freed_memory
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.golden import GoldenReport, check_golden
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.prepared import PreparedSettings
from instructrec_deploy.safety.guards import PolicyGuards


@dataclass(frozen=True, slots=True)
class Opening:
    """A bundle on its way."""

    folder: Path
    begun_s: float  # monotonic
    found: Future[tuple[Pipeline, GoldenReport]]  # warm, and what the golden pairs said


def begin_opening(
    folder: Path,
    *,
    engine: EngineSettings = EngineSettings(),
    prepared: PreparedSettings = PreparedSettings(),
    policy: str = "",
    safety_bundle: str = "",
    name: str = "",
) -> Opening:
    """Begin; what goes wrong is told by `found`. `name`: of the model in place of its own.

    `policy`: a file with a safety policy in place of the bundle's. `safety_bundle`: the folder of a
    bundle whose model the policy's heads ask.

    ConfigError, SafetyKeyMissing: the policy cannot be used.
    FileMissing, BundleError: it cannot be served. GoldenFailed: on this machine it does not answer
    as stated. MissingExtra: onnxruntime is not installed.
    """

    def work() -> tuple[Pipeline, GoldenReport]:
        bundle = open_bundle(folder)
        if name:
            renamed = bundle.manifest.model_copy(update={"name": name})
            bundle = replace(bundle, manifest=renamed)
        guard = PolicyGuards.open(Path(policy)) if policy else True
        judge = open_bundle(Path(safety_bundle)) if safety_bundle else None
        pipeline = Pipeline.open(
            bundle, engine=engine, prepared=prepared, guard=guard, safety_bundle=judge
        )
        pipeline.warm()
        if judge is not None and pipeline.judged_by is not None:
            check_golden(judge, pipeline.judged_by)
        report = check_golden(bundle, pipeline)
        pipeline.engine.shrink()
        return_freed_memory()
        return pipeline, report

    thread = ThreadPoolExecutor(1, thread_name_prefix="open")
    opening = Opening(folder, time.monotonic(), thread.submit(work))
    thread.shutdown(wait=False)
    return opening

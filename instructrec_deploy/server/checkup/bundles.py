"""The bundles to serve: files whole, room for them, and answers as they were at the export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from instructrec_deploy.core.bundle import Bundle, open_bundle
from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.golden import check_golden
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.tuning import explain_tuning
from instructrec_deploy.server.checkup.finding import Finding, ok, tried, warn
from instructrec_deploy.server.checkup.machine import memory_mb
from instructrec_deploy.server.places import Repository
from instructrec_deploy.server.settings import ServerSettings

MEMORY_FACTOR = 3  # of the files' size: graphs as read and as optimized, and what a batch takes


def check_bundle(folder: Path, engine: EngineSettings = EngineSettings()) -> Iterator[Finding]:
    """One bundle."""
    try:
        bundle = open_bundle(folder)
    except InstructRecError as error:
        yield Finding(f"bundle {folder}", "fail", error.message, error.hint, error.code)
        return
    manifest = bundle.manifest
    size_mb = sum(entry.size_bytes for entry in manifest.files.values()) / 1e6
    name = f"bundle {manifest.name} {manifest.version}"
    yield ok(name, f"{len(manifest.files)} files, {size_mb:.1f} MB, all as in the manifest")
    left_mb = memory_mb()
    if left_mb is not None and left_mb < MEMORY_FACTOR * size_mb:
        yield warn(
            name,
            f"about {MEMORY_FACTOR * size_mb:.0f} MB are wanted, {left_mb:.0f} MB are left",
            "free memory, or serve a smaller bundle (int8)",
        )
    if engine.runtime == "auto":
        yield tried(name, lambda: ok(name, "; ".join(explain_tuning(bundle))))
    yield tried(name, lambda: _golden(name, bundle, engine))


def check_repository(settings: ServerSettings) -> Iterator[Finding]:
    """Every bundle of a repository that would be served."""
    models = settings.models
    try:
        source = Repository(Path(models.repository), latest=models.latest, pins=models.pins)
    except InstructRecError as error:
        yield Finding("repository", "fail", error.message, error.hint, error.code)
        return
    found = source.look()
    if not found:
        hint = "put bundles into MODEL/RELEASE/ of the folder"
        yield Finding("repository", "fail", f"no bundle in {models.repository}", hint)
    for name, places in found.items():
        chosen = source.choose(name, places)
        if not chosen:
            hint = "name one that is there, or take the pin out"
            yield Finding(f"model {name}", "fail", "none of its pinned releases is there", hint)
        for place in chosen:
            yield from check_bundle(place.folder, settings.engine)


def _golden(name: str, bundle: Bundle, engine: EngineSettings) -> Finding:
    with closing(Pipeline.open(bundle, engine=engine)) as pipeline:  # reads its policy, too
        report = check_golden(bundle, pipeline)
    if report.warnings:
        return warn(name, report.warnings[0], "export it with golden pairs")
    worst = f"scores differ by at most {report.max_difference:.1g} (allowed {report.tolerance:g})"
    return ok(name, f"{report.n_pairs} golden pairs agree; {worst}")

"""`instructrec tune-engine`: what is tried, chosen, kept, and read again at the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructrec_deploy.cli.benchmark.layouts import (
    Timed,
    choose,
    judge,
    layout_choices,
    limit_choices,
    usual_choice,
)
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.runtime.engine import Engine, EngineSettings
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.tuning import (
    HOME_VARIABLE,
    Choice,
    Machine,
    Tried,
    Tuning,
    bundle_hash,
    explain_tuning,
    find_tuning,
    tuning_file,
    write_tuning,
)
from tests.tiny import write_tiny_bundle
from tests.unit.cli.conftest import Run

CHOSEN = Choice(runtime="onnxruntime", n_lanes=1, threads_per_lane=2, max_batch_tokens=77)


def timed(passes_s: list[float], **changes: int) -> Timed:
    return Timed(usual_choice(2).model_copy(update=changes), passes_s, [0.005])


def tuning_of(folder: Path) -> Tuning:
    bundle = open_bundle(folder)
    figures = {"texts_per_s": 100.0, "single_ms": 2.5, "ratio": 1.0, "interval": (1.0, 1.0)}
    usual = Tried(choice=usual_choice(2), **figures)
    faster = figures | {"ratio": 1.4, "interval": (1.3, 1.5)}
    return Tuning(
        name="tiny",
        version="1",
        bundle_sha256=bundle_hash(bundle),
        machine=Machine.here(),
        created="2026-01-02T03:04:05Z",
        choice=CHOSEN,
        tried=(usual, Tried(choice=CHOSEN, **faster)),
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "tuning"))
    return tmp_path / "tuning"


def test_layouts_use_all_cores_and_the_usual_one_is_first() -> None:
    found = layout_choices(4)
    assert found[0] == usual_choice(4)
    assert len(set(map(repr, found))) == len(found)
    assert {one.n_lanes * one.threads_per_lane for one in found} == {4}
    own = [one for one in found if one.runtime == "onnxruntime"]
    assert [one.n_lanes for one in own] == [4, 2, 1]
    assert [one.max_batch_tokens for one in limit_choices(found[0])] == [1024, 512, 2048]


def test_the_usual_choice_stays_unless_another_is_faster_beyond_the_noise() -> None:
    usual = timed([1.0, 1.1, 1.0, 0.9, 1.0])
    noisy = timed([0.7, 1.5, 0.9, 0.8, 1.1], n_lanes=1)
    assert choose([usual, noisy]) is usual
    faster = timed([0.8, 0.88, 0.81, 0.72, 0.8], n_lanes=3)
    assert choose([usual, noisy, faster]) is faster
    assert judge([usual, faster])[1].ratio == pytest.approx(1.25, abs=1e-3)


def test_what_was_measured_is_found_for_this_bundle_on_this_machine_alone(
    home: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle)
    assert find_tuning(bundle) is None
    tuning = tuning_of(tiny_bundle)
    path = write_tuning(tuning, bundle)
    assert path.parent == home
    assert [file.name for file in home.iterdir()] == [path.name]  # nothing half written
    assert find_tuning(bundle) == tuning
    assert find_tuning(open_bundle(write_tiny_bundle(tmp_path / "other", seed=8))) is None
    other = tuning.machine.model_copy(update={"n_cores": 99})
    assert tuning_file(bundle, other, home) != path


def test_auto_takes_what_was_chosen_and_a_layout_that_is_set_stays(
    home: Path, tiny_bundle: Path
) -> None:
    bundle = open_bundle(tiny_bundle)
    auto = EngineSettings(runtime="auto", provider="cpu")
    untuned = Engine(bundle, auto)
    assert (untuned.runtime, untuned.batch_tokens) == ("onnxruntime", 0)
    write_tuning(tuning_of(tiny_bundle), bundle)
    engine = Engine(bundle, auto)
    assert (engine.n_lanes, engine.threads_per_lane, engine.batch_tokens) == (1, 2, 77)
    told = Engine(bundle, auto.model_copy(update={"n_lanes": 3}))
    assert told.n_lanes == 3
    plain = Engine(bundle, EngineSettings(provider="cpu"))
    assert plain.batch_tokens == 0
    with Predictor(bundle, engine=auto, guard=False) as predictor:
        assert predictor._batching.max_batch_tokens == 77
        assert predictor.predict("i lost my card").label == "card lost"


def test_a_damaged_measurement_says_what_to_do(home: Path, tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    path = tuning_file(bundle, Machine.here(), home)
    path.parent.mkdir(parents=True)
    for content in ("{", '{"format_version": 1}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=path.name) as told:
            find_tuning(bundle)
        assert "tune-engine" in told.value.hint


def test_print_config_explains_the_choice(run: Run, home: Path, tiny_bundle: Path) -> None:
    words = ("serve", tiny_bundle, "--set", "engine.runtime=auto", "--print-config")
    assert "# engine.runtime auto is onnxruntime: nothing was measured" in run(*words).out
    write_tuning(tuning_of(tiny_bundle), open_bundle(tiny_bundle))
    out = run(*words).out
    assert f"# engine.runtime auto is {CHOSEN.words}" in out
    assert "1.40 x [1.30, 1.50] the throughput of onnxruntime, n_lanes 2" in out
    assert "# engine.runtime" not in run("serve", tiny_bundle, "--print-config").out
    assert list(explain_tuning(open_bundle(tiny_bundle)))[-1].startswith("file: ")


def test_a_bundle_is_tuned_from_the_command_line(
    run: Run, home: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instructrec_deploy.cli.benchmark.layouts.N_TEXTS", 4)
    monkeypatch.setattr("instructrec_deploy.cli.benchmark.layouts.N_SINGLE", 1)
    done = run("tune-engine", tiny_bundle, "--rounds", 3, "--json")
    assert done.code == 0, done.err
    [told] = done.rows
    found = find_tuning(open_bundle(tiny_bundle))
    assert found is not None
    assert json.loads(found.model_dump_json()) == told
    assert found.tried[0].choice == usual_choice(found.machine.n_cores)
    assert found.choice in [one.choice for one in found.tried]
    assert str(home) in done.err

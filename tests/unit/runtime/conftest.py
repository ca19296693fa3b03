"""A pipeline of each kind, one thread each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.pipeline import Pipeline
from tests.fake_clock import FakeClock

ONE_LANE = EngineSettings(n_lanes=1, threads_per_lane=1, provider="cpu")


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands until a test moves it."""
    return FakeClock()


@pytest.fixture
def pipeline(tiny_bundle: Path) -> Iterator[Pipeline]:
    """The tiny instruction encoder without a guard; an empty cache for each test."""
    opened = Pipeline.open(open_bundle(tiny_bundle), engine=ONE_LANE, guard=False)
    yield opened
    opened.close()


@pytest.fixture
def head_pipeline(tiny_head_bundle: Path) -> Iterator[Pipeline]:
    """The tiny sequence classifier without a guard."""
    opened = Pipeline.open(open_bundle(tiny_head_bundle), engine=ONE_LANE, guard=False)
    yield opened
    opened.close()

"""Fixtures every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

# The machine's cores are shared and telemetry has no business in a test.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import pytest
from hypothesis import settings

from tests.tiny import write_tiny_bundle

# A busy machine is no reason to fail, and whoever changed nothing sees what the last one saw: the
# examples are the same each time. `--hypothesis-profile=explore` draws new ones.
settings.register_profile("calm", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("calm")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny instruction encoder with fusion; tasks "intent" (default), "sentiment"."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_head_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny sequence classifier; its one task is "intent"."""
    root = tmp_path_factory.mktemp("bundles") / "tiny-head"
    return write_tiny_bundle(root, kind="sequence-classification")

"""Before several workers are started: what is refused, and what is handed on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.errors import ConfigError, PortInUse, WorkersCannot
from instructrec_deploy.server.settings import ServerSettings
from instructrec_deploy.server.workers import launch
from instructrec_deploy.server.workers.plan import Plan

BUNDLE = Path("bundle")


@contextmanager
def planned(n_cores: int = 8, **sections: dict[str, Any]) -> Iterator[Plan]:
    """A plan whose sockets are closed at the end."""
    door = {"port": 0, "workers": 2, **sections.pop("server", {})}
    settings = ServerSettings.model_validate({"server": door, **sections})
    plan = launch.make_plan(BUNDLE, settings, n_cores=n_cores)
    try:
        yield plan
    finally:
        for number in plan.sockets:
            os.close(number)


def test_workers_share_out_the_cores_and_get_one_port() -> None:
    with planned(n_cores=8, server={"workers": 4, "metrics_port": 0}) as plan:
        assert plan.n_workers == 4
        assert plan.settings["engine"]["n_cores"] == 2
        assert plan.settings["server"]["port"] > 0
        assert plan.settings["server"]["workers"] == 0
        again = ServerSettings.model_validate(plan.settings)
    assert again.engine.layout(64) == (2, 1)


@pytest.mark.parametrize(("n_cores", "n_workers"), [(1, 1), (2, 1), (8, 2), (64, 16)])
def test_auto_is_a_worker_for_each_four_cores(n_cores: int, n_workers: int) -> None:
    with planned(n_cores=n_cores, server={"workers": "auto"}) as plan:
        assert plan.n_workers == n_workers


def test_nobody_else_gets_the_port_before_a_worker_listens() -> None:
    with planned() as plan, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", plan.settings["server"]["port"]))


def test_a_port_that_somebody_shares_is_refused() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortInUse), planned(server={"port": other.getsockname()[1]}):
            pass


def test_the_http_door_is_refused_with_words_that_say_so() -> None:
    with (
        pytest.raises(WorkersCannot, match="http_port"),
        planned(server={"http_port": 8080}),
    ):
        pass


def test_an_open_address_is_refused_as_without_workers() -> None:
    with pytest.raises(ConfigError, match="open to the network"), planned(server={"host": "::"}):
        pass


def test_other_systems_are_told_that_one_process_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "platform", "darwin")
    with pytest.raises(WorkersCannot, match="Linux"), planned():
        pass


@pytest.mark.parametrize(("watch_s", "is_pinned"), [(0.0, True), (2.0, False)])
def test_a_link_is_followed_at_each_start_only_where_workers_watch_it(
    watch_s: float, is_pinned: bool
) -> None:
    with planned(models={"watch_s": watch_s}) as plan:
        assert plan.is_pinned is is_pinned


def test_a_plan_is_read_as_it_was_written() -> None:
    with planned(safety={"policy": "规则.toml"}) as plan:
        assert json.dumps(plan.settings)
        assert Plan.take_over(plan.hand_on()) == plan

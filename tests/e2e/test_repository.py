"""Several models and versions of them from one folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from instructrec_deploy.client.security import Security
from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.errors import Denied, GoldenFailed, ModelUnknown, RequestError
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.status import ServedModel
from tests.e2e.test_access import give_key
from tests.e2e.test_swaps import TEXT, eventually
from tests.serving import ServerProcess, running_server, start_server
from tests.tiny import write_tiny_bundle

WRONG = {"text": TEXT, "task": "intent", "label": "refund", "scores": {}}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """bank 9 and 10, and 客服 1."""
    root = tmp_path / "models"
    for number in (9, 10):
        write_tiny_bundle(root / "bank" / str(number), version=f"b{number}", seed=number)
    write_tiny_bundle(root / "客服" / "1", version="k1", seed=3)
    return root


@contextmanager
def serving(
    repository: Path, *, access: dict[str, Any] | None = None, **models: Any
) -> Iterator[ServerProcess]:
    given = {"repository": str(repository), **models}
    folder = repository.parent / "server"
    with running_server(None, folder, models=given, access=access) as server:
        yield server


def ask(server: ServerProcess, model: str = "", version: str = "", **more: Any) -> tuple[str, str]:
    with Client(server.address, model=model, model_version=version, **more) as client:
        found = client.predict(TEXT)
        (one,) = client.predict_batch([Request.of(TEXT)])
        assert (found.model, found.model_version) == (one.model, one.model_version)  # type: ignore[union-attr]
        prepared = client.prepare("Which?", ["a", "b"]).prepared_id
        assert client.predict(TEXT, prepared_id=prepared).model == found.model
        return found.model, found.model_version


def test_models_are_asked_by_name_and_version(repository: Path) -> None:
    with serving(repository, latest=2) as server:
        assert ask(server, "客服") == ("客服", "k1")
        assert ask(server, "bank") == ("bank", "b10")
        assert ask(server, "bank", "9") == ask(server, "bank", "b9") == ("bank", "b9")
        with pytest.raises(RequestError, match="several models"):
            ask(server)
        for wrong in (("other", ""), ("bank", "8"), ("客服", "b9")):
            with pytest.raises(ModelUnknown):
                ask(server, *wrong)
        with Client(server.address) as client:
            assert client.status().models == (
                ServedModel("bank", "b9", "9"),
                ServedModel("bank", "b10", "10"),
                ServedModel("客服", "k1", "1"),
            )
        with Client(server.address, model="bank") as client:
            assert client.status().model_version == "b10"


def test_the_default_model_and_pinned_versions(repository: Path) -> None:
    with serving(repository, default="bank", pins=["bank=9"]) as server:
        assert ask(server) == ("bank", "b9")


def test_new_versions_come_and_go_while_others_answer(repository: Path) -> None:
    with (
        serving(repository, default="bank", watch_s=0.05) as server,
        Client(server.address) as client,
    ):
        write_tiny_bundle(repository / "bank" / "11", version="b11", golden=[WRONG])
        assert server.event("new version refused")["code"] == "IR-1502"
        assert client.status().models[-1] == ServedModel("bank", "", "11", "refused", "IR-1502")
        write_tiny_bundle(repository / "bank" / "12", version="b12", seed=12)
        assert eventually(lambda: client.predict(TEXT).model_version == "b12")
        assert client.swap("bank", rollback=True).model_version == "b10"
        shutil.rmtree(repository / "客服")
        assert server.event("model dropped")["model"] == "客服"
        with pytest.raises(ModelUnknown):
            ask(server, "客服")
        assert client.predict(TEXT).model_version == "b10"


def test_one_model_is_swapped_whatever_is_wrong_with_another(repository: Path) -> None:
    with serving(repository) as server, Client(server.address) as client:
        write_tiny_bundle(repository / "bank" / "11", version="b11", golden=[WRONG])
        write_tiny_bundle(repository / "客服" / "2", version="k2", seed=4)
        change = client.swap("客服")
        assert (change.model_version, change.previous_version) == ("k2", "k1")
        assert not client.swap("客服").is_changed
        with pytest.raises(GoldenFailed):
            client.swap("bank")
        for wrong in ("", "other"):
            with pytest.raises(ModelUnknown):
                client.swap(wrong)
        write_tiny_bundle(repository / "new" / "1", version="n1", seed=5)
        assert client.swap("new").model_version == "n1"
        assert ask(server, "new") == ("new", "n1")
        assert ask(server, "bank") == ("bank", "b10")


def test_a_broken_newest_version_leaves_the_one_before(repository: Path) -> None:
    (repository / "bank" / "10" / "tokenizer.json").write_text("{}")
    with serving(repository) as server:
        assert ask(server, "bank") == ("bank", "b9")


def test_a_repository_without_a_usable_bundle_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "models" / "bank").mkdir(parents=True)
    server = start_server(None, tmp_path / "s", models={"repository": str(tmp_path / "models")})
    assert server.process.wait(30) == 3
    assert "IR-1203" in server.stderr


def test_a_key_for_some_models_opens_these_alone(repository: Path) -> None:
    keys = repository.parent / "keys.toml"
    own = Security(api_key=give_key(keys, models=["客服"]))
    with serving(repository, access={"keys": str(keys)}) as server:
        with pytest.raises(grpc.RpcError), grpc.insecure_channel(server.address) as channel:
            channel.unary_unary("/instructrec.v1.InstructRec/GetModelStatus")(b"")
        assert ask(server, "客服", security=own) == ("客服", "k1")
        with pytest.raises(Denied, match="not for that model"):
            ask(server, "bank", security=own)
        with Client(server.address, security=own) as client:
            assert [one.model for one in client.status().models] == ["客服"]

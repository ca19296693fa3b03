"""Who answers a request: by name and version, or the only model there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from instructrec_deploy.core.errors import ModelUnknown, RequestError
from instructrec_deploy.server.settings import DoorSettings
from instructrec_deploy.server.shelf import Shelf


@dataclass
class Named:
    name: str
    version: str
    release: str = ""
    max_tokens: int = 64

    def lend(self, *_: Any) -> Any: ...


def shelf(*models: tuple[str, str], default: str = "") -> Shelf:
    return Shelf([cast(Any, Named(*model)) for model in models], DoorSettings(), default=default)


def test_the_only_model_and_the_newest_version_answer_unless_others_are_named() -> None:
    found = shelf(("bank", "a"), ("bank", "b"))
    assert found.pick().model.version == "b"
    assert found.pick("bank", "a").model.version == "a"
    assert found.pick(version="a").model.version == "a"


def test_of_several_models_one_must_be_named_or_be_the_default() -> None:
    models = ("bank", "a"), ("shop", "b")
    assert shelf(*models).pick("shop").model.version == "b"
    assert shelf(*models, default="shop").pick().model.name == "shop"
    with pytest.raises(RequestError, match="several models"):
        shelf(*models).pick()


@pytest.mark.parametrize("asked", [("银行", ""), ("bank", "z")])
def test_what_is_not_served_is_said_to_be_unknown(asked: tuple[str, str]) -> None:
    with pytest.raises(ModelUnknown):
        shelf(("bank", "a")).pick(*asked)

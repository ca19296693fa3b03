"""Ids of prepared instructions that another version of the model gave out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import LabelUnknown, PreparedUnknown
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question
from instructrec_deploy.runtime.jobs import Ask
from instructrec_deploy.runtime.pipeline import Pipeline
from tests.tiny import TASKS_TOML, write_tiny_bundle
from tests.unit.runtime.conftest import ONE_LANE

MINE = Instruction.of("Which one?", ["left", "右"])


@contextmanager
def opened(folder: Path, **bundle: str) -> Iterator[Pipeline]:
    written = open_bundle(write_tiny_bundle(folder, **bundle))  # type: ignore[arg-type]
    with closing(Pipeline.open(written, engine=ONE_LANE)) as pipeline:
        yield pipeline


def ask(pipeline: Pipeline, key: str) -> Ask:
    return pipeline.resolver.resolve(Question(prepared_id=key))


def test_an_id_is_known_while_the_older_version_lives_and_after_it_is_gone(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "1") as old,
        opened(tmp_path / "2") as middle,
        opened(tmp_path / "3") as new,
    ):
        middle.resolver.inherit(old.resolver)
        new.resolver.inherit(middle.resolver)
        old.prepare(MINE)
        assert ask(new, MINE.key).instruction == MINE
        middle.resolver.settle()
        new.resolver.settle()
        found = ask(new, MINE.key)
        assert (found.key, found.instruction, found.prepared) == (MINE.key, MINE, None)
        with pytest.raises(PreparedUnknown):
            ask(new, "0" * 32)


def test_a_task_is_asked_as_the_new_version_has_it(tmp_path: Path) -> None:
    cooler = TASKS_TOML.replace("temperature = 2.0", "temperature = 3.0")
    with opened(tmp_path / "1") as old, opened(tmp_path / "2", tasks_toml=cooler) as new:
        new.resolver.inherit(old.resolver)
        key = old.bundle.instruction("sentiment").key
        assert ask(new, key).instruction.temperature == 3.0


def test_a_task_with_other_labels_or_none_stays_as_it_was_asked(tmp_path: Path) -> None:
    other = TASKS_TOML.replace('"positive", "negative"', '"good", "bad"').split(
        "[tasks.sentiment.descriptions]"
    )[0]
    with opened(tmp_path / "1") as old, opened(tmp_path / "2", tasks_toml=other) as new:
        new.resolver.inherit(old.resolver)
        key = old.bundle.instruction("sentiment").key
        assert ask(new, key).instruction.labels == ("positive", "negative")


def test_a_model_with_fixed_labels_says_what_it_cannot_take_over(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "1") as old,
        opened(tmp_path / "2", kind="sequence-classification") as new,
    ):
        old.prepare(MINE)
        new.resolver.inherit(old.resolver)
        with pytest.raises(LabelUnknown):
            ask(new, MINE.key)

"""Retuning on corrections: it teaches what is new, keeps what was known, and refuses poison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from instructrec_deploy.cli.main import main
from instructrec_deploy.core.errors import ConfigError, FileMissing, PromotionRefused
from instructrec_deploy.core.feedback import Feedback, SpanMark, Target
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.promotion import check_promoted
from instructrec_deploy.export.run import export_run
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_training import continual
from instructrec_training.continual import (
    Retuned,
    Retuning,
    continue_recipe,
    read_book,
    refuse_lost,
    retune,
)
from instructrec_training.recipe import Recipe
from instructrec_training.replay import MAX_WEIGHT, REPLAY_ROWS, proportions
from instructrec_training.run import train
from tests.tiny_base import MESSAGES, write_tiny_data

MakeRecipe = Callable[..., Recipe]
KINDS = ("instruction-encoder", "sequence-classification")
# What the base run has never seen, in words of its vocabulary.
NEW_TEXTS = [
    " ".join(words)
    for words in product(["phone", "call"], ["number", "app", "today"], ["top up", "fee", "是什么"])
]


@dataclass(frozen=True)
class Base:
    """A tuned run with what it was made of."""

    run: Path
    recipe: Recipe
    data_root: Path


@pytest.fixture(scope="module")
def bases(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    """A run of each kind; no test changes them."""
    return {kind: make_base(kind, make_recipe, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, bases: dict[str, Base]) -> Base:
    return bases[str(request.param)]


@pytest.fixture
def encoder_base(bases: dict[str, Base]) -> Base:
    return bases[KINDS[0]]


def make_base(kind: str, make_recipe: MakeRecipe, folder: Path) -> Base:
    recipe = make_recipe(kind, "mean", epochs=25, patience=25, probe=True)
    root = write_tiny_data(folder / "data")
    report = train(recipe, folder / "run", data_root=root, is_quiet=True)
    assert report.after["intent"]["accuracy"] == 1.0
    return Base(folder / "run", recipe, root)


def write_store(file: Path, rows: list[tuple[str, str]], task: str = "intent") -> Path:
    with FeedbackStore.open(file, create=True) as store:
        for text, label in rows:
            store.add(Feedback.of(text, Target((label,)), task=task))
    return file


def again(base: Base, store: Path, out: Path, **more: Any) -> Retuned:
    settings = base.recipe.training.model_copy(update={"epochs": 6, "patience": 6})
    recipe = base.recipe.model_copy(update={"training": settings})
    resume = more.pop("resume", False)
    retuning = Retuning(base.run, store, **more)
    return retune(recipe, retuning, out, data_root=base.data_root, resume=resume, is_quiet=True)


def promotion_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "promotion.json").read_text(encoding="utf-8"))
    return content


def test_corrections_teach_what_is_new_and_the_old_test_is_kept(base: Base, tmp_path: Path) -> None:
    store = write_store(tmp_path / "feedback.db", [(text, "余额") for text in NEW_TEXTS])
    retuned = again(base, store, tmp_path / "new")
    refuse_lost(retuned)
    promotion = promotion_of(tmp_path / "new")
    (test,) = promotion["feedback_tests"].values()
    assert test["n"] >= 2
    assert test["old_accuracy"] < test["new_accuracy"] == 1.0
    old_test = promotion["tests"]["intent"]
    assert (old_test["n"], old_test["old_accuracy"], old_test["verdict"]) == (6, 1.0, "kept")
    assert promotion["promoted"] is True
    check_promoted(tmp_path / "new")
    facts = promotion["feedback"]["tasks"]["intent"]
    assert facts["n"] == len(NEW_TEXTS)
    assert facts["replay_share"] >= 0.5


def test_poisoned_corrections_are_refused_and_the_run_is_marked(base: Base, tmp_path: Path) -> None:
    flipped = dict(zip(MESSAGES, [*list(MESSAGES)[1:], next(iter(MESSAGES))], strict=True))
    rows = [
        (f"{text} {tail}", flipped[label])
        for label, texts in MESSAGES.items()
        for text in texts
        for tail in ("today", "now", "yes", "please help", "是")
    ]
    store = write_store(tmp_path / "feedback.db", rows)
    retuned = again(base, store, tmp_path / "new", replay_share=0.0)
    with pytest.raises(PromotionRefused, match="'intent' lost") as caught:
        refuse_lost(retuned)
    assert (caught.value.code, caught.value.exit_code) == ("IR-1610", 8)
    promotion = promotion_of(tmp_path / "new")
    assert promotion["promoted"] is False
    assert promotion["tests"]["intent"]["verdict"] == "lost"
    assert promotion["tests"]["intent"]["loss_points"] > 30
    poison = promotion["feedback_tests"]["intent"]
    assert poison["new_accuracy"] > poison["old_accuracy"]  # it did learn it
    evaluation = json.loads((tmp_path / "new/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["promotion"]["promoted"] is False
    with pytest.raises(PromotionRefused, match="not promoted"):
        export_run(tmp_path / "new", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(ConfigError, match="refused run"):
        again(Base(tmp_path / "new", base.recipe, base.data_root), store, tmp_path / "newer")


def test_a_retuning_starts_from_the_last_weights_and_label_vectors(
    base: Base, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "feedback.db", [(text, "余额") for text in NEW_TEXTS])
    still = base.recipe.training.model_copy(update={"epochs": 0})
    recipe = base.recipe.model_copy(update={"training": still})
    retuned = retune(
        recipe,
        Retuning(base.run, store),
        tmp_path / "new",
        data_root=base.data_root,
        is_quiet=True,
    )
    old, new = (load_checkpoint(run / "checkpoint") for run in (base.run, tmp_path / "new"))
    for name, weight in old.model.state_dict().items():
        assert torch.equal(weight, new.model.state_dict()[name]), name
    assert old.label_vectors.keys() == new.label_vectors.keys()
    for task, vectors in old.label_vectors.items():
        assert vectors.any()
        assert torch.equal(vectors, new.label_vectors[task])
    assert old.section == new.section
    (test,) = retuned.promotion.tests.values()
    assert (test.n_lost, test.n_gained, test.old_accuracy) == (0, 0, 1.0)


def test_the_bundle_of_a_promoted_run_tells_its_story_and_no_correction(
    encoder_base: Base, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "feedback.db", [(text, "余额") for text in NEW_TEXTS])
    again(encoder_base, store, tmp_path / "new")
    report = export_run(tmp_path / "new", tmp_path / "bundle", precision="fp32")
    evaluation = json.loads((report.out / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["promotion"]["promoted"] is True
    assert str(tmp_path) not in json.dumps(evaluation["promotion"])
    golden = (report.out / "golden.jsonl").read_text(encoding="utf-8")
    assert golden
    assert not any(text in golden for text in NEW_TEXTS)


def test_what_cannot_be_used_is_counted_and_left_out(encoder_base: Base, tmp_path: Path) -> None:
    in_test = next(
        json.loads(line)["text"]
        for line in (encoder_base.data_root / "intents.jsonl").read_text("utf-8").splitlines()
        if json.loads(line)["split"] == "test"
    )
    rows = [(text, "余额") for text in NEW_TEXTS]
    file = write_store(tmp_path / "feedback.db", [*rows, ("hm", "no such label")])
    write_store(file, [(in_test.upper(), "refund")])
    write_store(file, [("x", "a")], task="another")
    with FeedbackStore.open(file) as store:
        store.add(Feedback.of("钱", Target(spans=(SpanMark(0, 1, "refund"),)), task="intent"))
    again(encoder_base, file, tmp_path / "new")
    found = promotion_of(tmp_path / "new")["feedback"]
    assert found["rows_in_store"] == len(NEW_TEXTS) + 4
    assert found["left_out"] == {
        "with a label the run does not know": 1,
        "of a text of the old tests": 1,
        "of another task": 1,
        "without exactly one label": 1,
    }
    assert found["tasks"]["intent"]["n"] == len(NEW_TEXTS)


def test_an_old_row_that_a_correction_contradicts_is_not_replayed(
    encoder_base: Base, tmp_path: Path
) -> None:
    said = "i want my money back"  # twice in the training rows: as it is, and with a "please"
    rows = [(text, "余额") for text in NEW_TEXTS]
    store = write_store(tmp_path / "feedback.db", [*rows, (f" {said.upper()}!", "余额")])
    again(encoder_base, store, tmp_path / "first")
    write_store(store, [(said.upper(), "余额")])
    again(encoder_base, store, tmp_path / "second")
    first, second = (
        promotion_of(tmp_path / name)["feedback"]["tasks"]["intent"]["n_old_rows_left_out"]
        for name in ("first", "second")
    )
    assert (first, second) == (0, 1)


def test_a_killed_retuning_stays_refused_and_resumes_with_the_same_corrections(
    encoder_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "feedback.db", [(text, "余额") for text in NEW_TEXTS])

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(continual, "decide", killed)
    with pytest.raises(KeyboardInterrupt):
        again(encoder_base, store, tmp_path / "new")
    monkeypatch.undo()
    with pytest.raises(PromotionRefused, match="decision"):
        check_promoted(tmp_path / "new")
    write_store(store, [("one more", "refund")])
    with pytest.raises(ConfigError, match="begun with --replay-share"):
        again(encoder_base, store, tmp_path / "new", resume=True, replay_share=0.7)
    again(encoder_base, store, tmp_path / "new", resume=True)
    assert promotion_of(tmp_path / "new")["feedback"]["rows_in_store"] == len(NEW_TEXTS)
    check_promoted(tmp_path / "new")


@pytest.mark.parametrize(
    ("rows", "task", "words"),
    [
        ([], "intent", "the store is empty"),
        ([("hm", "no such label")], "intent", "1 with a label the run does not know"),
        ([("hm", "refund")], "another", "1 of another task"),
    ],
)
def test_without_a_usable_correction_nothing_is_tuned(
    encoder_base: Base, tmp_path: Path, rows: list[tuple[str, str]], task: str, words: str
) -> None:
    store = write_store(tmp_path / "feedback.db", rows, task)
    with pytest.raises(ConfigError, match=words):
        again(encoder_base, store, tmp_path / "new")
    write_store(store, [(text, "余额") for text in NEW_TEXTS])
    again(encoder_base, store, tmp_path / "new", resume=True)


def test_wrong_sources_and_numbers_are_refused_before_anything_is_written(
    encoder_base: Base, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "feedback.db", [("x", "refund")])
    for more in ({"replay_share": 1.0}, {"replay_share": -0.1}, {"max_loss": -1.0}):
        with pytest.raises(ConfigError):
            again(encoder_base, store, tmp_path / "new", **more)
    with pytest.raises(FileMissing):
        again(encoder_base, tmp_path / "none.db", tmp_path / "new")
    with pytest.raises(FileMissing, match="no run"):
        again(Base(tmp_path, encoder_base.recipe, encoder_base.data_root), store, tmp_path / "new")
    other = encoder_base.recipe.model_copy(
        update={
            "tasks": {"other": encoder_base.recipe.tasks["intent"]},
            "data": tuple(p.model_copy(update={"task": "other"}) for p in encoder_base.recipe.data),
        }
    )
    with pytest.raises(ConfigError, match="intent, other"):
        again(Base(encoder_base.run, other, encoder_base.data_root), store, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "change", [{"decision": "any"}, {"none_label": "something else"}, {"kind": TaskKind.NER}]
)
def test_tasks_with_other_answers_than_one_label_are_refused(
    change: dict[str, Any], encoder_base: Base
) -> None:
    task = encoder_base.recipe.tasks["intent"].model_copy(update=change)
    recipe = encoder_base.recipe.model_copy(update={"tasks": {"intent": task}})
    with pytest.raises(ConfigError, match="intent"):
        continue_recipe(recipe, encoder_base.run, read_book(encoder_base.run))


def test_a_recipe_of_another_kind_is_refused(
    encoder_base: Base, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "feedback.db", [(text, "余额") for text in NEW_TEXTS])
    head = Base(encoder_base.run, make_recipe(KINDS[1]), encoder_base.data_root)
    with pytest.raises(ConfigError, match="instruction-encoder"):
        again(head, store, tmp_path / "new")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("n_feedback", [1, 7, 100, 1_999, 30_000])
@pytest.mark.parametrize("n_old", [5, 2_000, 9_000])
def test_the_share_of_old_rows_is_at_least_what_was_asked(
    share: float, n_feedback: int, n_old: int
) -> None:
    n_replayed, weight = proportions(n_feedback, n_old, share)
    n_shown = n_feedback * weight
    assert n_replayed / (n_replayed + n_shown) >= share - 1e-9
    assert 1 <= weight <= MAX_WEIGHT
    assert n_replayed >= min(n_old, REPLAY_ROWS)


def test_without_replay_only_corrections_are_shown() -> None:
    assert proportions(10, 1_000, 0.0) == (0, 1)


def test_the_verb_tells_the_figures_and_ends_with_a_code_of_its_own(
    encoder_base: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import tomli_w

    recipe = tmp_path / "recipe.toml"
    content = encoder_base.recipe.model_dump(mode="json", exclude_none=True)
    content["training"] |= {"epochs": 3}
    recipe.write_text(tomli_w.dumps(content), encoding="utf-8")
    store = write_store(tmp_path / "feedback.db", [(text, "余额") for text in NEW_TEXTS])

    def verb(*words: object) -> int:
        fixed = ("train", recipe, "--data-root", encoder_base.data_root, *words)
        monkeypatch.setattr("sys.argv", ["instructrec", *map(str, fixed)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    sources = ("--from-feedback", store, "--from-run", encoder_base.run)
    assert verb("--out", tmp_path / "new", *sources, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["promotion"]["promoted"] is True
    assert "old test: intent accuracy 1.0000 -> " in captured.err
    assert not any(text in captured.err for text in NEW_TEXTS)
    assert verb("--out", tmp_path / "half", "--from-run", encoder_base.run) == 2
    poison = write_store(tmp_path / "poison.db", [(f"{t} 是", "refund") for t in poison_texts()])
    sources = ("--from-feedback", poison, "--from-run", encoder_base.run)
    assert verb("--out", tmp_path / "bad", *sources, "--replay-share", 0, "--quiet") == 8
    assert "IR-1610" in capsys.readouterr().err


def poison_texts() -> list[str]:
    """What the base run has right and is not about refunds."""
    return [
        f"{text} {tail}"
        for label in ("card lost", "余额")
        for text in MESSAGES[label]
        for tail in ("today", "now", "yes", "help", "服务", "please")
    ]

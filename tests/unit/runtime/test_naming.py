"""Names in texts: a task of the bundle finds them, and the policy acts on them as on any data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import BundleError, InternalError
from instructrec_deploy.core.feedback import Feedback, Target
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction, Span
from instructrec_deploy.runtime.feedback_intake import mask_feedback
from instructrec_deploy.runtime.model_checks import ModelChecks
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.review_intake import cases_of
from instructrec_deploy.safety.guards import PolicyGuards
from tests.tiny import TASKS_TOML, write_tiny_bundle

PEOPLE = f"""{TASKS_TOML}
[tasks.people]
kind = "ner"
labels = ["person", "firm", "road"]
[tasks.people.instructions]
en = ["Who is named?"]
"""
FINDER = '[input.entities.people]\ntypes = { person = "PERSON", road = "ADDRESS" }\n'
NAMES = {"Ann Lee": "person", "王伟": "person", "Acme": "firm", "Mill Lane": "road"}


def guards(toml: str = FINDER) -> PolicyGuards:
    return PolicyGuards.from_toml(toml, where="safety.toml")


def named_spans(text: str) -> tuple[Span, ...]:
    """What a model that knows `NAMES` finds."""
    places = ((text.find(name), name) for name in NAMES)
    return tuple(Span(at, at + len(n), NAMES[n], n, 0.75) for at, n in places if at >= 0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that the model was asked about; it finds `NAMES`."""
    seen: list[str] = []

    def find(self: ModelChecks, task: str, texts: list[str], lane: int) -> list[tuple[Span, ...]]:
        assert task == "people"
        seen.extend(texts)
        return [named_spans(text) for text in texts]

    monkeypatch.setattr(ModelChecks, "_entities", find)
    return seen


@pytest.fixture(scope="module")
def people_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("people") / "b", tasks_toml=PEOPLE)


@pytest.fixture
def opened(people_bundle: Path) -> Iterator[list[Pipeline]]:
    """Pipelines that are closed at the end."""
    pipelines: list[Pipeline] = []
    yield pipelines
    for pipeline in pipelines:
        pipeline.close()


def ask(pipeline: Pipeline, *requests: Request) -> list[Prediction]:
    found = pipeline.answer(requests)
    assert all(isinstance(one, Prediction) for one in found), found
    return [one for one in found if isinstance(one, Prediction)]


def open_pipeline(bundle: Path, policy: PolicyGuards, opened: list[Pipeline]) -> Pipeline:
    pipeline = Pipeline.open(open_bundle(bundle), guard=policy)
    opened.append(pipeline)
    return pipeline


def test_names_are_masked_beside_what_the_rules_find(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    pipeline = open_pipeline(people_bundle, guards(), opened)
    text = "Ann Lee lost my card of Acme, phone 13812345678, please help"
    (found,) = ask(pipeline, Request.of(text))
    assert found.text == "[PERSON] lost my card of Acme, phone [PHONE], please help"
    told = [(f.category, f.rule, f.score) for f in found.verdicts[0].findings]
    assert told == [("PERSON", "task people", 0.75), ("PHONE", told[1][1], 1.0)]
    assert asked == [text]


def test_without_a_word_of_the_policy_no_model_is_asked(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    pipeline = open_pipeline(people_bundle, guards(""), opened)
    (found,) = ask(pipeline, Request.of("Ann Lee lost my card"))
    assert (found.text, found.verdicts[0].findings, asked) == ("", (), [])


def test_the_second_text_of_a_pair_is_searched_too(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    pipeline = open_pipeline(people_bundle, guards(), opened)
    (found,) = ask(pipeline, Request.of("my card", text2="Ann Lee has it"))
    assert [v.direction for v in found.verdicts if v.findings] == ["text2"]
    assert sorted(asked) == ["Ann Lee has it", "my card"]


def test_what_the_rules_know_better_is_not_called_a_name(
    people_bundle: Path, asked: list[str], opened: list[Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NAMES, "13812345678", "person")
    pipeline = open_pipeline(people_bundle, guards(), opened)
    (found,) = ask(pipeline, Request.of("phone 13812345678"))
    assert [f.category for f in found.verdicts[0].findings] == ["PHONE"]


def test_steps_ask_for_a_score_and_a_language_for_its_texts(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    steps = '[input.personal_data]\nPERSON = {action = "mask", threshold = 0.9}\n'
    pipeline = open_pipeline(people_bundle, guards(f"{steps}{FINDER}"), opened)
    (found,) = ask(pipeline, Request.of("Ann Lee, Mill Lane"))
    assert [f.category for f in found.verdicts[0].findings] == ["ADDRESS"]
    chinese = open_pipeline(people_bundle, guards(f'{FINDER}lang = "zh"\n'), opened)
    english, other = ask(chinese, Request.of("Ann Lee"), Request.of("王伟的卡丢了"))
    assert (english.verdicts[0].findings, other.text) == ((), "[PERSON]的卡丢了")


@pytest.mark.parametrize(("fail", "action"), [("closed", "block"), ("open", "flag")])
def test_a_model_that_fails_is_a_check_that_broke(
    people_bundle: Path,
    opened: list[Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    fail: str,
    action: str,
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise InternalError("no")

    monkeypatch.setattr(ModelChecks, "_entities", broken)
    pipeline = open_pipeline(people_bundle, guards(f'[input]\nfail = "{fail}"\n{FINDER}'), opened)
    (found,) = ask(pipeline, Request.of("Ann Lee lost my card"))
    verdict = found.verdicts[0]
    assert ([f.category for f in verdict.findings], verdict.action) == (["guard_failure"], action)


def test_a_dry_run_tells_and_masks_nothing(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    pipeline = open_pipeline(people_bundle, guards(f"[input]\ndry_run = true\n{FINDER}"), opened)
    (found,) = ask(pipeline, Request.of("Ann Lee lost my card"))
    assert (found.text, found.verdicts[0].dry_run_action) == ("", "mask")


def test_what_is_kept_for_a_person_or_for_training_has_no_names(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    policy = guards(f'[input.content]\nprofanity = {{action = "block", review = true}}\n{FINDER}')
    pipeline = open_pipeline(people_bundle, policy, opened)
    request = Request.of("fuck, said Ann Lee")
    (found,) = ask(pipeline, request)
    assert found.verdicts[0].action == "block"
    (case,) = cases_of(request, found, policy)
    assert case.text == "fuck, said [PERSON]"
    kept = mask_feedback(
        Feedback(text="Ann Lee lost my card", task="intent", right=Target(labels=("card lost",))),
        policy.keeping("intent"),
        check=pipeline.checks.checked,
    )
    assert kept.text == "[PERSON] lost my card"


@pytest.mark.parametrize(
    ("finder", "words"),
    [
        ('[input.entities.crowd]\ntypes = { person = "PERSON" }\n', "no task 'crowd'"),
        ('[input.entities.intent]\ntypes = { person = "PERSON" }\n', "finds no entities"),
        ('[input.entities.people]\ntypes = { king = "PERSON" }\n', "no label 'king'"),
    ],
)
def test_a_policy_that_asks_what_is_not_there_is_refused(
    people_bundle: Path, finder: str, words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        Pipeline.open(open_bundle(people_bundle), guard=guards(finder))


@pytest.mark.parametrize(
    "toml",
    [
        '[input.entities.people]\ntypes = { person = "KING" }\n',
        "[input.entities.people]\ntypes = {}\n",
        '[output.entities.people]\ntypes = { person = "PERSON" }\n',
    ],
)
def test_a_policy_with_unknown_types_or_for_answers_is_no_policy(toml: str) -> None:
    with pytest.raises(BundleError):
        guards(toml)


def test_of_two_tasks_policies_either_s_entities_are_sought() -> None:
    toml = (
        '[tasks.a.input.entities.people]\ntypes = { person = "PERSON" }\nlang = "zh"\n'
        '[tasks.b.input.entities.people]\ntypes = { firm = "ORGANIZATION" }\n'
    )
    finder = guards(toml).of(("a", "b")).policy.input.entities["people"]
    assert (finder.types, finder.lang) == ({"person": "PERSON", "firm": "ORGANIZATION"}, "")


def test_questions_without_the_policy_s_task_are_answered_as_before(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    pipeline = open_pipeline(people_bundle, guards(), opened)
    request = Request("Ann Lee is bad", (Question(task="sentiment"), Question(task="intent")))
    (found,) = ask(pipeline, request)
    assert [answer.task for answer in found.answers] == ["sentiment", "intent"]
    assert len(asked) == 1


def test_equal_texts_are_searched_once(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    pipeline = open_pipeline(people_bundle, guards(), opened)
    found = ask(pipeline, *[Request.of("Ann Lee lost my card") for _ in range(3)])
    assert {one.text for one in found} == {"[PERSON] lost my card"}
    assert asked == ["Ann Lee lost my card"]


def test_a_case_about_an_answer_holds_no_name_of_its_text(
    people_bundle: Path, asked: list[str], opened: list[Pipeline]
) -> None:
    policy = guards(f'{FINDER}[output.content]\nprofanity = {{action = "flag", review = true}}\n')
    pipeline = open_pipeline(people_bundle, policy, opened)
    instruction = Instruction.of("What is he?", ["fuck", "nothing"])
    request = Request("Ann Lee lost my card", (Question(instruction=instruction),))
    (found,) = ask(pipeline, request)
    (case,) = cases_of(request, found, policy)
    assert (case.direction, case.text) == ("output", "[PERSON] lost my card")


def test_where_nobody_asks_for_names_another_check_that_broke_costs_a_case_no_text(
    people_bundle: Path, opened: list[Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = '[input.heads.sentiment]\nlabel = "negative"\n'
    policy = guards(f'[input]\nfail = "open"\nreview = ["flag"]\n{head}')
    pipeline = open_pipeline(people_bundle, policy, opened)

    def broken(*args: object, **kwargs: object) -> None:
        raise InternalError("no")

    monkeypatch.setattr(ModelChecks, "_scores", broken)
    request = Request("fuck, my card 13812345678", (Question(task="intent"),))
    (found,) = ask(pipeline, request)
    assert "guard_failure" in {f.category for f in found.verdicts[0].findings}
    (case,) = cases_of(request, found, policy)
    assert case.text == "fuck, my card [PHONE]"

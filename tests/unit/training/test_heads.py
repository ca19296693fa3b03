"""Heads of transformers that find spans: tuned, exported, and asked as any other model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoTokenizer, BertForQuestionAnswering, pipeline
from typer.testing import CliRunner

from instructrec_deploy.cli.main import app
from instructrec_deploy.core.errors import (
    BundleError,
    ConfigError,
    LabelMissing,
    LabelUnknown,
    RequestError,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.manifest import TaskBook, parse_toml
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.run import export_run
from instructrec_deploy.models.checkpoint import build_checkpoint, load_checkpoint
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_training.run import train
from tests.tiny import seal
from tests.tiny_heads import (
    BIOES,
    recipe_of,
    write_answerer,
    write_family,
    write_rows,
    write_tagger,
)

NER = ("token-classification", "ner")
QA = ("question-answering", "qa")


@pytest.fixture(scope="module")
def tagger(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a token classifier that was tuned on six texts."""
    return _tuned(tiny_base, tmp_path_factory.mktemp("tagger"), *NER)


@pytest.fixture(scope="module")
def answerer(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a question-answering model that was tuned on six texts."""
    return _tuned(tiny_base, tmp_path_factory.mktemp("answerer"), *QA)


def _tuned(base: Path, folder: Path, model_kind: str, task_kind: str) -> Path:
    root = write_rows(folder / "data", task_kind)
    train(recipe_of(base, model_kind, task_kind), folder / "run", data_root=root, is_quiet=True)
    export_run(folder / "run", folder / "bundle", precision="fp32")
    return folder / "bundle"


def test_a_token_classifier_is_learned_and_says_so(tagger: Path) -> None:
    run = tagger.parent / "run"
    report = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert report["after"]["t"]["entity_f1"] >= 0.9 > report["before"]["t"]["entity_f1"]
    assert load_checkpoint(run / "checkpoint").section.labels == (
        *("O", "B-event", "I-event", "B-thing", "I-thing"),
    )
    book = parse_toml(TaskBook, (run / "tasks.toml").read_text(encoding="utf-8"), where="tasks")
    assert book.tasks["t"].labels == ("event", "thing")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("i lost my card", [(2, 6, "event"), (10, 14, "thing")]),
        ("😊 查询余额", [(4, 6, "thing")]),
        ("REFUND my CARD", [(0, 6, "event"), (10, 14, "thing")]),
    ],
)
def test_entities_lie_where_the_text_as_sent_has_them(
    text: str, wanted: list[tuple[int, int, str]], tagger: Path
) -> None:
    with Predictor(tagger) as predictor:
        found = predictor.predict(text)
    assert [(s.start, s.end, s.label) for s in found.spans] == wanted
    assert all(s.text == text[s.start : s.end] for s in found.spans)
    assert set(found.labels) == {kind for _, _, kind in wanted}


def test_a_long_text_is_read_to_its_end_and_no_entity_twice(tagger: Path) -> None:
    text = "i lost my card " * 40 + "查询余额"
    with Predictor(tagger) as predictor:
        spans = predictor.predict(text).spans
    assert [s.start for s in spans] == sorted({s.start for s in spans})
    n_cards = sum(s.text == "card" for s in spans)
    assert n_cards == 40
    assert (spans[-1].start, spans[-1].text) == (len(text) - 2, "余额")


def test_types_that_are_not_asked_for_are_left_out(tagger: Path) -> None:
    asked = Instruction.of("Find it", ["thing"], kind=TaskKind.NER)
    with Predictor(tagger) as predictor:
        (found,) = predictor.predict_requests(
            [Request("i lost my card", (Question(instruction=asked),))]
        )
    assert isinstance(found, Prediction)
    assert [(s.text, s.label) for s in found.spans] == [("card", "thing")]


@pytest.mark.parametrize(
    ("kind", "labels", "error"),
    [
        (TaskKind.NER, ["thing", "place"], LabelUnknown),
        (TaskKind.CLASSIFICATION, ["thing", "event"], RequestError),
        (TaskKind.QA, ["what thing"], RequestError),
    ],
)
def test_what_a_tagger_was_not_tuned_for_is_refused(
    kind: TaskKind, labels: list[str], error: type[Exception], tagger: Path
) -> None:
    asked = Request("card", (Question(instruction=Instruction.of("Find it", labels, kind=kind)),))
    with Predictor(tagger) as predictor:
        (found,) = predictor.predict_requests([asked])
    assert isinstance(found, error)


@pytest.mark.parametrize("name", ["tagger", "answerer"])
def test_an_answer_does_not_hang_on_who_reads_beside(
    name: str, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(name)
    question = Question(task="t")
    texts = ["i lost my card", "查询余额", "get a refund " * 30, "my card is stolen"]
    with Predictor(bundle) as predictor:
        if name == "answerer":
            spec = predictor.bundle.tasks.tasks["t"]
            question = Question(instruction=spec.instruction("t", "what thing"))
        requests = [Request(text, (question,)) for text in texts]
        together = predictor.predict_requests(requests)
        for request_, beside in zip(requests, together, strict=True):
            (alone,) = predictor.predict_requests([request_])
            assert isinstance(alone, Prediction)
            assert isinstance(beside, Prediction)
            assert [(s.start, s.end) for s in alone.spans] == [
                (s.start, s.end) for s in beside.spans
            ]
            # float sums over other widths add up in another order
            assert [s.score for s in alone.spans] == pytest.approx(
                [s.score for s in beside.spans], abs=1e-4
            )


def test_a_question_is_answered_from_its_passage(answerer: Path) -> None:
    report = json.loads((answerer.parent / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert report["after"]["t"]["f1"] >= 0.9
    with Predictor(answerer) as predictor:
        found = predictor.predict("查询余额", task="t", instruction="what thing")
        with pytest.raises(LabelMissing, match="none came"):
            predictor.predict("查询余额", task="t")
        with pytest.raises(RequestError, match="does not answer tasks of kind"):
            predictor.predict("查询余额", instruction="which", candidates=["a", "b"])
    (span,) = found.spans[:1]
    assert (span.start, span.end, span.text) == (2, 4, "余额")


def test_an_answer_at_the_end_of_a_long_passage_is_found(answerer: Path) -> None:
    text = "i want my money back " * 30 + "查询余额"
    with Predictor(answerer) as predictor:
        found = predictor.predict(text, task="t", instruction="what thing", top_k=100)
    assert (len(text) - 2, len(text)) in {(span.start, span.end) for span in found.spans}
    assert all(span.text == text[span.start : span.end] for span in found.spans)
    assert found.n_tokens > 150  # the question stands in each of several windows


def test_the_head_of_a_base_that_knows_the_types_is_kept(tiny_base: Path, tmp_path: Path) -> None:
    own = write_tagger(tmp_path / "hub", tiny_base)
    kept = build_checkpoint(
        str(own), kind="token-classification", work=tmp_path / "a", labels=["thing", "event"]
    )
    fresh = build_checkpoint(
        str(own), kind="token-classification", work=tmp_path / "b", labels=["thing", "date"]
    )
    assert kept.section.labels == BIOES
    assert fresh.section.labels == ("O", "B-thing", "I-thing", "B-date", "I-date")
    torch.testing.assert_close(
        kept.model.state_dict()["classifier.weight"],
        build_checkpoint(
            str(own), kind="token-classification", work=tmp_path / "c", labels=["place"]
        ).model.state_dict()["classifier.weight"],
    )


def test_a_tagger_from_a_hub_is_served_untuned_as_transformers_reads_it(
    tiny_base: Path, tmp_path: Path
) -> None:
    own = write_tagger(tmp_path / "hub", tiny_base, ("O", "thing", "event"))
    root = write_rows(tmp_path / "data", "ner")
    recipe = recipe_of(own, *NER, epochs=0)
    train(recipe, tmp_path / "run", data_root=root, is_quiet=True)
    tasks = tmp_path / "run" / "tasks.toml"
    lines = tasks.read_text(encoding="utf-8").splitlines()
    tasks.write_text(
        "\n".join("threshold = 0.0" if s.startswith("threshold =") else s for s in lines), "utf-8"
    )
    bundle = export_run(tmp_path / "run", tmp_path / "bundle", precision="fp32").out
    theirs = pipeline("token-classification", str(own), aggregation_strategy="none")
    found_any = False
    with Predictor(bundle) as predictor:
        for text in ("i lost my card", "查询余额 please", "get a refund, my card is stolen"):
            tokens = {(t["start"], t["entity"]) for t in theirs(text) if t["entity"] != "O"}
            spans = predictor.predict(text).spans
            ours = {
                (place, span.label)
                for span in spans
                for place in range(span.start, span.end)
                if place in {start for start, _ in tokens}
            }
            assert ours == tokens  # whole words of the tiny vocabulary are one token each
            found_any |= bool(spans)
    assert found_any


def test_an_answerer_from_a_hub_scores_as_transformers_does(
    tiny_base: Path, tmp_path: Path
) -> None:
    own = write_answerer(tmp_path / "hub", tiny_base)
    checkpoint = build_checkpoint(str(own), kind="question-answering", work=tmp_path / "a")
    question, text = "what card", "i lost my card, 查询余额"
    (window,) = checkpoint.open_tokenizer().encode_windows(text, second=question)
    theirs = AutoTokenizer.from_pretrained(own)(question, text, return_tensors="pt")
    assert window.ids == theirs["input_ids"][0].tolist()
    assert next(o for o in window.offsets if o[1]) == (0, 1)
    with torch.no_grad():
        wanted = BertForQuestionAnswering.from_pretrained(own).eval()(**theirs)
        ids = torch.tensor([[*window.ids, 0, 0]])
        found = checkpoint.model.eval()(
            input_ids=ids, attention_mask=torch.tensor([[1] * len(window.ids) + [0, 0]])
        ).logits[0, : len(window.ids)]
    np.testing.assert_allclose(found[:, 0], wanted.start_logits[0], atol=1e-5)  # float32 sums
    np.testing.assert_allclose(found[:, 1], wanted.end_logits[0], atol=1e-5)


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
@pytest.mark.parametrize(
    ("kinds", "head"),
    [(NER, "AutoModelForTokenClassification"), (QA, "AutoModelForQuestionAnswering")],
)
def test_other_architectures_answer_as_their_checkpoints(
    kinds: tuple[str, str], head: str, family: str, tiny_base: Path, tmp_path: Path
) -> None:
    own = write_family(tmp_path / "hub", tiny_base, family, head)
    root = write_rows(tmp_path / "data", kinds[1])
    train(recipe_of(own, *kinds, epochs=0), tmp_path / "run", data_root=root, is_quiet=True)
    section = load_checkpoint(tmp_path / "run" / "checkpoint").section
    assert section.labels == (BIOES if kinds is NER else ())
    assert section.separator_id == -1
    report = export_run(tmp_path / "run", tmp_path / "bundle", precision="fp32")
    assert report.parity.n_texts > 0


@pytest.mark.parametrize("name", ["tagger", "answerer"])
def test_golden_rows_and_the_verbs_know_a_head(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(name)
    assert (bundle / "golden.jsonl").read_text(encoding="utf-8").strip()
    data = bundle.parent / "data" / "rows.jsonl"
    asked = ["--instruction", "what thing"] if name == "answerer" else []

    def verb(*words: str) -> str:
        found = CliRunner().invoke(app, list(words))
        assert found.exit_code == 0, found.output
        return found.stdout

    verb("bundle", "verify", str(bundle))
    answer = json.loads(
        verb("predict", str(bundle), "查询余额", *asked, "--task", "t", "--json").splitlines()[0]
    )
    assert answer["spans"][0]["text"] == "余额"
    figures = json.loads(verb("evaluate", str(bundle), "--data", str(data), "--json"))
    assert figures["f1" if name == "answerer" else "entity_f1"] >= 0.9


@pytest.mark.parametrize("name", ["tagger", "answerer"])
def test_int8_agrees_with_its_checkpoint(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name).parent / "run"
    report = export_run(run, tmp_path / "int8", precision="int8")
    assert report.parity.agreement >= 0.95
    assert report.n_golden > 0


@pytest.mark.parametrize(
    ("kinds", "fault"),
    [
        (("token-classification", "qa"), "answers ner alone"),
        (("question-answering", "ner"), "answers qa alone"),
        (("sequence-classification", "ner"), "take a model of kind token-classification"),
        (("sequence-classification", "qa"), "take a model of kind question-answering"),
    ],
)
def test_a_head_and_a_task_that_do_not_fit_are_told_apart(
    kinds: tuple[str, str], fault: str
) -> None:
    with pytest.raises(ValidationError, match=fault):
        recipe_of(Path("base"), *kinds)


def test_types_that_the_head_does_not_have_are_named_before_export(
    tagger: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoint").parent.mkdir()
    (run / "checkpoint").symlink_to(tagger.parent / "run" / "checkpoint")
    tasks: dict[str, Any] = {"kind": "ner", "labels": ["thing", "place"]}
    (run / "tasks.toml").write_text(
        f'[tasks.t]\nkind = "{tasks["kind"]}"\nlabels = {json.dumps(tasks["labels"])}\n'
        'instructions = {en = ["Find it"]}\n',
        "utf-8",
    )
    with pytest.raises(ConfigError, match="'place' first"):
        export_run(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("tasks", "fault"),
    [
        (
            '[tasks.t]\nkind = "ner"\nlabels = ["place"]\ninstructions = {en = ["Find"]}\n',
            "2 types",
        ),
        ('[tasks.t]\nkind = "qa"\ninstructions = {en = ["Answer"]}\n', "one task, with labels"),
    ],
)
def test_a_bundle_whose_task_is_not_its_heads_is_not_opened(
    tasks: str, fault: str, tagger: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tagger, bundle)
    (bundle / "tasks.toml").write_text(tasks, encoding="utf-8")
    (bundle / "golden.jsonl").write_text("", encoding="utf-8")
    seal(bundle)
    with pytest.raises(BundleError, match=fault):
        Predictor(bundle)


def test_a_head_with_other_logits_than_its_tags_is_told_when_it_is_asked(
    tagger: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tagger, bundle)
    raw = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    seal(bundle, model=raw["model"] | {"tags": [*raw["model"]["tags"], "B-place"]})
    with Predictor(bundle) as predictor, pytest.raises(BundleError, match="5 logits, wanted 6"):
        predictor.predict("i lost my card")

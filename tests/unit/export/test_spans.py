"""Tasks of spans leave as a bundle and answer as their checkpoint does, whoever reads beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from instructrec_deploy.cli.main import app
from instructrec_deploy.core.bundle import READER_FILE, open_bundle
from instructrec_deploy.core.errors import (
    ConfigError,
    GoldenFailed,
    LabelMissing,
    RequestError,
    TaskUnknown,
    TextTooLong,
    TooManyLabels,
)
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.manifest import Precision
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.parity import LIMITS
from instructrec_deploy.export.run import ExportReport, export_run
from instructrec_deploy.runtime.golden import check_golden, read_golden
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.prepared import MAX_TYPES
from tests.tiny import TASKS_TOML, seal
from tests.unit.export.conftest import write_tiny_run

TASKS = (
    TASKS_TOML
    + """
[tasks.things]
kind = "ner"
labels = ["card", "余额", "event"]
threshold = 0.2
[tasks.things.descriptions]
event = "what happened: stolen, lost"
[tasks.things.instructions]
en = ["Find the things"]
zh = ["找出东西"]

[tasks.reading]
kind = "qa"
[tasks.reading.instructions]
en = ["Answer the question"]
"""
)
LONG = "I lost my card and my 余额 is bad. " * 12  # several windows of the tiny model


@pytest.fixture(scope="module", params=["fp32", "int8", "joint questions"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ExportReport:
    folder = tmp_path_factory.mktemp("spans")
    is_joint = request.param == "joint questions"
    run = write_tiny_run(folder / "run", tasks=TASKS, reader_layers=1, joint_questions=is_joint)
    lines = [
        {"text": LONG, "task": "things"},
        {"text": "card stolen", "task": "things"},
        {"text": LONG, "task": "reading", "question": "what is bad"},
        {"text": "refund my card", "task": "reading", "question": "what card"},
    ]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (run / "samples.jsonl").write_text(text, encoding="utf-8")
    precision: Precision = "int8" if request.param == "int8" else "fp32"
    # random weights are no peer of tuned ones in int8: what is asked here is that it runs the same
    limits = LIMITS["fp32"] if precision == "fp32" else LOOSE
    return export_run(run, folder / "bundle", precision=precision, limits=limits)


LOOSE = type(LIMITS["int8"])(0.6, 0.3, 0.3, 1e-3)


@pytest.fixture(scope="module")
def predictor(exported: ExportReport) -> Iterator[Predictor]:
    with Predictor(exported.out) as opened:
        yield opened


def spans_of(prediction: Prediction) -> list[tuple[int, int, str]]:
    return [(span.start, span.end, span.label) for span in prediction.spans]


def test_the_bundle_has_a_reader_and_golden_spans(exported: ExportReport) -> None:
    bundle = open_bundle(exported.out)
    assert bundle.has(READER_FILE)
    assert bundle.manifest.model.has_reader
    rows = [row for row in read_golden(bundle) if row.spans is not None]
    tasks = [row.request.questions[0].task for row in rows]
    assert {"things"} <= set(tasks) <= {"things", "reading"}
    assert all(bool(row.question) == (t == "reading") for row, t in zip(rows, tasks, strict=True))


def test_spans_are_words_of_the_text_with_a_type(predictor: Predictor) -> None:
    text = "please, my card stolen; 请问余额"
    found = predictor.predict(text, task="things")
    assert found.spans
    for span in found.spans:
        assert text[span.start : span.end] == span.text
        assert span.label in ("card", "余额", "event")
        assert span.score >= 0.2
    assert found.label == max(found.spans, key=lambda span: span.score).label
    assert set(found.labels) == {span.label for span in found.spans}


def test_a_long_text_is_read_to_its_end(predictor: Predictor) -> None:
    found = predictor.predict(LONG, task="things")
    assert found.n_tokens > predictor.bundle.manifest.model.max_tokens
    assert not found.truncated
    assert max(span.end for span in found.spans) > len(LONG) // 2


def test_spans_do_not_depend_on_neighbours(predictor: Predictor) -> None:
    things, reading = (
        Question(task="things"),
        Question(instruction=predictor.bundle.instruction("reading", "what is bad")),
    )
    requests = [
        Request("card stolen", (things,)),
        Request(LONG, (things, reading)),
        Request("bad", ()),
        Request("I lost my card", (reading, Question(task="intent"))),
    ]
    requests[2] = Request("bad", (Question(task="intent"),))
    together = predictor.predict_requests(requests)
    alone = [predictor.predict_requests([one])[0] for one in requests]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        for a, b in zip(one.answers, other.answers, strict=True):
            assert (a.label, a.task) == (b.label, b.task)
            assert [(s.start, s.end, s.label) for s in a.spans] == [
                (s.start, s.end, s.label) for s in b.spans
            ]
            scores = [[s.score for s in answer.spans] for answer in (a, b)]
            assert np.allclose(scores[0], scores[1], atol=1e-3)


def test_a_question_is_answered_by_words_of_the_passage(predictor: Predictor) -> None:
    found = predictor.predict("my card stolen", task="reading", instruction="what is stolen?")
    same = predictor.predict("my card stolen", task="reading", candidates=["what is stolen?"])
    assert found.label == same.label
    assert found.abstained or found.label in "my card stolen"
    assert len(found.spans) <= 5


def test_two_questions_about_one_text_answer_as_each_does_alone(predictor: Predictor) -> None:
    bundle = predictor.bundle
    words = ("what is bad?", "谁丢了卡？", "what is bad?")
    asked = [Question(instruction=bundle.instruction("reading", word)) for word in words]
    mixed = [asked[0], Question(task="things"), asked[1], Question(task="intent"), asked[2]]
    (both,) = predictor.predict_requests([Request(LONG, tuple(mixed), text2="get a refund")])
    assert isinstance(both, Prediction)
    for question, answer in zip(mixed, both.answers, strict=True):
        (alone,) = predictor.predict_requests([Request(LONG, (question,), text2="get a refund")])
        assert isinstance(alone, Prediction)
        assert answer.label == alone.label
        assert answer.score == pytest.approx(alone.score, abs=1e-3)
        assert [(s.start, s.end) for s in answer.spans] == [(s.start, s.end) for s in alone.spans]
    windows = predictor.pipeline.tokenizer.encode_windows(LONG)
    n_windows = len(windows) * (4 if bundle.manifest.model.joint_questions else 1)
    assert both.n_tokens > sum(len(w.ids) for w in windows) * n_windows // len(windows)


def test_a_class_and_spans_come_from_one_reading(predictor: Predictor) -> None:
    text = "I lost my card"
    (both,) = predictor.predict_requests(
        [Request(text, (Question(task="intent"), Question(task="things")))]
    )
    assert isinstance(both, Prediction)
    intent, things = both.answers
    apart = predictor.predict(text, task="intent")
    assert intent.label == apart.label
    assert intent.score == pytest.approx(apart.score, abs=1e-3)
    assert not intent.spans
    assert spans_of(predictor.predict(text, task="things")) == [
        (s.start, s.end, s.label) for s in things.spans
    ]


def test_a_pair_is_one_reading_for_its_class_and_another_for_spans(predictor: Predictor) -> None:
    text = "I lost my card"
    questions = (Question(task="intent"), Question(task="things"))
    pair, plain = predictor.predict_requests(
        [Request(text, questions, text2="get a refund"), Request(text, questions[1:])]
    )
    assert isinstance(pair, Prediction)
    assert isinstance(plain, Prediction)
    (alone,) = predictor.predict_requests([Request(text, questions[:1], text2="get a refund")])
    assert isinstance(alone, Prediction)
    assert pair.score == pytest.approx(alone.score, abs=1e-3)
    assert [s.text for s in pair.answers[1].spans] == [s.text for s in plain.spans]


def test_offsets_count_in_the_text_as_sent_where_it_was_masked(predictor: Predictor) -> None:
    text = "write to somebody.else@example.com about my card stolen 余额"
    found = predictor.predict(text, task="things")
    assert found.action == "mask"
    assert found.spans
    mail = text.index("somebody")
    for span in found.spans:
        assert "somebody" not in span.text
        if span.start >= mail + len("somebody.else@example.com") or span.end <= mail:
            assert text[span.start : span.end] == span.text


def test_what_cannot_be_sought_is_refused(predictor: Predictor) -> None:
    with pytest.raises(LabelMissing, match="answers questions"):
        predictor.predict("card", task="reading")
    with pytest.raises(RequestError, match="2 questions in one"):
        predictor.predict("card", task="reading", candidates=["who", "when"])
    with pytest.raises(TooManyLabels):
        predictor.predict("card", task="things", candidates=[f"t{n}" for n in range(MAX_TYPES + 1)])
    wordy = [f"t{n} " + "card " * 20 for n in range(MAX_TYPES)]
    with pytest.raises(TextTooLong, match="what is sought"):
        predictor.predict("card", task="things", candidates=wordy)


def test_types_of_the_callers_own_are_sought(predictor: Predictor) -> None:
    own = Instruction.of("找出东西", ["城市", "card"], kind=TaskKind.NER)
    found = predictor.predict("my card stolen in 北京", instruction=own)
    assert {span.label for span in found.spans} <= {"城市", "card"}


def test_types_of_the_callers_own_have_the_threshold_that_the_tasks_have(
    predictor: Predictor,
) -> None:
    book = predictor.bundle.tasks
    thresholds = [s.threshold for s in book.tasks.values() if s.kind is TaskKind.NER]
    assert book.span_threshold in thresholds
    wanted = Instruction.of("Find them", ["card"], kind=TaskKind.NER)
    prepared = predictor.pipeline.preparer.prepare(wanted, wanted.key)
    assert prepared.span_threshold == book.span_threshold


def test_a_type_without_a_readable_word_breaks_nothing(predictor: Predictor) -> None:
    own = Instruction.of("find", ["\u2060\u200b x"[:2]], kind=TaskKind.NER)
    assert isinstance(predictor.predict("my card", instruction=own), Prediction)


def test_another_span_than_the_golden_one_is_noticed(
    exported: ExportReport, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(exported.out, copy)
    row = {"text": "my card stolen", "task": "things", "label": "card", "labels": ["card"]}
    (copy / "golden.jsonl").write_text(json.dumps(row | {"scores": {}, "spans": [[0, 1, "card"]]}))
    seal(copy)
    with Predictor(copy) as opened, pytest.raises(GoldenFailed, match="another label"):
        check_golden(opened.bundle, opened.pipeline)


def test_a_checkpoint_without_a_reader_is_refused(
    run_maker: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no span reader"):
        export_run(run_maker(tasks=TASKS), tmp_path / "bundle")


def test_rows_of_spans_are_measured_by_the_verb(exported: ExportReport, tmp_path: Path) -> None:
    things = {"task": "ner", "text": "card stolen", "types": ["card"], "target": []}
    reading = {"task": "qa", "text": "my card stolen", "question": "what?", "target": ["my card"]}
    for row, figure in ((things, "entity_f1"), (reading, "exact_match")):
        path = tmp_path / f"{figure}.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8")
        done = CliRunner().invoke(app, ["evaluate", str(exported.out), "-d", str(path), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)[figure] is not None
        assert json.loads(done.output)["n_errors"] == 0


def test_a_question_of_any_kind_is_asked_on_the_command_line(exported: ExportReport) -> None:
    words = ["predict", str(exported.out), "my card stolen in 北京", "--json"]
    own = ["--kind", "ner", "-i", "找出东西", "--candidates", "card，城市"]
    done = CliRunner().invoke(app, [*words, *own])
    assert {span["type"] for span in json.loads(done.output)["spans"]} <= {"card", "城市"}
    done = CliRunner().invoke(app, [*words, "--task", "reading", "-i", "what is stolen?"])
    assert json.loads(done.output)["answers"][0]["task"] == "reading"
    done = CliRunner().invoke(app, [*words, "--kind", "qa", "-i", "what is stolen?"])
    assert json.loads(done.output)["answers"][0]["task"] == "reading"  # the one of that kind
    done = CliRunner().invoke(app, [*words, "--kind", "ranking"])
    assert isinstance(done.exception, TaskUnknown)
    assert "kind ranking" in done.exception.message

"""`instructrec bench --compare`: what it counts, and that variants are told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.cli.benchmark import compare
from instructrec_deploy.cli.benchmark.answers import (
    Answers,
    answer_facts,
    pack_hits,
    right_labels,
    unpack_hits,
)
from instructrec_deploy.cli.benchmark.cells import Cell, make_batches, make_cells
from instructrec_deploy.cli.benchmark.compare import ComparePlan, Measured, measure_start
from instructrec_deploy.cli.benchmark.ratios import throughput_ratio
from instructrec_deploy.cli.benchmark.variant_process import VariantProcess
from instructrec_deploy.cli.benchmark.variant_worker import Worker, serve
from instructrec_deploy.cli.benchmark.variants import STOCK, Variant, list_variants
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.tasks.base import Floats, Ints
from instructrec_deploy.text.tokenizer import TextTokenizer
from tests.tiny import LABELS, tiny_tokenizer
from tests.unit.cli.conftest import Run
from tests.unit.export.conftest import write_tiny_run

FRAME = ([101], [102])
ROWS = [[101, *range(1, n), 102] for n in (9, 3, 14, 5, 7, 2, 11)]


def test_a_ratio_is_the_geometric_mean_over_cells_of_all_phases() -> None:
    one, two = np.ones((3, 2)), np.ones((4, 1))
    found = throughput_ratio([one, two], [one / [2.0, 4.0], two / 8.0])
    assert found.value == pytest.approx(math.exp(math.log(2 * 4 * 8) / 3))
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


def test_a_round_that_is_disturbed_for_both_changes_no_ratio() -> None:
    base = np.array([[1.0], [1.0], [9.0], [1.0], [1.0]])
    assert throughput_ratio([base], [base / 3]).value == pytest.approx(3.0)
    lame = base / 3
    lame[0] *= 50  # one that is disturbed for one alone is outvoted, and widens the interval
    found = throughput_ratio([base], [lame])
    assert found.value == pytest.approx(3.0)
    assert found.low < 1.0 < found.high == pytest.approx(3.0)


def test_a_ratio_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no cell"):
        throughput_ratio([np.ones((3, 0))], [np.ones((3, 0))])


def test_every_batch_size_meets_every_length_and_real_texts() -> None:
    names = [cell.name for cell in make_cells([1, 8], [16, 64])]
    assert names == [
        *("1 x 16", "1 x 64", "8 x 16", "8 x 64"),
        *("1 x mixed", "8 x mixed", "8 x sorted"),
    ]


def test_texts_of_a_fixed_length_are_whole_texts_of_real_tokens() -> None:
    [(ids, mask)] = make_batches(Cell(4, "fixed", 12), ROWS, frame=FRAME, pad_id=0)
    assert ids.shape == mask.shape == (4, 12)
    assert mask.all()
    assert (ids[:, 0] == 101).all()
    assert (ids[:, -1] == 102).all()
    assert not {101, 102} & set(ids[:, 1:-1].flat)


def test_sorted_batches_hold_the_same_tokens_with_less_padding() -> None:
    tokens, padding = {}, {}
    for order in ("mixed", "sorted"):
        batches = make_batches(Cell(8, order), ROWS, frame=FRAME, pad_id=0)
        tokens[order] = sum(int(mask.sum()) for _, mask in batches)
        padding[order] = sum(int((1 - mask).sum()) for _, mask in batches)
    assert tokens["mixed"] == tokens["sorted"]
    assert padding["sorted"] < padding["mixed"] / 2


def answers_of(logits: list[list[float]], batched: list[list[float]] | None = None) -> Answers:
    instruction = Instruction.of("what?", ["a", "b"])
    pair = (np.array(rows, np.float32) for rows in (logits, batched or logits))
    return Answers.of(*pair, instruction)


def test_accuracy_and_what_was_lost_are_counted_row_by_row() -> None:
    reference = answers_of([[2, 0], [2, 0], [0, 2], [0, 2]])
    own = answers_of([[2, 0], [2, 0], [0, 2], [1, 0]])
    facts = answer_facts(own, reference, ["a", "b", "b", "b"])
    assert facts["accuracy"] == 0.5
    assert facts["loss_points"] == 25.0
    assert facts["same_label"] == 0.75
    assert facts["moved_max"] == pytest.approx(1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(2)), 1e-4)
    assert unpack_hits(facts["hits"], 4) == [True, False, True, False]


def test_a_label_that_changes_in_company_is_counted_and_a_tie_is_not() -> None:
    alone = [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]
    facts = answer_facts(
        answers_of(alone, [[0.9, 0.0], [0.0, 1.0], [0.5, 0.5 + 1e-7]]), answers_of(alone), []
    )
    assert facts["n_other_in_batch"] == 1
    assert facts["batch_moved_max"] > 0.4
    assert "accuracy" not in facts  # the right labels are not known


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_hits_come_back_as_they_were(hits: list[bool]) -> None:
    assert unpack_hits(pack_hits(hits), len(hits)) == hits


def test_rows_of_another_task_are_refused() -> None:
    instruction = Instruction.of("what?", ["a", "b"])
    with pytest.raises(ConfigError, match="no row has a label"):
        right_labels([Example("x", "c"), Example("y", "d")], instruction)


class SlowRunner:
    """A variant whose every call takes a second of a clock of its own."""

    labels = ("a", "b")
    pad_id = 0

    def __init__(self, folder: Path) -> None:
        tiny_tokenizer().save(str(folder / "tokenizer.json"))
        self.tokenizer = TextTokenizer(folder / "tokenizer.json", max_tokens=32)
        self.now = 0.0
        self.n_calls = 0

    def logits(self, ids: Ints, mask: Ints) -> Floats:
        self.now += 1.0
        self.n_calls += 1
        return np.stack([mask.sum(axis=1), ids.max(axis=1)], axis=1).astype(np.float32)


@pytest.fixture
def slow(tmp_path: Path) -> tuple[SlowRunner, Worker]:
    runner = SlowRunner(tmp_path)
    worker = Worker(runner, clock=lambda: runner.now, cpu_clock=lambda: 2 * runner.now)
    cells = [{"batch": 2, "order": "fixed", "length": 8}]
    worker.load([["i lost my card", "", []], ["余额", "", []], ["refund", "", []]], cells)
    return runner, worker


def test_a_cell_is_measured_for_so_long_after_a_pass_that_is_not_counted(
    slow: tuple[SlowRunner, Worker],
) -> None:
    runner, worker = slow
    assert worker.measure(0, 3.0) == {"pass_s": 1.0, "cpu_s": 2.0}
    assert runner.n_calls == 1 + 3
    worker.measure(0, 0.5)  # longer than the time: warmed up before, measured once
    assert runner.n_calls == 1 + 3 + 1


def test_logits_of_batches_are_those_of_each_text(
    slow: tuple[SlowRunner, Worker], tmp_path: Path
) -> None:
    runner, worker = slow
    worker.write_logits(1, str(tmp_path / "alone.npy"))
    worker.write_logits(2, str(tmp_path / "batched.npy"))
    alone, batched = np.load(tmp_path / "alone.npy"), np.load(tmp_path / "batched.npy")
    assert alone.shape == (3, 2)
    np.testing.assert_array_equal(alone, batched)
    assert runner.n_calls == 3 + 2


def test_the_worker_tells_why_a_variant_cannot_be_opened() -> None:
    opening = {"engine": "onnxruntime", "folder": "gone", "task": "", "n_threads": 1}
    lines: Iterator[str] = iter([json.dumps(opening | {"settings": {}})])
    said: list[Mapping[str, Any]] = []
    serve(lambda: next(lines), said.append)
    assert said[0]["error"]["code"] == FileMissing.code


def test_a_bundle_in_floats_brings_the_stock_int8(tiny_bundle: Path, tmp_path: Path) -> None:
    variants = list_variants([tiny_bundle], work=tmp_path)
    assert (variants[0].model, variants[0].precision) == (STOCK, "int8")
    assert len({variant.name for variant in variants}) == len(variants)
    stock = open_bundle(variants[0].folder)  # sizes and hashes are checked
    assert stock.manifest.model.precision == "int8"
    assert variants[0].size_bytes < variants[1].size_bytes
    assert open_bundle(tiny_bundle).manifest.model.precision == "fp32"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_pytorch_in_bf16_is_measured_where_the_processor_has_it(
    has_bf16: bool, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instructrec_deploy.models import arithmetic

    monkeypatch.setattr(arithmetic, "has_bf16", lambda: has_bf16)
    run = write_tiny_run(tmp_path / "run")
    found = list_variants([tiny_bundle], checkpoint=run, work=tmp_path)
    precisions = [one.precision for one in found if one.engine == "pytorch"]
    assert precisions == (["fp32", "bf16"] if has_bf16 else ["fp32"])


def test_two_bundles_of_one_name_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same folder name"):
        list_variants([tiny_bundle, tiny_bundle], work=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lengths", "16,x"], "--lengths takes different whole numbers"),
        (["--batches", "0"], "--batches takes"),
        (["--threads", "1,1"], "--threads takes"),
        (["--rounds", "1"], "--rounds 1: intervals come from what rounds differ by"),
        (["--set", "server.port=1"], "does not take the setting server"),
        (["--set", "engine.n_lanes=2"], "does not take the setting n_lanes"),
        (["--set", "engine.use_spinning=perhaps"], "engine.use_spinning"),
    ],
)
def test_options_that_cannot_be_are_refused(
    run: Run, tiny_bundle: Path, options: list[str], words: str
) -> None:
    done = run("bench", tiny_bundle, "--compare", *options)
    assert done.code == 2
    assert words in done.err


def test_a_comparison_that_is_refused_leaves_no_file(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures" / "cmp.json"
    assert run("bench", tiny_bundle, "--compare", "--batches", "0", "--out", out).code == 2
    assert not list(out.parent.iterdir())


def test_what_only_a_comparison_knows_is_refused_without_one(run: Run, tiny_bundle: Path) -> None:
    done = run("bench", tiny_bundle, "--against", "earlier.json", "--plot")
    assert done.code == 2
    assert "--against, --plot: of use with --compare alone" in done.err


def test_a_variant_answers_from_a_process_of_its_own(tiny_bundle: Path, tmp_path: Path) -> None:
    variant = Variant("tiny", "onnxruntime", "fp32", str(tiny_bundle), 1)
    with VariantProcess(
        variant, 1, task="intent", settings={}, log=tmp_path / "variants.log"
    ) as process:
        assert process.labels == LABELS
        assert process.start_s > 0
        process.load([], [Cell(2, "fixed", 8)])
        assert process.measure(0, 0.0).pass_s > 0
        assert process.peak_mb() >= process.memory_mb() > 10
    with pytest.raises(FileMissing):
        VariantProcess(
            Variant("gone", "onnxruntime", "fp32", str(tmp_path / "gone"), 1),
            1,
            settings={},
            log=tmp_path / "variants.log",
        )


def test_a_variant_with_another_window_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    variant = Variant("tiny", "onnxruntime", "fp32", str(tiny_bundle), 1)
    instruction = open_bundle(tiny_bundle).instruction("intent")
    window = open_bundle(tiny_bundle).manifest.model.max_tokens
    plan = ComparePlan([variant], instruction, [], [], max_tokens=window + 1)
    with pytest.raises(ConfigError, match=f"reads {window} tokens of a text"):
        measure_start(plan, variant, Measured(), tmp_path)


@pytest.mark.slow
def test_a_comparison_from_the_command_line(
    run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "SETTLE_S", 0.0)
    rows = [("i lost my card", "card lost"), ("refund it please", "refund"), ("查余额", "余额")]
    data = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "target": label}) for text, label in rows]
    data.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "figures.json"
    options = ["--data", data, "--out", out, "--rounds", 2, "--cold-starts", 1, "--json"]
    sizes = ["--seconds", "0.01", "--threads", "1", "--batches", "2", "--lengths", "8,512"]
    done = run("bench", tiny_bundle, "--compare", *options, *sizes)
    assert done.code == 0, done.err
    [told] = done.rows
    assert told == json.loads(out.read_text(encoding="utf-8"))
    names = [one["name"] for one in told["variants"]]
    assert told["baseline"] == names[0] == f"{STOCK}, ONNX Runtime int8"
    assert told["reference"] == names[1] == f"{tiny_bundle.name}, ONNX Runtime fp32"
    stock, floats = told["variants"][:2]
    assert stock["speed"]["fixed"] == {"ratio": 1.0, "interval": [1.0, 1.0]}
    assert floats["answers"]["same_label"] == 1.0
    assert floats["answers"]["loss_points"] == 0.0
    cells = ["2 x 8", "2 x mixed", "2 x sorted"]  # 512 tokens are longer than its window
    assert [cell["cell"] for cell in floats["cells"]] == cells
    assert all(len(cell["pass_ms"]) == 2 for cell in floats["cells"])
    table = out.with_suffix(".md").read_text(encoding="utf-8")
    assert all(name in table for name in names)
    assert "我" not in table  # nobody's text


@pytest.mark.parametrize("labels", [(), LABELS], ids=["instruction-encoder", "head"])
def test_pytorch_scores_as_the_checkpoint_does_and_bf16_nearly(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    from instructrec_deploy.cli.benchmark.torch_runner import TorchRunner
    from instructrec_deploy.core.request import Request
    from instructrec_deploy.export.reference import Reference
    from instructrec_deploy.export.source import read_run
    from instructrec_deploy.runtime.engine import pad_rows

    run = write_tiny_run(tmp_path / "run", labels=labels)
    texts = ["I lost my card", "请问余额是什么"]
    source = read_run(run)
    requests = [Request(text) for text in texts]
    truth = Reference(source.checkpoint).logits("intent", source.book.tasks["intent"], requests)
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 0.5)):  # of logits of up to 20
        runner = TorchRunner(run, "", precision=precision, n_threads=1)
        assert runner.labels == LABELS
        rows = [one.ids for one in runner.tokenizer.encode_texts(texts)]
        logits = runner.logits(*pad_rows(rows, runner.pad_id))
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, truth, atol=tolerance)

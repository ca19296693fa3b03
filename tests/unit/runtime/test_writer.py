"""Writing with a bundle: what comes back, what is refused, and that other machines notice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from instructrec_deploy.core.bundle import GOLDEN_FILE, hash_file, open_bundle
from instructrec_deploy.core.errors import (
    BundleError,
    GoldenFailed,
    RequestError,
    TextEmpty,
    TextTooLong,
)
from instructrec_deploy.export.generator_run import export_generator
from instructrec_deploy.runtime.beams import BeamSearch
from instructrec_deploy.runtime.decoding import Decoder
from instructrec_deploy.runtime.golden_texts import check_golden_texts
from instructrec_deploy.runtime.writer import Writer, WriterSettings
from tests.tiny_generators import POSITIONS, write_generator

TEXTS = ["I lost my card", "请问余额是什么 😊", "x"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a random GPT-2 over bytes."""
    root = tmp_path_factory.mktemp("writer")
    write_generator(root / "gpt2", "gpt2")
    return export_generator(root / "gpt2", root / "bundle", kind="causal").out


def test_texts_are_written_alike_alone_and_in_company(bundle: Path) -> None:
    settings = WriterSettings(max_new_tokens=8)
    with Writer(bundle) as writer:
        together = writer.write(TEXTS, settings)
        assert [writer.write([text], settings)[0] for text in TEXTS] == together
        assert all(len(one.ids) == 8 or one.is_stopped for one in together)
        assert [writer.tokenizer.decode(one.ids) for one in together] == [
            one.text for one in together
        ]
        assert writer.write([], settings) == []


def test_a_decoded_text_is_the_one_that_was_read(bundle: Path) -> None:
    with Writer(bundle) as writer:
        for text in (*TEXTS, "ＩＤ卡 mixed 宽"):
            ids = writer.tokenizer.encode_texts([text], use_offsets=False)[0].ids
            assert writer.tokenizer.decode(ids) == text


def test_what_cannot_be_written_is_refused(bundle: Path) -> None:
    with Writer(bundle) as writer:
        with pytest.raises(TextEmpty):
            writer.write([""])
        with pytest.raises(TextTooLong, match=f"{POSITIONS} positions"):
            writer.write(["x" * POSITIONS], WriterSettings(max_new_tokens=1))
        with pytest.raises(TextTooLong):
            writer.write(["x"], WriterSettings(max_new_tokens=POSITIONS))
    for wrong in ({"n_beams": 0}, {"n_beams": 1000}, {"max_new_tokens": 0}):
        with pytest.raises(RequestError):
            WriterSettings(**wrong)


def test_a_bundle_that_gives_labels_writes_nothing(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="writes no text"):
        Decoder(open_bundle(tiny_bundle))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"log_probabilities": [-0.5] * 5}, GoldenFailed, "line 1: a log probability"),
        ({"ids": [10**6] * 5}, BundleError, "line 1: not a golden pair"),
        ({"ids": []}, BundleError, "line 1: not a golden pair"),
    ],
)
def test_golden_tokens_that_are_as_likely_no_more_are_noticed(
    bundle: Path, change: dict[str, object], error: type[Exception], words: str
) -> None:
    golden, manifest = bundle / GOLDEN_FILE, bundle / "bundle.json"
    kept = golden.read_bytes(), manifest.read_bytes()
    try:
        lines = golden.read_text("utf-8").splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | change)
        golden.write_text("\n".join(lines), "utf-8")
        raw = json.loads(kept[1])
        raw["files"][GOLDEN_FILE] = {
            "size_bytes": golden.stat().st_size,
            "sha256": hash_file(golden),
        }
        manifest.write_text(json.dumps(raw))
        opened = open_bundle(bundle)
        with Writer(opened) as writer, pytest.raises(error, match=words) as told:
            check_golden_texts(opened, writer)
        assert "lost my card" not in str(told.value)
    finally:
        golden.write_bytes(kept[0])
        manifest.write_bytes(kept[1])


def test_beams_keep_what_ended_and_stop_when_nothing_better_can_come() -> None:
    search = BeamSearch(2, stop_ids=[0], max_new_tokens=9)
    first = np.log(np.array([[0.1, 0.6, 0.3], [0.1, 0.6, 0.3]], np.float32))
    move = search.advance(first)  # the second beam is not there yet
    assert move is not None
    assert (move.parents, move.tokens) == ([0, 0], [1, 2])
    second = np.log(np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]], np.float32))
    assert search.advance(second) is None  # both end; whatever runs on is worse already
    assert search.best.ids == (1, 0)
    assert search.best.score == pytest.approx(np.log(0.6 * 0.9) / 2, abs=1e-6)


def test_beams_end_with_the_room() -> None:
    search = BeamSearch(2, stop_ids=[], max_new_tokens=1)
    assert search.advance(np.log(np.full((2, 4), 0.25, np.float32))) is None
    assert len(search.best.ids) == 1

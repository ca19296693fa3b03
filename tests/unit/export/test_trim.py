"""A trimmed vocabulary reads its corpus as before and says what others lose."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.export.run import export_run
from instructrec_deploy.export.trim import Trimming, corpus_texts, trim_checkpoint
from instructrec_deploy.export.vocabulary import (
    choose_pieces,
    cut_tokenizer,
    pieces_of,
    read_tokenizer,
)
from instructrec_deploy.models.presets import PRESETS, is_complete, models_home
from instructrec_deploy.runtime.predictor import Predictor
from tests.tiny import LABELS, tiny_tokenizer
from tests.unit.export.conftest import tiny_checkpoint

CORPUS = ["i lost my card", "get a refund 😊", "请问余额是什么", "[SEP] card </s>", "ＩＤ card"]


def unigram(pieces: dict[str, float]) -> dict[str, Any]:
    """A tokenizer.json as e5's: a Unigram vocabulary behind four control tokens."""
    control = ["<s>", "<pad>", "</s>", "<unk>"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, token in enumerate(control)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": True,
        },
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[token, 0.0] for token in control] + [list(p) for p in pieces.items()],
            "byte_fallback": False,
        },
    }


def read(raw: dict[str, Any], text: str) -> list[str]:
    """The pieces of a text."""
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tokenizer.encode_special_tokens = True
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


def counted(raw: dict[str, Any], texts: list[str]) -> Counter[int]:
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tokenizer.encode_special_tokens = True
    found: Counter[int] = Counter()
    for text in texts:
        found.update(tokenizer.encode(text, add_special_tokens=False).ids)
    return found


@given(st.lists(st.text("abcd 电话é", min_size=1, max_size=12), min_size=1, max_size=6), st.data())
def test_unigram_reads_every_kept_text_as_before(texts: list[str], data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 999)))
    words = {
        "".join(rng.choice("▁abcd电话") for _ in range(rng.randint(1, 4))): -rng.uniform(1, 15)
        for _ in range(40)
    }
    raw = unigram(words)
    cut = cut_tokenizer(raw, choose_pieces(raw, counted(raw, texts)))
    assert [read(cut, text) for text in texts] == [read(raw, text) for text in texts]


@given(st.lists(st.text("abcdlostcard 我的卡丢é😊[]", min_size=1), min_size=1, max_size=6))
def test_wordpiece_reads_every_kept_text_as_before(texts: list[str]) -> None:
    raw = json.loads(tiny_tokenizer().to_str())
    cut = cut_tokenizer(raw, choose_pieces(raw, counted(raw, texts)))
    assert [read(cut, text) for text in texts] == [read(raw, text) for text in texts]


def test_the_unlikeliest_piece_stays_so_that_unknown_characters_cost_as_much_as_before() -> None:
    raw = unigram({"▁ab": -3.0, "▁": -4.0, "a": -5.0, "b": -5.0, "电话": -30.0})
    cut = cut_tokenizer(raw, choose_pieces(raw, counted(raw, ["ab"])))
    assert ["电话", -30.0] in cut["model"]["vocab"]


def test_single_characters_of_the_scripts_of_the_corpus_stay_and_others_go() -> None:
    raw = json.loads(tiny_tokenizer().to_str())
    english = set(
        pieces_of(cut_tokenizer(raw, choose_pieces(raw, counted(raw, ["refund"])))).values()
    )
    assert {"refund", "z", "##z", "!", "[CLS]"} <= english
    assert not {"card", "卡"} & english
    both = choose_pieces(raw, counted(raw, ["refund 卡"]))
    assert {"卡", "丢"} <= {pieces_of(raw)[i] for i in both}


def test_a_size_is_filled_with_the_first_pieces_of_the_vocabulary() -> None:
    raw = json.loads(tiny_tokenizer().to_str())
    used = counted(raw, ["refund"])
    least = choose_pieces(raw, used)
    more = choose_pieces(raw, used, size=len(least) + 3)
    words = [pieces_of(raw)[i] for i in sorted(set(more) - set(least))]
    assert words == ["my", "the", "is"]  # "i" and "a" are characters, kept already


def test_a_size_is_filled_with_pieces_of_each_script_by_its_share() -> None:
    words = {f"▁word{n}x": -1.0 for n in range(20)} | {"电话": -9.0, "银行": -9.5, "查询": -9.6}
    singles = dict.fromkeys("▁wordx0123456789电话银行查询我的余额", -12.0)
    raw = unigram(words | singles)
    used = counted(raw, ["我的余额", "的余额", "余额"])
    least = choose_pieces(raw, used)
    more = set(choose_pieces(raw, used, size=len(least) + 4)) - set(least)
    added = {pieces_of(raw)[i] for i in more}
    assert {"电话", "银行", "查询"} <= added
    assert len(added) == 4


def test_a_trimmed_model_computes_the_same_for_kept_texts(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "made")
    trimmed, report = trim_checkpoint(checkpoint, Trimming(CORPUS), ["card lost:"], work=tmp_path)
    old, new = checkpoint.open_tokenizer(), trimmed.open_tokenizer()
    assert report.n_after == new.n_vocabulary < report.n_before == old.n_vocabulary
    assert trimmed.n_parameters < checkpoint.n_parameters
    for text in CORPUS:
        states = [
            c.model.encode(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))[1]
            for c, ids in (
                (checkpoint, old.encode_texts([text])[0].ids),
                (trimmed, new.encode_texts([text])[0].ids),
            )
        ]
        torch.testing.assert_close(*states, rtol=0.0, atol=0.0)


def test_a_bundle_of_a_trimmed_run_answers_its_checkpoint_and_says_what_was_cut(
    run_maker: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = [f"i lost my card {n}" for n in range(300)]
    out = tmp_path / "bundle"
    report = export_run(run_maker(), out, precision="fp32", trimming=Trimming(corpus))
    assert report.parity.max_difference < 1e-5
    told = json.loads((out / "evaluation.json").read_text("utf-8"))["export"]["vocabulary"]
    assert told["n_after"] < told["n_before"]
    assert told["unseen"]["unknown"] == 0.0
    assert told["unseen"]["unchanged"] == 1.0
    assert "pieces were kept" in (out / "CARD.md").read_text("utf-8")
    assert open_bundle(out).manifest.model.n_parameters == report.n_parameters
    with Predictor(out) as predictor:
        assert predictor.predict("余额", top_k=0).answers[0].label in LABELS


def test_a_span_model_is_trimmed_with_its_separator(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "made", reader_layers=1, joint_questions=True)
    trimmed, _ = trim_checkpoint(checkpoint, Trimming(["card"]), [], work=tmp_path)
    assert trimmed.section.pad_id == 0


def test_a_corpus_has_the_labels_candidates_and_questions_of_its_rows() -> None:
    rows = [
        Example("one", target="label"),
        Example("two", target=["first", "second"], text2="other"),
        Example("passage", target=["answer"], task="qa", extra={"question": "why?"}),
        Example("", target="b", task="ranking", extra={"history": ["a"], "candidates": ["b", "c"]}),
    ]
    texts = corpus_texts(rows)
    assert {"one", "label", "second", "other", "why?", "passage", "a", "b", "c"} <= set(texts)


def test_an_empty_corpus_and_a_bpe_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text"):
        trim_checkpoint(tiny_checkpoint(tmp_path), Trimming([]), [], work=tmp_path)
    (tmp_path / "bpe.json").write_text(json.dumps({"model": {"type": "BPE"}}), "utf-8")
    with pytest.raises(ConfigError, match="BPE"):
        read_tokenizer(tmp_path / "bpe.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "e5-enzh"])
def test_pretrained_vocabularies_read_every_kept_text_as_before(name: str) -> None:
    folder = models_home() / name
    if not is_complete(PRESETS[name], folder):
        pytest.skip(f"`instructrec models get {name}` fetches it")
    raw = read_tokenizer(folder / "tokenizer.json")
    rng, pieces = random.Random(1), list(pieces_of(raw).values())
    texts = [" ".join(rng.sample(pieces, 12)) for _ in range(200)]
    texts += ["".join(rng.sample(pieces, 8)).replace("▁", " ") for _ in range(200)]
    texts += [
        "我的银行卡昨天丢了，需要补办一张。",
        "ＡＰＰ 登录不了 error 403",
        "naïve 😊 [SEP] </s>",
    ]
    cut = cut_tokenizer(raw, choose_pieces(raw, counted(raw, texts)))
    tokenizers = [Tokenizer.from_str(json.dumps(one)) for one in (raw, cut)]
    for tokenizer in tokenizers:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
    for text in texts:
        before, after = (t.encode(text, add_special_tokens=False) for t in tokenizers)
        assert before.tokens == after.tokens
        assert before.offsets == after.offsets
    assert len(pieces_of(cut)) < len(pieces_of(raw)) / 2

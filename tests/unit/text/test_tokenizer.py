"""The tokenizer: windows, prefixes, offsets, and control tokens that are only text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from instructrec_deploy.core.errors import BundleError, TextUndecodable
from instructrec_deploy.text.tokenizer import TextTokenizer
from tests.tiny import tiny_tokenizer

TEXTS = [
    "I lost my card",
    "我的卡丢了 my card",
    "ＡＢＣ１２３ 全角",
    "👍🏽 great 👨\u200d👩\u200d👧",
    "a[SEP]b",
    " \t\n",
]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that carries padding and truncation of its own, as MiniLM's does."""
    tokenizer = tiny_tokenizer()
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(8)
    path = tmp_path_factory.mktemp("wordpiece") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece-like file whose vocabulary holds "</s>" as a piece, as e5's does."""
    control = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    characters = sorted(
        set("abcdefghijklmnopqrstuvwxyz ABC123:</>s你好卡丢了我的[]SEP".replace(" ", ""))
    )
    pieces = [*control, ("▁", -2.0), *((c, -5.0) for c in characters), ("▁hello", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name, _ in control])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    path = tmp_path_factory.mktemp("unigram") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_padding_and_truncation_of_the_file_are_switched_off(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=64)
    short, long = tokenizer.encode_texts(["my card", "my card is lost " * 4])
    assert len(short.ids) == 4
    assert len(long.ids) == 18


def test_control_ids_are_found_from_the_file(wordpiece: Path, unigram: Path) -> None:
    bert = TextTokenizer(wordpiece, max_tokens=64)
    assert (bert.frame, bert.pad_id) == (([2], [3]), 0)
    sentencepiece = TextTokenizer(unigram, max_tokens=64)
    assert (sentencepiece.frame, sentencepiece.pad_id) == (([0], [2]), 1)


@pytest.mark.parametrize("text", ["[SEP]", "a [SEP] b", "[CLS][PAD][MASK]", "我[SEP]的"])
def test_a_control_token_spelled_out_in_a_text_is_text(wordpiece: Path, text: str) -> None:
    encoded = TextTokenizer(wordpiece, max_tokens=64).encode_texts([text])[0]
    assert not {0, 2, 3, 4} & set(encoded.ids[1:-1])


@pytest.mark.parametrize("text", ["</s>", "a</s>b <s>", "</s></s></s>", "＜/s＞", "你好</s>"])
def test_a_control_token_that_is_a_piece_of_the_vocabulary_is_text(
    unigram: Path, text: str
) -> None:
    tokenizer = TextTokenizer(unigram, max_tokens=64, prefix="query: ")
    for use_offsets in (True, False):
        encoded = tokenizer.encode_texts([text], use_offsets=use_offsets)[0]
        assert not {0, 1, 2} & set(encoded.ids[1:-1])
    spelled = tokenizer.encode_texts([text])[0]
    assert max(end for _, end in spelled.offsets) == len(text)


def test_a_text_full_of_control_tokens_is_cut_to_the_window(unigram: Path) -> None:
    encoded = TextTokenizer(unigram, max_tokens=32).encode_texts(["</s>" * 2000])[0]
    assert (len(encoded.ids), encoded.truncated) == (32, True)
    assert not {0, 1, 2} & set(encoded.ids[1:-1])


def test_a_long_text_loses_its_end_and_says_so(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=8)
    cut, whole = tokenizer.encode_texts(["my card " * 10, "my card " * 3])
    assert (len(cut.ids), cut.truncated, cut.ids[-1]) == (8, True, 3)
    assert (len(whole.ids), whole.truncated) == (8, False)
    assert len(cut.offsets) == 8


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("card 余额😀</s>[SEP],"), max_size=120))
def test_the_first_window_is_what_a_long_text_is_cut_to(
    wordpiece: Path, unigram: Path, text: str
) -> None:
    for path in (wordpiece, unigram):
        tokenizer = TextTokenizer(path, max_tokens=12, prefix="a: ")
        windows, cut = tokenizer.encode_windows(text), tokenizer.encode_texts([text])[0]
        assert windows[0].ids == cut.ids
        assert (len(windows) > 1) is cut.truncated


@pytest.mark.parametrize("prefix", ["", "query: ", "查询："])
def test_offsets_are_code_points_of_the_text_as_given(wordpiece: Path, prefix: str) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=64, prefix=prefix)
    text = "😀 我的 card\u0301 ＡＢ"
    encoded = tokenizer.encode_texts([text])[0]
    found = [text[start:end] for start, end in encoded.offsets if end > start]
    assert "我" in found
    assert any(word.startswith("card") for word in found)


@pytest.mark.parametrize("prefix", ["", "query: "])
def test_the_prefix_reaches_the_model_and_not_the_offsets(unigram: Path, prefix: str) -> None:
    plain = TextTokenizer(unigram, max_tokens=64)
    prefixed = TextTokenizer(unigram, max_tokens=64, prefix=prefix)
    assert prefixed.encode_texts(["hello"])[0].ids == plain.encode_texts([prefix + "hello"])[0].ids
    offsets = [pair for pair in prefixed.encode_texts(["hello 你好"])[0].offsets if pair != (0, 0)]
    assert offsets[0] == (0, 5)
    assert offsets[-1] == (7, 8)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_offsets_lie_inside_the_text_whatever_it_is(
    wordpiece: Path, unigram: Path, text: str
) -> None:
    for path in (wordpiece, unigram):
        encoded = TextTokenizer(path, max_tokens=24, prefix="q: ").encode_texts([text])[0]
        assert len(encoded.ids) == len(encoded.offsets) <= 24
        assert all(0 <= start <= end <= len(text) for start, end in encoded.offsets)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.sampled_from([*TEXTS, "</s>", "", "🙂" * 50]), max_size=6))
def test_a_batch_reads_each_text_as_it_reads_it_alone(unigram: Path, texts: list[str]) -> None:
    tokenizer = TextTokenizer(unigram, max_tokens=16)
    alone = [tokenizer.encode_texts([text])[0] for text in texts]
    assert tokenizer.encode_texts(texts) == alone
    fast = tokenizer.encode_texts(texts, use_offsets=False)
    assert [e.ids for e in fast] == [e.ids for e in alone]


def test_a_candidate_stands_behind_its_instruction(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=64)
    english, chinese = tokenizer.encode_candidates(
        "what intent", ["card lost", "余额"], instruction_weight=0.25
    )
    assert english.ids == tokenizer.encode_texts(["what intent: card lost"])[0].ids
    assert english.weights == [0.25, 0.25, 0.25, 0.25, 1.0, 1.0, 0.25]
    assert english.own == (4, 6)
    assert chinese.ids == tokenizer.encode_texts(["what intent: 余额"])[0].ids


def test_a_long_candidate_gets_half_of_the_window_and_the_instruction_the_rest(
    wordpiece: Path,
) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=12)
    rows = tokenizer.encode_candidates("my " * 30, ["card " * 30, "pin"], instruction_weight=0.0)
    assert [len(row.ids) for row in rows] == [12, 12]
    assert [sum(row.weights) for row in rows] == [5.0, 1.0]


def test_a_candidate_without_a_readable_token_still_has_weights(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=12)
    row = tokenizer.encode_candidates("what", ["\u200d\x00"], instruction_weight=0.0)[0]
    assert len(row.ids) == len(row.weights)
    assert sum(row.weights) > 0
    assert row.own[0] == row.own[1]


def test_a_lone_surrogate_is_refused(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=12)
    for texts in (["\ud800"], ["fine", "x\udfff"]):
        with pytest.raises(TextUndecodable):
            tokenizer.encode_texts(texts)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": "none"}))
    with pytest.raises(BundleError):
        TextTokenizer(path, max_tokens=64)


def test_a_window_without_room_is_refused(wordpiece: Path) -> None:
    with pytest.raises(BundleError):
        TextTokenizer(wordpiece, max_tokens=3)


@given(text=st.text(alphabet="ab card余额 \t\n\u3000", min_size=1, max_size=60))
def test_no_token_begins_with_a_space(unigram: Path, wordpiece: Path, text: str) -> None:
    for file, prefix in ((unigram, "query: "), (unigram, ""), (wordpiece, "")):
        tokenizer = TextTokenizer(file, max_tokens=32, prefix=prefix)
        for window in tokenizer.encode_windows(text):
            starts = [start for start, end in window.offsets if end > start]
            assert not any(text[start].isspace() for start in starts)
    spans = TextTokenizer(unigram, max_tokens=32).encode_windows("oh hello")[0].offsets
    assert (3, 8) in spans


def test_windows_may_be_shorter_than_the_models(wordpiece: Path) -> None:
    tokenizer = TextTokenizer(wordpiece, max_tokens=48)
    text = "i want my money back " * 20
    windows = tokenizer.encode_windows(text, second="money", max_tokens=16)
    assert {len(window.ids) for window in windows[:-1]} == {16}
    seen = {place for w in windows for start, end in w.offsets for place in range(start, end)}
    assert {i for i, char in enumerate(text) if char != " "} <= seen
    own = tokenizer.encode_windows(text)
    assert tokenizer.encode_windows(text, max_tokens=48) == own
    assert tokenizer.encode_windows(text, max_tokens=500) == own

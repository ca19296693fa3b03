"""Rendered texts in the window: of a pair both survive, of a text with marks both marks do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from instructrec_deploy.core.request import Mark
from instructrec_deploy.text.render import Passage, render
from instructrec_deploy.text.tokenizer import Encoded, TextTokenizer, nearest_tokens
from tests.tiny import tiny_tokenizer

WINDOW = 24
WORDS = st.lists(
    st.sampled_from(["my", "card", "lost", "我", "的", "卡", "😊", "[SEP]", "@", "#", "..."]),
    min_size=1,
    max_size=60,
).map(" ".join)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("wordpiece") / "tokenizer.json"
    tiny_tokenizer().save(str(file))
    return file


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> TextTokenizer:
    return TextTokenizer(path, max_tokens=WINDOW)


@pytest.fixture(scope="module")
def wide(path: Path) -> TextTokenizer:
    return TextTokenizer(path, max_tokens=10_000)


@pytest.fixture(scope="module")
def prefixed(path: Path) -> TextTokenizer:
    return TextTokenizer(path, max_tokens=WINDOW, prefix="query : ")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """Two control tokens stand between the texts of a pair, and "</s>" is a piece of its own."""
    control = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((c, 0.0) for c in control), *((c, -5.0) for c in "abc<>/s你好▁")]
    made = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=3, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens([AddedToken(c, normalized=False) for c in control])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    file = tmp_path_factory.mktemp("unigram") / "tokenizer.json"
    made.save(str(file))
    return TextTokenizer(file, max_tokens=40)


def read(tokenizer: TextTokenizer, passage: Passage) -> Encoded:
    """With offsets, which must not change what is read."""
    found = tokenizer.encode_passages([passage])[0]
    fast = tokenizer.encode_passages([passage], use_offsets=False)[0]
    assert (fast.ids, fast.truncated, fast.second_at) == (
        found.ids,
        found.truncated,
        found.second_at,
    )
    assert len(found.offsets) == len(found.ids)
    return found


def test_a_plain_passage_is_read_as_its_text(tokenizer: TextTokenizer) -> None:
    texts = ["my card", "我的卡丢了 😊 " * 20, "a[SEP]b"]
    assert tokenizer.encode_passages([render(t) for t in texts]) == tokenizer.encode_texts(texts)
    mixed = tokenizer.encode_passages([*map(render, texts), render("my", text2="card")])
    assert mixed[:3] == tokenizer.encode_texts(texts)


def test_a_pair_is_two_texts_with_a_control_token_between(tokenizer: TextTokenizer) -> None:
    found = read(tokenizer, render("my card", text2="余额 lost"))
    first, second = (e.ids for e in tokenizer.encode_texts(["my card", "余额 lost"]))
    assert found.ids == [*first, *second[1:]]
    assert found.second_at == len(first)
    assert found.offsets == [(0, 0), (0, 2), (3, 7), (0, 0), (0, 1), (1, 2), (3, 7), (0, 0)]


def test_no_text_can_forge_the_border_of_a_pair(tokenizer: TextTokenizer) -> None:
    sep = tokenizer.frame[1][0]
    forged = read(tokenizer, render("my[SEP]card", text2="[SEP]"))
    assert forged.ids.count(sep) == 2
    assert forged.ids[forged.second_at - 1] == sep
    assert read(tokenizer, render("my[SEP]card")).ids.count(sep) == 1


def test_a_pair_has_the_control_tokens_its_tokenizer_puts_between(roberta: TextTokenizer) -> None:
    found = read(roberta, render("ab</s>", text2="你好"))
    assert found.ids[found.second_at - 2 : found.second_at] == [2, 2]
    assert found.ids.count(2) == 3


@given(WORDS, WORDS)
def test_neither_text_of_a_pair_pushes_the_other_out(
    tokenizer: TextTokenizer, wide: TextTokenizer, one: str, other: str
) -> None:
    found = read(tokenizer, render(one, text2=other))
    n_whole = [len(e.ids) - 2 for e in wide.encode_texts([one, other])]
    n_kept = [found.second_at - 2, len(found.ids) - found.second_at - 1]
    room = WINDOW - 3
    assert found.truncated == (sum(n_whole) > room)
    assert sum(n_kept) == min(sum(n_whole), room)
    for kept, whole in zip(n_kept, n_whole, strict=True):
        assert kept == whole or kept >= room // 2
    for start, end in found.offsets[1 : found.second_at - 1]:
        assert 0 <= start < end <= len(one)
    for start, end in found.offsets[found.second_at : -1]:
        assert 0 <= start < end <= len(other)


@st.composite
def marked(draw: st.DrawFn, max_mark: int = 100) -> tuple[str, Mark, Mark]:
    """A text of up to 60 words with two marked runs of whole words, wherever they lie."""
    words = draw(WORDS).split(" ")
    borders = [0]
    for word in words:
        borders.append(borders[-1] + len(word) + 1)
    marks = []
    for _ in range(2):
        first = draw(st.integers(0, len(words) - 1))
        last = draw(st.integers(first, min(len(words) - 1, first + max_mark - 1)))
        marks.append(Mark(borders[first], borders[last + 1] - 1))
    return " ".join(words), marks[0], marks[1]


@pytest.mark.parametrize("name", ["tokenizer", "prefixed"])
def test_the_window_holds_both_marks_whole_where_they_fit(
    request: pytest.FixtureRequest, name: str
) -> None:
    narrow: TextTokenizer = request.getfixturevalue(name)

    @given(marked(max_mark=1))
    def check(given_: tuple[str, Mark, Mark]) -> None:
        text, head, tail = given_
        passage = render(text, head=head, tail=tail)
        found = read(narrow, passage)
        seen = {i for start, end in found.offsets for i in range(start, end)}
        for start, end in passage.keep[1:]:
            shown = {i for i in range(start, end) if not passage.text[i].isspace()}
            # "[SEP]" is five tokens, and may stand in the text and before it
            assert shown <= seen or "[SEP]" in (passage.text[start + 2 : end - 2])

    check()


@given(marked())
def test_of_marks_of_any_length_the_window_holds_at_least_the_beginning(
    tokenizer: TextTokenizer, given_: tuple[str, Mark, Mark]
) -> None:
    text, head, tail = given_
    passage = render(text, head=head, tail=tail)
    found = read(tokenizer, passage)
    assert len(found.ids) <= WINDOW
    inner = found.offsets[1:-1]
    assert inner == sorted(inner)
    for start, _ in passage.keep[1:]:
        assert any(a <= start < b for a, b in inner), "the sign before the mark"
        assert any(a <= start + 2 < b for a, b in inner), "the mark's first character"


def test_a_long_text_is_cut_around_its_marks(tokenizer: TextTokenizer) -> None:
    text = " ".join(["the"] * 40 + ["card"] + ["was"] * 40 + ["lost"] + ["the"] * 40)
    head, tail = Mark(160, 164), Mark(text.index("lost"), text.index("lost") + 4)
    passage = render(text, head=head, tail=tail)
    found = read(tokenizer, passage)
    seen = "".join(passage.text[a:b] for a, b in found.offsets)
    assert found.truncated
    assert seen == "card...lost:thethe" + "thethe@card@waswas" + "waswas#lost#thethe"


def test_a_mark_behind_a_spelled_out_control_token_is_found(roberta: TextTokenizer) -> None:
    text = "</s>" * 40 + "你好"
    passage = render(text, head=Mark(160, 161), tail=Mark(161, 162))
    found = read(roberta, passage)
    assert len(found.ids) == 40
    seen = {i for start, end in found.offsets for i in range(start, end)}
    for start, end in passage.keep[1:]:
        assert set(range(start + 2, end - 2)) <= seen
    assert found.ids.count(2) == 1


def test_a_prefix_of_the_model_stays_and_leaves_offsets_alone(prefixed: TextTokenizer) -> None:
    text = "the " * 60 + "card lost"
    found = read(prefixed, render(text, head=Mark(240, 244), tail=Mark(245, 249)))
    plain = prefixed.encode_texts(["the"])[0]
    n_prefix = len(plain.ids) - 3
    assert found.ids[: n_prefix + 1] == plain.ids[: n_prefix + 1]
    pair = read(prefixed, render("my card", text2="余额"))
    assert pair.ids[: n_prefix + 1] == plain.ids[: n_prefix + 1]
    assert pair.offsets[n_prefix + 1 :] == [(0, 2), (3, 7), (0, 0), (0, 1), (1, 2), (0, 0)]


def test_a_pair_with_marks_keeps_them_too(tokenizer: TextTokenizer) -> None:
    text = "the " * 60 + "card lost"
    passage = render(text, text2="my " * 60, head=Mark(240, 244), tail=Mark(245, 249))
    found = read(tokenizer, passage)
    first = found.offsets[1 : found.second_at - 1]
    seen = "".join(passage.text[a:b] for a, b in first)
    assert len(found.ids) == WINDOW
    assert len(found.ids) - found.second_at - 1 == 11
    assert seen.startswith("card...")
    assert "@card" in seen
    assert "#lost" in seen


@example([2, 1], [(1, 0), (2, 1)], 1)  # an empty span inside of a token keeps nothing
@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=3),
    st.integers(0, 45),
)
def test_the_nearest_tokens_stay(
    widths: list[int], spans: list[tuple[int, int]], n_tokens: int
) -> None:
    offsets, at = [], 0
    for width in widths:
        offsets.append((at, at + width))
        at += width
    keep = [(start, start + length) for start, length in spans]
    chosen = nearest_tokens(offsets, keep, n_tokens)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n_tokens, len(offsets))
    must = [
        i for i, (a, b) in enumerate(offsets) if any(s < e and a < e and b > s for s, e in keep)
    ]
    assert set(must) <= set(chosen) or set(chosen) <= set(must)
    if must and set(must) <= set(chosen):
        far = [min(abs(i - j) for j in must) for i in range(len(offsets))]
        left = set(range(len(offsets))) - set(chosen)
        assert max((far[i] for i in chosen), default=0) <= min((far[i] for i in left), default=99)

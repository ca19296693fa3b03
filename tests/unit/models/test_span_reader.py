"""The span reader: shapes, masks, and that it starts from the encoder's own top layers."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.span_reader import SpanReader, build_span_reader

HIDDEN = 24


def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    return BertModel(config).eval()


def model_with(n_layers: int) -> InstructionEncoder:
    encoder = bert()
    reader = build_span_reader(encoder, n_layers=n_layers)
    return InstructionEncoder(encoder, hidden_size=HIDDEN, n_heads=2, reader=reader).eval()


def inputs(n_memory: int = 3, n_candidates: int = 4) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    memory, vectors = torch.randn(1, n_memory, HIDDEN), torch.randn(1, n_candidates, HIDDEN)
    return memory, torch.ones(1, n_memory, dtype=torch.int64), vectors


def test_without_a_memory_the_joint_layers_are_the_encoders_own() -> None:
    model = model_with(2)
    reader = model.reader
    assert reader is not None
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    mask = torch.ones_like(ids)
    states, _, lower = model.encode_levels(ids, mask)
    closed = torch.full((1, 1, 1, 1), -1e4)  # a memory that nothing may look at
    for layer in reader.layers:
        lower = layer(lower, torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, HIDDEN), closed)
    assert torch.allclose(lower, states, atol=1e-5)


def test_padding_changes_no_score() -> None:
    model = model_with(1)
    assert model.reader is not None
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 4, 3]])
    mask = (ids != 0).long()
    memory, memory_mask, vectors = inputs()
    both = model.reader(model.encode_levels(ids, mask)[2], mask, memory, memory_mask, vectors)
    alone_ids, alone_mask = ids[:1, :4], mask[:1, :4]
    lower = model.encode_levels(alone_ids, alone_mask)[2]
    alone = model.reader(lower, alone_mask, memory, memory_mask, vectors)
    assert both.shape == (2, 6, 4, 3)
    assert torch.allclose(both[0, :4], alone[0], atol=1e-5)


def test_padding_of_a_memory_changes_no_score() -> None:
    reader = SpanReader(HIDDEN, n_heads=2, n_layers=1, inner_size=48, norm_eps=1e-12).eval()
    lower, mask = torch.randn(2, 5, HIDDEN), torch.ones(2, 5, dtype=torch.int64)
    memory, memory_mask, vectors = inputs()
    wider = torch.cat([memory, torch.randn(1, 2, HIDDEN)], dim=1)
    wider_mask = torch.cat([memory_mask, torch.zeros(1, 2, dtype=torch.int64)], dim=1)
    short = reader(lower, mask, memory, memory_mask, vectors)
    assert torch.allclose(short, reader(lower, mask, wider, wider_mask, vectors), atol=1e-5)


def test_one_memory_serves_all_texts_and_each_may_have_its_own() -> None:
    reader = SpanReader(HIDDEN, n_heads=2, n_layers=2, inner_size=48, norm_eps=1e-12).eval()
    lower, mask = torch.randn(2, 5, HIDDEN), torch.ones(2, 5, dtype=torch.int64)
    memory, memory_mask, vectors = inputs()
    shared = reader(lower, mask, memory, memory_mask, vectors)
    own = [x.expand(2, *x.shape[1:]) for x in (memory, memory_mask, vectors)]
    assert torch.allclose(shared, reader(lower, mask, *own), atol=1e-5)


def test_the_memory_is_seen() -> None:
    reader = SpanReader(HIDDEN, n_heads=2, n_layers=1, inner_size=48, norm_eps=1e-12).eval()
    lower, mask = torch.randn(1, 5, HIDDEN), torch.ones(1, 5, dtype=torch.int64)
    memory, memory_mask, vectors = inputs()
    one = reader(lower, mask, memory, memory_mask, vectors)
    assert not torch.allclose(one, reader(lower, mask, memory + 1.0, memory_mask, vectors))


def test_fused_and_plain_attention_say_the_same() -> None:
    reader = SpanReader(HIDDEN, n_heads=2, n_layers=2, inner_size=48, norm_eps=1e-12).eval()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    lower = torch.randn(2, 5, HIDDEN)
    memory, memory_mask, vectors = inputs()
    of_each = (
        torch.cat([memory, memory + 1]),
        memory_mask.expand(2, -1),
        vectors.expand(2, -1, -1),
    )
    for given in ((memory, memory_mask, vectors), of_each):
        reader.set_attn_implementation("sdpa")
        fused = reader(lower, mask, *given)
        reader.set_attn_implementation("eager")
        assert torch.allclose(reader(lower, mask, *given), fused, atol=1e-5)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_layers_above_the_lower_states_are_left_out(n_layers: int) -> None:
    model = model_with(n_layers)
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 4, 3]])
    mask = (ids != 0).long()
    assert torch.equal(model.lower_states(ids, mask), model.encode_levels(ids, mask)[2])
    passed: list[int] = []
    for number, layer in enumerate(model.encoder.encoder.layer):
        layer.register_forward_pre_hook(lambda *_, number=number: passed.append(number))
    model.lower_states(ids, mask)
    assert passed == list(range(3 - n_layers))
    model.encode(ids, mask)
    assert passed[3 - n_layers :] == [0, 1, 2]

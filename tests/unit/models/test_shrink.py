"""What is left of an encoder computes what the whole one did without the rest."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    RobertaConfig,
)

from instructrec_deploy.core.errors import BundleError, ConfigError
from instructrec_deploy.models.checkpoint import (
    Checkpoint,
    CheckpointSection,
    load_checkpoint,
    save_checkpoint,
)
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.shrink import (
    keep_heads,
    keep_layers,
    keep_neurons,
    layers_of,
    linear,
    parts_of,
)
from instructrec_deploy.models.span_reader import build_span_reader
from tests.tiny import tiny_tokenizer

FAMILIES = ("bert", "roberta", "electra", "distilbert")
HEADS, NEURONS = [[0, 2], [1, 3], [2, 3]], torch.arange(0, 64, 2)
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]])
MASK = (IDS > 0).long()


def make(family: str) -> Any:
    """Three layers, four heads of 8, 64 neurons."""
    torch.manual_seed(4)
    n_vocab = tiny_tokenizer().get_vocab_size()
    if family == "distilbert":
        config: Any = DistilBertConfig(
            vocab_size=n_vocab, dim=32, n_layers=3, n_heads=4, hidden_dim=64
        )
    else:
        kind = {
            "bert": BertConfig,
            "roberta": RobertaConfig,
            "electra": ElectraConfig,
            "deberta": DebertaV2Config,
        }[family]
        config = kind(
            vocab_size=n_vocab,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            pad_token_id=0,
        )
    model = AutoModel.from_config(config)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def states(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=MASK)[0]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_units_whose_weights_are_zero_can_go(family: str) -> None:
    whole = make(family)
    for number, part in enumerate(parts_of(whole)):
        output, outer = linear(part.output), linear(part.outer)
        with torch.no_grad():
            outer.weight[:, 1::2] = 0.0
            for head in set(range(4)) - set(HEADS[number]):
                output.weight[:, head * 8 : head * 8 + 8] = 0.0
    small = copy.deepcopy(whole)
    keep_heads(small, HEADS)
    keep_neurons(small, [NEURONS] * 3)
    assert small.num_parameters() < whole.num_parameters()
    torch.testing.assert_close(states(small), states(whole), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_checkpoint_is_loaded_as_it_was_saved(family: str, tmp_path: Path) -> None:
    encoder = make(family)
    keep_layers(encoder, [0, 2])
    keep_heads(encoder, HEADS[:2])
    keep_neurons(encoder, [NEURONS] * 2)
    tokenizer = tmp_path / "tokenizer.json"
    tiny_tokenizer().save(str(tokenizer))
    section = CheckpointSection(
        kind="instruction-encoder",
        base="tiny",
        hidden_size=32,
        n_heads=4,
        kept_heads=2,
        max_tokens=32,
        pad_id=0,
        reader_layers=1,
    )
    reader = build_span_reader(encoder, n_layers=1)
    model = InstructionEncoder(encoder, hidden_size=32, n_heads=4, use_fusion=False, reader=reader)
    save_checkpoint(Checkpoint(model, section, tokenizer), tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved")
    assert not loaded.model.training
    assert loaded.n_parameters == sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(
        states(loaded.model.encoder), states(encoder.eval()), rtol=0.0, atol=0.0
    )
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], weight, rtol=0.0, atol=0.0)


def test_weights_of_another_shape_than_stated_are_told(tmp_path: Path) -> None:
    encoder = make("bert")
    tokenizer = tmp_path / "tokenizer.json"
    tiny_tokenizer().save(str(tokenizer))
    section = CheckpointSection(
        kind="instruction-encoder",
        base="tiny",
        hidden_size=32,
        n_heads=4,
        kept_heads=2,  # and yet all four are saved
        max_tokens=32,
        pad_id=0,
    )
    model = InstructionEncoder(encoder, hidden_size=32, n_heads=4, use_fusion=False)
    save_checkpoint(Checkpoint(model, section, tokenizer), tmp_path / "saved")
    with pytest.raises(BundleError, match="do not fit"):
        load_checkpoint(tmp_path / "saved")


def test_deberta_loses_layers_and_neurons_but_no_heads() -> None:
    model = make("deberta")
    keep_layers(model, [0, 1])
    keep_neurons(model, [NEURONS] * 2)
    assert states(model).shape == (2, 5, 32)
    with pytest.raises(ConfigError, match="heads of a deberta-v2"):
        keep_heads(model, HEADS[:2])


def test_another_build_is_refused() -> None:
    model = AutoModel.from_config(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(ConfigError, match="gpt2 model cannot be pruned"):
        layers_of(model)

"""Keep parts of a pretrained model as they are: faster steps, less to forget."""

from __future__ import annotations

from torch import nn

from instructrec_deploy.core.errors import ConfigError
from instructrec_training.recipe import TrainingPart


def freeze(model: nn.Module, settings: TrainingPart) -> int:
    """Freeze embeddings and the lowest layers as the recipe says.

    Returns:
        How many weights will not move.

    Raises:
        ConfigError: more layers are to be frozen than there are.
    """
    frozen: list[nn.Module] = []
    if settings.freeze_embeddings or settings.freeze_layers:
        frozen += [m for m in model.modules() if isinstance(m, nn.Embedding)]
    if settings.freeze_layers:
        layers = transformer_layers(model)
        if settings.freeze_layers > len(layers):
            raise ConfigError(
                f"training.freeze_layers is {settings.freeze_layers}, "
                f"the model has {len(layers)} layers",
                hint="freeze fewer",
            )
        frozen += layers[: settings.freeze_layers]
    for module in frozen:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a transformer, lowest first: its longest list of modules of one type."""
    lists = [
        list(m)
        for m in model.modules()
        if isinstance(m, nn.ModuleList) and len({type(layer) for layer in m}) == 1
    ]
    return max(lists, key=len, default=[])

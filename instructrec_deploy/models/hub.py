"""`ORG/NAME`: a model of the Hugging Face hub as a folder of this machine."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from instructrec_deploy.core.errors import ConfigError, MissingExtra, Unavailable
from instructrec_deploy.models.presets import models_home

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Configuration, tokenizer and weights; no pickle, no code, no other framework's weights.
WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
HUB_FOLDER = "hub"  # beside the presets
PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # it finds the hub for us


def is_hub_id(name: str) -> bool:
    """Whether a name can be one of the hub: `ORG/NAME`, and no folder here."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def check_reachable(name: str) -> None:
    """Say at once that a model is neither here nor to be had; the hub's client tries for minutes.

    Args:
        name: a hub id, with or without an owner.

    Raises:
        ConfigError: transformers keeps no copy of it here, and the hub's host has no address.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if try_to_load_from_cache(name, "config.json") or any(map(os.environ.get, PROXIES)):
        return
    host = urlsplit(constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConfigError(
            f"model {name!r} is not here, and the Hugging Face hub cannot be reached",
            hint="name a preset (`instructrec models list`) or a transformers folder",
        ) from error


def fetch_from_hub(name: str, *, home: Path | None = None) -> Path:
    """Download what is needed of a model, or take what was downloaded before.

    Args:
        name: `ORG/NAME`.
        home: where models lie; None: `models_home()`.

    Returns:
        The folder `home/hub/ORG/NAME`.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        Unavailable: the hub cannot be reached, or has no such model for this user.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra(
            "a model of the hub needs huggingface_hub, which is not installed",
            hint="pip install 'instructrec-deploy[train]', or download the model and name its "
            "folder",
        ) from error
    folder = (home or models_home()) / HUB_FOLDER / name
    try:
        snapshot_download(name, local_dir=folder, allow_patterns=list(WANTED))
    except (OSError, ValueError) as error:  # what the hub's own errors derive from
        raise Unavailable(
            f"{name} cannot be fetched from the Hugging Face hub ({type(error).__name__})",
            hint="check its name and the network (and HF_TOKEN, where the model asks for it), or "
            "download it elsewhere and name the folder: hf:FOLDER",
        ) from error
    return folder

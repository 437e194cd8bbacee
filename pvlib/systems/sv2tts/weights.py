"""The weights of the three networks: `data/checkpoints/<profile>/<name>.safetensors` with a card, kept by `hub`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pvlib import hub
from pvlib.config import Profile
from pvlib.hub import WeightsError

M = TypeVar("M", bound=nn.Module)

NAMES = hub.SV2TTS_NAMES  # also what `pvlib train` calls them


def path_of(name: str, profile: Profile) -> Path:
    """Where the weights of one network lie. Raises WeightsError on an unknown name."""
    if name not in NAMES:
        raise WeightsError(f"no network {name!r}: choose one of {', '.join(NAMES)}")
    return hub.weights_path(name, profile)


def save(name: str, profile: Profile, state: dict[str, Tensor], card: dict[str, Any]) -> Path:
    """Write weights and their card, see `hub.save_weights`. Raises WeightsError."""
    path_of(name, profile)
    return hub.save_weights(name, profile, state, card)


def read_card(name: str, profile: Profile) -> dict[str, Any]:
    """The card of a network's weights. Raises WeightsError when it is missing or unreadable."""
    path_of(name, profile)
    return hub.read_card(name, profile)


def load(network: M, name: str, profile: Profile) -> M:
    """Fill a network with its weights, after size, SHA-256 and configuration were checked, and set it to evaluation.

    Raises WeightsError when they are missing, truncated, altered, of another configuration or do not fit.
    """
    path = path_of(name, profile)
    if not path.is_file():
        raise WeightsError(f"{path} is missing; {hub.remedy(name, path)}")
    card = read_card(name, profile)
    if path.stat().st_size != card["bytes"] or hub.sha256(path) != card["sha256"]:
        raise WeightsError(
            f"{path} does not match the size and SHA-256 of its card (truncated or altered?); {hub.remedy(name, path)}"
        )
    if card["config"] != hub.config_of(name, profile):
        raise WeightsError(
            f"{path} is a checkpoint of another configuration; restore pvlib/config.py, or {hub.remedy(name, path)}"
        )
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit the network ({error}); {hub.remedy(name, path)}") from error
    return network.eval()

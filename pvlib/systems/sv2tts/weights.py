"""The weights of the three networks: `data/checkpoints/<profile>/<name>.safetensors` with a card, as in `hub`."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pvlib import hub, paths
from pvlib.config import Profile
from pvlib.hub import WeightsError

M = TypeVar("M", bound=nn.Module)

NAMES = ("sv2tts-encoder", "sv2tts-synthesizer", "sv2tts-vocoder")  # also what `pvlib train` calls them


def path_of(name: str, profile: Profile) -> Path:
    """Where the weights of one network lie. Raises WeightsError on an unknown name."""
    if name not in NAMES:
        raise WeightsError(f"no network {name!r}: choose one of {', '.join(NAMES)}")
    return paths.CHECKPOINTS / profile.name / f"{name}.safetensors"


def config_of(name: str, profile: Profile) -> dict[str, Any]:
    """The configuration of a network as its card holds it."""
    return json.loads(json.dumps(asdict(getattr(profile, name.replace("-", "_")))))


def save(name: str, profile: Profile, state: dict[str, Tensor], card: dict[str, Any]) -> Path:
    """Write weights (floats as fp16) and their card; each file appears whole or not at all.

    Raises WeightsError on values that fp16 cannot hold and on an unwritable or full disk.
    """
    path = path_of(name, profile)
    half = {}
    for key, value in state.items():
        value = value.detach().cpu()
        half[key] = (value.half() if value.is_floating_point() else value).clone().contiguous()
        if value.is_floating_point() and not torch.isfinite(half[key]).all():
            raise WeightsError(f"{name}: {key} holds values that are not finite in fp16; nothing was written")
    parts = [path.with_suffix(f".{os.getpid()}{suffix}") for suffix in (".part", ".card.part")]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(half, parts[0])
        head = {"sha256": hub.sha256(parts[0]), "bytes": parts[0].stat().st_size}
        content = head | {"config": config_of(name, profile)} | card | {"date": _today()}
        parts[1].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(parts[0], path)
        os.replace(parts[1], path.with_suffix(".json"))
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot write {path}: {error}; check that the folder is writable and has space"
        ) from error
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()
    return path


def read_card(name: str, profile: Profile) -> dict[str, Any]:
    """The card of a network's weights. Raises WeightsError when it is missing or unreadable."""
    path = path_of(name, profile).with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        card["sha256"], card["bytes"], card["config"]
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing; {_remedy(name, path)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not a card of weights ({error!r}); {_remedy(name, path)}") from error
    return card


def load(network: M, name: str, profile: Profile) -> M:
    """Fill a network with its weights, after size, SHA-256 and configuration were checked, and set it to evaluation.

    Raises WeightsError when they are missing, truncated, altered, of another configuration or do not fit.
    """
    path = path_of(name, profile)
    if not path.is_file():
        raise WeightsError(f"{path} is missing; {_remedy(name, path)}")
    card = read_card(name, profile)
    if path.stat().st_size != card["bytes"] or hub.sha256(path) != card["sha256"]:
        raise WeightsError(
            f"{path} does not match the size and SHA-256 of its card (truncated or altered?); {_remedy(name, path)}"
        )
    if card["config"] != config_of(name, profile):
        raise WeightsError(
            f"{path} is a checkpoint of another configuration; restore pvlib/config.py, or {_remedy(name, path)}"
        )
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit the network ({error}); {_remedy(name, path)}") from error
    return network.eval()


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _remedy(name: str, path: Path) -> str:
    return f"restore it with `git checkout -- {path.parent}` or make it with `pvlib train {name}`"

"""Matrices in 8 bits (e4m3: Micikevicius et al., 2022, "FP8 formats for deep learning"), so that weights fit the tree.

Only for networks named here: for each it was measured on the dev split that it speaks as well. Weights are rounded
before their quality is measured, so a card tells of what is stored. `hub.read_weights` reads either form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pvlib import hub, paths
from pvlib.config import Profile

NAMES = (hub.BACKBONE_PADDED, "sv2tts-synthesizer")
DTYPE = torch.float8_e4m3fn
STORED = "matrices in 8 bits (e4m3), the rest in fp16"


def rounded(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they will be stored: of a network in `NAMES` matrices as e4m3 holds them, else all as they are.

    Raises WeightsError on a matrix with values beyond e4m3's largest, 448, or that are not finite.
    """
    if name not in NAMES:
        return dict(state)
    found = {}
    for key, value in state.items():
        if _matrix(value) and not bool((value.abs() <= torch.finfo(DTYPE).max).all()):
            raise hub.WeightsError(f"{name}: {key} holds values that e4m3 cannot hold; nothing was written")
        found[key] = value.to(DTYPE).to(value.dtype) if _matrix(value) else value
    return found


def shrink(name: str, profile: Profile) -> Path:
    """Store matrices of embedded weights that were `rounded` in 8 bits, and say so in their card; no value changes.

    Each file appears whole or not at all, and in the order of `hub.save_weights`. Raises WeightsError where a matrix
    would change, on files that are missing or altered, and on an unwritable or full disk.
    """
    path, card = hub.weights_path(name, profile), hub.read_card(name, profile)
    state, small = hub.read_weights(name, profile), {}
    for key, value in state.items():
        small[key] = (
            value.to(DTYPE) if _matrix(value) else value.half() if value.is_floating_point() else value
        )
    if changed := [key for key in state if not torch.equal(small[key].to(state[key].dtype), state[key])]:
        raise hub.WeightsError(f"{name}: {changed[0]} would change in 8 bits; round it first")
    try:
        # left from the last to the first: the weights appear before their card
        with paths.appearing(path.with_suffix(".json")) as card_part, paths.appearing(path) as part:
            save_file(small, part)
            part.chmod(path.stat().st_mode)
            card |= {"sha256": hub.sha256(part), "bytes": part.stat().st_size, "stored": STORED}
            card_part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise hub.WeightsError(
            f"cannot write {path}: {error}; check that the folder is writable and has space"
        ) from error
    return path


def _matrix(value: Tensor) -> bool:
    return value.is_floating_point() and value.dim() > 1

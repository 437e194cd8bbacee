"""Sparse weights: the smallest blocks of a matrix are set to zero while it learns (Kalchbrenner et al., 2018).

Built on `torch.nn.utils.prune`. torch's kernels multiply the zeros as well, so that here sparse weights make the
file smaller once compressed, not the loop faster; the paper's speed comes from kernels written for them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

WEIGHTS = (
    ("rnn1", "weight_ih_l0"),
    ("rnn1", "weight_hh_l0"),
    ("rnn2", "weight_ih_l0"),
    ("rnn2", "weight_hh_l0"),
)


class BlockMagnitude(prune.BasePruningMethod):
    """Zeroes the given share of blocks (rows, columns) of a matrix, those of the smallest absolute sum."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, share: float, block: tuple[int, int] = (1, 1)):
        if not 0 <= share < 1:
            raise ValueError(f"a share of {share} cannot be pruned; give 0 to below 1")
        self.share, self.block = share, block

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """1 where a weight stays, 0 where it falls. Raises ValueError where the blocks do not fill the matrix."""
        rows, columns = self.block
        if t.ndim != 2 or t.shape[0] % rows or t.shape[1] % columns:
            raise ValueError(f"blocks of {self.block} do not fill a matrix of {tuple(t.shape)}")
        blocks = (t.abs() * default_mask).unflatten(0, (-1, rows)).unflatten(2, (-1, columns)).sum((1, 3))
        fallen = int(round(self.share * blocks.numel()))
        mask = torch.ones(blocks.numel(), dtype=t.dtype, device=t.device)
        mask[blocks.flatten().argsort()[:fallen]] = 0
        return mask.view_as(blocks).repeat_interleave(rows, 0).repeat_interleave(columns, 1)


def attach(network: nn.Module) -> None:
    """Make the recurrent weights prunable, with nothing pruned yet; the names in the state change."""
    for module, name in WEIGHTS:
        prune.identity(getattr(network, module), name)


def thin(network: nn.Module, share: float, block: tuple[int, int]) -> None:
    """Prune the recurrent weights of an attached network to this share of zeros, counted from all of them anew."""
    method = BlockMagnitude(share, block)
    for module, name in WEIGHTS:
        owner = getattr(network, module)
        with torch.no_grad():
            original, mask = getattr(owner, f"{name}_orig"), getattr(owner, f"{name}_mask")
            mask.copy_(method.compute_mask(original, torch.ones_like(mask)))


def settle(state: dict[str, Tensor], masks: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state of an attached network with masks applied, under the names of an ordinary one.

    masks: a state to take the masks from, for averaged weights, whose averaged masks are none.
    """
    masks, made = masks or state, {}
    for key, value in state.items():
        if key.endswith("_orig"):
            name = key.removesuffix("_orig")
            made[name] = value * masks[f"{name}_mask"]
        elif not key.endswith("_mask"):
            made[key] = value
    return made


def unsettle(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An ordinary state under the names of an attached network, with nothing pruned: zeros may grow again."""
    made = dict(state)
    for module, name in WEIGHTS:
        made[f"{module}.{name}_orig"] = weight = made.pop(f"{module}.{name}")
        made[f"{module}.{name}_mask"] = torch.ones_like(weight)
    return made


def share_of_zeros(state: dict[str, Tensor]) -> float:
    """Share of zeros among the recurrent weights of an ordinary state."""
    found = [state[f"{module}.{name}"] for module, name in WEIGHTS]
    return sum(int((w == 0).sum()) for w in found) / sum(w.numel() for w in found)


def schedule(progress: float, final: float, begin: float = 0.2, end: float = 0.7) -> float:
    """The share pruned at a point of the training: final (1 - (1 - x)^3) between begin and end (Zhu & Gupta, 2017)."""
    x = min(1.0, max(0.0, (progress - begin) / (end - begin)))
    return final * (1 - (1 - x) ** 3)

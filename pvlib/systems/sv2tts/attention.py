"""What Tacotron's attention should look like, and how to tell when it does not.

An alignment is (steps, chars): how much of decoder step t looks at character n; rows sum to 1.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from pvlib.audio import HOP_LENGTH, SAMPLE_RATE
from pvlib.config import AttentionLimits


@dataclass(frozen=True)
class Failures:
    """How often an alignment failed. They add up."""

    skips: int = 0  # stretches of text that nobody looked at
    repeats: int = 0  # returns to text already spoken
    runaways: int = (
        0  # speech without text: attention that rests on one place, or a decoder that does not stop
    )

    def __add__(self, other: Failures) -> Failures:
        return Failures(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def total(self) -> int:
        """All of them."""
        return sum(astuple(self))


def failures(
    alignment: np.ndarray | Tensor,
    stopped: bool,
    frames_per_step: int,
    limits: AttentionLimits | None = None,
) -> Failures:
    """Count skips, repeats and runaways of one alignment (steps, chars).

    stopped: whether the decoder stopped by itself; one that had to be stopped is a runaway.
    A skip is a run of `skip_chars` characters, each with less than `skip_mass` of attention over all steps (an end
    never reached is one). A repeat is `back_steps` steps in a row that look `back_chars` or more before the
    furthest character reached. A runaway rests on one character, or its neighbours, for more than `stall_seconds`.
    Raises ValueError on anything but a matrix with steps and characters.
    """
    limits = limits or AttentionLimits()
    matrix = np.asarray(alignment, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"an alignment of (steps, chars) is needed, not {matrix.shape}")
    path = matrix.argmax(1)
    unseen = [length for _, length in _runs(matrix.sum(0) < limits.skip_mass)]
    behind = np.maximum.accumulate(path) - path >= limits.back_chars
    back = [length for _, length in _runs(behind)]
    rests = _rests(path)
    longest = limits.stall_seconds * SAMPLE_RATE / HOP_LENGTH / frames_per_step
    stalls = [length > longest for length in rests]
    return Failures(
        skips=sum(length >= limits.skip_chars for length in unseen),
        repeats=sum(length >= limits.back_steps for length in back),
        runaways=sum(stalls) + int(not stopped and not stalls[-1]),
    )


def _runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """Runs of true values: (first, length)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(int), [0]])))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _rests(path: np.ndarray) -> list[int]:
    """Lengths of the stretches of a path that stay within one character of where each began."""
    lengths, anchor = [0], path[0]
    for place in path:
        if abs(int(place) - int(anchor)) <= 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
            anchor = place
    return lengths


def guided_loss(looks: Tensor, attention: Tensor, step_lengths: Tensor) -> Tensor:
    """Guided attention loss: the cross-entropy, in nats, between where each step looks and where it should.

    Tachibana et al. (2018) know no times and charge for what is far from the diagonal; here the truth is given.
    looks: log-weights (b, steps, chars), -inf on padding; attention: (b, steps, chars), rows summing to 1;
    step_lengths: (b,). The mean over true steps, padding left out.
    """
    true = torch.arange(looks.shape[1], device=looks.device) < step_lengths[:, None]
    return -(attention * looks.masked_fill(attention == 0, 0.0)).sum(2)[true].mean()

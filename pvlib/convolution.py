"""Depthwise convolution over time with channels last, quick on a CPU and on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def depthwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """What a depthwise `conv` makes of x (b, n, c): (b, n, c), as one over pictures with channels last.

    The same numbers as `conv(x.transpose(1, 2)).transpose(1, 2)` in a quarter of the time on a CPU. On a GPU cuDNN
    plans such a convolution anew for each length, which costs more than a whole training step: there it is `summed`.
    """
    if x.is_cuda:
        return summed(conv, x)
    pictures = x.unsqueeze(1).permute(0, 3, 1, 2)  # (b, n, c) -> (b, c, 1, n), no copy
    y = nn.functional.conv2d(
        pictures, conv.weight.unsqueeze(2), conv.bias, padding=(0, *conv.padding), groups=conv.groups
    )
    return y.permute(0, 2, 3, 1).squeeze(1)  # (b, c, 1, n) -> (b, n, c)


def summed(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """The same convolution of x (b, n, c) as a sum over the places of its kernel: (b, n, c).

    For stride and dilation 1, up to the order of summation.
    """
    (places,), (margin,) = conv.kernel_size, conv.padding
    wide = nn.functional.pad(x, (0, 0, margin, margin))
    n = wide.shape[1] - places + 1
    y = conv.bias
    for place in range(places):
        y = torch.addcmul(y, wide[:, place : place + n], conv.weight[:, 0, place])
    return y

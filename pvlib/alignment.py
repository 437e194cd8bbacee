"""Which character sounds at which transformer token.

Axes: b batch, n tokens (mel frames / stack), nt characters.
An alignment is a (b, n) tensor of character positions, -1 where no character sounds. F5-TTS pads the text behind
the characters; its option of average upsampling stretches all characters evenly; here a third way stretches each
character by its expected duration, so that a small model need not learn to align before it learns to speak.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def average(text_lengths: Tensor, lengths: Tensor, n: int) -> Tensor:
    """Even stretching, as the official average upsampling does it: what is left over goes to the last characters.

    text_lengths, lengths: (b,) characters and tokens per row. Returns (b, n). 7 characters over 20 tokens last
    2, 3, 3, 3, 3, 3, 3. Rows without text are -1 throughout.
    """
    t = torch.arange(n, device=lengths.device)[None]
    count = text_lengths.clamp(min=1)[:, None]
    base = lengths[:, None] // count
    short = count - lengths[:, None] % count  # so many characters last `base`, the rest one more
    in_short = t // base.clamp(min=1)
    in_long = short + (t - short * base) // (base + 1)
    index = torch.where(t < short * base, in_short, in_long)
    valid = (t < lengths[:, None]) & (text_lengths[:, None] > 0)
    return torch.where(valid, index, -1)


def weighted(weights: Tensor, start: Tensor, stop: Tensor, n: int) -> Tensor:
    """Stretch characters over tokens start..stop in proportion to their weights.

    weights: (b, nt), 0 behind the text; start, stop: (b,) tokens. Returns (b, n), -1 outside.
    """
    t = torch.arange(n, device=weights.device)[None].expand(weights.shape[0], -1)
    ends = weights.cumsum(1)
    total = ends[:, -1:].clamp(min=1e-6)
    edges = start[:, None] + ends / total * (stop - start)[:, None]
    index = torch.searchsorted(edges.contiguous(), t.float() + 0.5).clamp(max=weights.shape[1] - 1)
    last = ((weights > 0) * torch.arange(1, weights.shape[1] + 1, device=weights.device)).amax(
        1, keepdim=True
    ) - 1
    inside = (t >= start[:, None]) & (t < stop[:, None]) & (last >= 0)
    return torch.where(inside, torch.minimum(index, last), -1)


def edges_of(
    text: str,
    words: list[tuple[str, float, float]],
    total: float,
    centres: Sequence[float] | None = None,
) -> Tensor:
    """Where each character of an utterance begins and ends, its word times being known: (nt, 2) seconds.

    total: seconds of the utterance. Letters share their word equally, or where the middle of each is known (centres:
    seconds, one for each character of the text, NaN where not) neighbours part half-way between them. Marks and
    spaces sound in the gap before the next word. Characters before the first word last nothing.
    """
    ends = np.zeros(len(text), dtype=np.float32)
    position = text.index(words[0][0])
    ends[:position] = words[0][1]
    begins = ends.copy()
    for k, (word, start, end) in enumerate(words):
        position = text.index(word, position)
        following = words[k + 1][1] if k + 1 < len(words) else max(total, end)
        behind = text.find(words[k + 1][0], position + len(word)) if k + 1 < len(words) else len(text)
        spans = [
            (position, position + len(word), start, end),
            (position + len(word), behind, end, following),
        ]
        for first, last, begin, stop in spans:
            if last <= first:
                continue
            middles = None if centres is None else np.asarray(centres[first:last], dtype=np.float32)
            if middles is None or np.isnan(middles).any():
                parted = np.linspace(begin, stop, last - first + 1, dtype=np.float32)[1:]
            else:
                half_way = (middles[1:] + middles[:-1]) / 2
                parted = np.append(half_way, stop).clip(begin, stop)
            ends[first:last] = parted
            begins[first:last] = np.append(begin, parted[:-1])
        position += len(word)
    return torch.from_numpy(np.stack([begins, ends], axis=1))


def from_words(text: str, words: list[tuple[str, float, float]], tokens_per_second: float, n: int) -> Tensor:
    """The true alignment (n,) of an utterance whose word times are known; see `edges_of`."""
    return from_edges(edges_of(text, words, n / tokens_per_second), tokens_per_second, n)


def from_edges(edges: Tensor, tokens_per_second: float, n: int) -> Tensor:
    """The alignment of one utterance whose characters begin and end at `edges` (nt, 2) in seconds: (n,).

    A token belongs to the character that sounds in its middle.
    """
    middle = (torch.arange(n) + 0.5) / tokens_per_second
    index = torch.searchsorted(edges[:, 1].contiguous(), middle).clamp(max=len(edges) - 1)
    return torch.where((middle >= edges[0, 0]) & (middle <= edges[-1, 1]), index, -1)


def within(index: Tensor) -> Tensor:
    """How far into its character each token is, and how long the character lasts.

    index: (b, n). Returns (b, n, 2): the share of the character that has passed at the token's middle (0..1), and
    log(1 + length in tokens); zeros where no character sounds.
    """
    b, n = index.shape
    t = torch.arange(n, device=index.device)[None].expand(b, -1)
    new = torch.ones_like(index, dtype=torch.bool)
    new[:, 1:] = index[:, 1:] != index[:, :-1]
    start = torch.where(new, t, 0).cummax(1).values
    run = new.cumsum(1) - 1
    lengths = torch.zeros(b, n, device=index.device).scatter_add_(
        1, run, torch.ones(b, n, device=index.device)
    )
    length = lengths.gather(1, run)
    features = torch.stack([(t - start + 0.5) / length, torch.log1p(length)], dim=-1)
    return features.masked_fill((index < 0).unsqueeze(-1), 0.0)

"""Self-attention of the official DiT, rearranged for a CPU.

The same numbers as `f5_tts.model.modules.AttnProcessor` (a test holds them equal, gradients too), row by row and, where
no gradient is asked for, some queries at a time: the scores stay in the cache, padding costs nothing, and the gradient
needs no second softmax (dS = P (dP - rowsum(dO O)), the identity of FlashAttention; Dao et al., 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from f5_tts.model.modules import Attention, AttnProcessor
from torch import Tensor, nn

QUERIES = 256  # at a time


class RowAttention:
    """A processor for the official `Attention`, without query and key norms and with rotation of all heads."""

    pe_attn_head = None  # all, as the official processor writes it

    def __call__(
        self,
        attn: Attention,
        x: Tensor,
        mask: Tensor | None = None,
        rope: tuple[Tensor, object] | None = None,
    ) -> Tensor:
        """x: (b, n, d); mask: (b, n), true up to each row's length; rope: angles (1, n, d / heads)."""
        b, n, _ = x.shape
        heads = attn.heads
        query, key, value = (
            project(x).view(b, n, heads, -1) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if rope is not None:
            angles = rope[0][..., -n:, ::2].float()
            turn = torch.polar(torch.ones_like(angles), angles)[:, :, None]  # (1, n, 1, d / heads / 2)
            query, key = _turned(query, turn), _turned(key, turn)
        lengths = [n] * b if mask is None else mask.sum(1).tolist()
        query, key, value = (t.transpose(1, 2).contiguous() for t in (query, key, value))  # (b, heads, n, -1)
        attend = _Attend.apply if torch.is_grad_enabled() else _attended
        x = attend(query, key, value, lengths).transpose(1, 2).reshape(b, n, -1)
        for layer in attn.to_out:
            x = layer(x)
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)


@contextmanager
def row_by_row(module: nn.Module) -> Iterator[None]:
    """On a CPU, `RowAttention` in the place of the official processor for the calls inside, wherever it can be.

    Also inside of a processor that wraps the official one as its `inner`, so that who looks on changes nothing.
    """
    places = [_place(layer) for layer in module.modules() if isinstance(layer, Attention) and _fits(layer)]
    kept = [getattr(holder, name) for holder, name in places]
    for holder, name in places:
        setattr(holder, name, RowAttention())
    try:
        yield
    finally:
        for (holder, name), processor in zip(places, kept, strict=True):
            setattr(holder, name, processor)


def _place(layer: Attention) -> tuple[object, str]:
    """Who holds the innermost processor of a layer, and under what name."""
    holder, name = layer, "processor"
    while hasattr(getattr(holder, name), "inner"):
        holder, name = getattr(holder, name), "inner"
    return holder, name


def _fits(layer: Attention) -> bool:
    official = getattr(*_place(layer))
    plain = layer.q_norm is None and layer.k_norm is None and layer.to_q.weight.device.type == "cpu"
    return (
        plain
        and type(official) is AttnProcessor
        and official.pe_attn_head is None
        and official.attn_mask_enabled
    )


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding of neighbouring channels, as one complex product: (b, n, heads, d)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def _shares(query: Tensor, key: Tensor) -> Tensor:
    """Attention weights of one row: (heads, n, d) twice -> (heads, n, n)."""
    return torch.softmax(torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2)), -1)


def _attended(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], kept: list[Tensor] | None = None
) -> Tensor:
    """Scaled dot-product attention of rows of unequal length: (b, heads, n, d); zero behind each length.

    kept: gains the attention weights of each row, which then are computed at once.
    """
    out = torch.zeros_like(query)
    for row, n in enumerate(lengths):
        step = QUERIES if kept is None else max(1, n)
        for first in range(0, n, step):
            some = slice(first, min(n, first + step))
            shares = _shares(query[row, :, some], key[row, :, :n])
            out[row, :, some] = torch.bmm(shares, value[row, :, :n])
            if kept is not None:
                kept.append(shares)
    return out


class _Attend(torch.autograd.Function):
    """`_attended` with its gradient."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
        shares: list[Tensor] = []
        out = _attended(query, key, value, lengths, shares)
        ctx.save_for_backward(query, key, value, out, *shares)
        ctx.lengths = lengths
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *shares = ctx.saved_tensors
        to_query, to_key, to_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        scale = query.shape[-1] ** -0.5
        inner = (gradient * out).sum(-1, keepdim=True)
        for row, n in enumerate(ctx.lengths):
            share, g = shares[row], gradient[row, :, :n]
            to_value[row, :, :n] = torch.bmm(share.transpose(1, 2), g)
            scores = torch.bmm(g, value[row, :, :n].transpose(1, 2)).sub_(inner[row, :, :n]).mul_(share)
            to_query[row, :, :n] = torch.bmm(scores, key[row, :, :n]).mul_(scale)
            to_key[row, :, :n] = torch.bmm(scores.transpose(1, 2), query[row, :, :n]).mul_(scale)
        return to_query, to_key, to_value, None

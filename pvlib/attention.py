"""Self-attention of the official DiT, rearranged for training on a CPU.

The same numbers as `f5_tts.model.modules.AttnProcessor` (a test holds them equal, gradients too), row by row:
scores of one row stay in the cache, padding costs nothing, and the gradient needs no second softmax
(dS = P (dP - rowsum(dO O)), the identity of FlashAttention; Dao et al., 2022).
"""

from __future__ import annotations

import torch
from f5_tts.model.modules import Attention
from torch import Tensor


class RowAttention:
    """A processor for the official `Attention`, without query and key norms and with rotation of all heads."""

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
        x = _Attend.apply(query, key, value, lengths).transpose(1, 2).reshape(b, n, -1)
        for layer in attn.to_out:
            x = layer(x)
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding of neighbouring channels, as one complex product: (b, n, heads, d)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class _Attend(torch.autograd.Function):
    """Scaled dot-product attention of rows of unequal length: (b, heads, n, d); zero behind each length."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
        out, shares, scale = torch.zeros_like(query), [], query.shape[-1] ** -0.5
        for row, n in enumerate(lengths):
            q, k, v = query[row, :, :n], key[row, :, :n], value[row, :, :n]
            share = torch.softmax(torch.bmm(q * scale, k.transpose(1, 2)), -1)
            out[row, :, :n] = torch.bmm(share, v)
            shares.append(share)
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

"""Core C: attention entropy, read from the tensors the model really computes.

DiT has no cross-attention from sound to text: its attention runs among mel tokens, and text reaches it only through
the input embedding. What a sound token attends to in the text is therefore read off its attention to the tokens at
which each character sounds (for padded text: the first positions, where the characters stand).

Axes: b batch, h heads, n tokens, nt characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pvlib.backbone import Backbone, Item


class _Recorder:
    """An attention processor that also keeps the weights; the output is the wrapped processor's own."""

    def __init__(self, inner, tape: list[Tensor]):
        self.inner, self.tape = inner, tape

    def __call__(self, attn, x: Tensor, mask: Tensor | None = None, rope=None) -> Tensor:
        self.tape.append(weights(attn, x, mask, rope, self.inner.pe_attn_head).float().cpu())
        return self.inner(attn, x, mask=mask, rope=rope)


def weights(attn, x: Tensor, mask: Tensor | None, rope, pe_attn_head: int | None) -> Tensor:
    """Attention weights of an official attention module: x (b, n, d) to (b, h, n, n), masked keys at zero."""
    from f5_tts.model.modules import apply_rotary_pos_emb  # drags much along, so only when it is needed

    b, n, _ = x.shape
    query, key = (
        layer(x).view(b, n, attn.heads, -1).transpose(1, 2)  # (b, n, h d) -> (b, h, n, d)
        for layer in (attn.to_q, attn.to_k)
    )
    query = query if attn.q_norm is None else attn.q_norm(query)
    key = key if attn.k_norm is None else attn.k_norm(key)
    if rope is not None:
        frequencies, scale = rope
        q_scale, k_scale = (1.0, 1.0) if scale is None else (scale, scale**-1.0)
        heads = attn.heads if pe_attn_head is None else pe_attn_head
        query = torch.cat(
            [apply_rotary_pos_emb(query[:, :heads], frequencies, q_scale), query[:, heads:]], dim=1
        )
        key = torch.cat([apply_rotary_pos_emb(key[:, :heads], frequencies, k_scale), key[:, heads:]], dim=1)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return scores.float().softmax(-1)


@contextmanager
def recording(model: Backbone, layers: Sequence[int]) -> Iterator[dict[int, list[Tensor]]]:
    """Keep the attention weights of these blocks for every forward pass inside: {layer: [(b, h, n, n), ...]}.

    Raises IndexError on a layer the model does not have.
    """
    blocks = model.transformer.transformer_blocks
    tapes: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    kept = {layer: blocks[layer].attn.processor for layer in layers}
    for layer, tape in tapes.items():
        blocks[layer].attn.processor = _Recorder(kept[layer], tape)
    try:
        yield tapes
    finally:
        for layer, processor in kept.items():
            blocks[layer].attn.processor = processor


def entropy(maps: Tensor) -> Tensor:
    """Mean entropy in nats over queries: (..., n, n) to (...). 0 looks at one place, log n everywhere."""
    return -(maps * maps.clamp(min=1e-12).log()).sum(-1).mean(-1)


def text_columns(model: Backbone, item: Item) -> Tensor:
    """At which character each token sounds: (n,), -1 for none."""
    index = model.alignment_of([item])
    if index is not None:
        return index[0].cpu()
    text = model.encode([item.reference_text + item.text])
    n = model.cfm.tokens(item.frames)
    if model.settings.text_conditioning == "padded":
        position = torch.arange(n)
        return torch.where(position < text.shape[1], position, -1)
    length = torch.tensor([n])
    return model.transformer.text_embed.align(text.cpu(), length, n)[0]


def to_text(maps: Tensor, columns: Tensor, characters: int) -> Tensor:
    """Sum attention columns over the tokens of each character: (..., n, n) to (..., n, nt)."""
    sounding = columns >= 0
    onto = torch.zeros(len(columns), characters)
    onto[torch.arange(len(columns))[sounding], columns[sounding]] = 1.0
    return maps @ onto


@dataclass(frozen=True)
class AttentionMaps:
    """Attention while one utterance is sampled.

    times: (steps,); layers: block numbers as asked for; maps: (layers, h, n, n) at the step nearest the asked time,
    conditional pass; text_maps: (layers, h, n, nt); text: the characters; reference_tokens: how many tokens are
    given; entropy: (steps, layers) over all columns; text_entropy: (steps, layers) over the text.
    """

    times: Tensor
    at: float
    layers: tuple[int, ...]
    maps: Tensor
    text_maps: Tensor
    text: str
    reference_tokens: int
    entropy: Tensor
    text_entropy: Tensor


def attention_maps(
    model: Backbone,
    item: Item,
    *,
    layers: Sequence[int] = (-2, -1),
    t: float = 0.25,
    steps: int = 32,
    sway_coef: float | None = -1.0,
) -> AttentionMaps:
    """Sample one item and return the attention of these blocks, in full at the step nearest time t."""
    times = model.times(steps, sway_coef)[:-1].cpu()
    with recording(model, layers) as tapes:
        model.sample([item], steps=steps, sway_coef=sway_coef)
    text = item.reference_text + item.text
    columns = text_columns(model, item)
    nearest = int((times - t).abs().argmin())
    by_step = [torch.stack([tapes[layer][k][0] for layer in layers]) for k in range(len(times))]
    on_text = [to_text(maps, columns, len(text)) for maps in by_step]
    shares = [maps / maps.sum(-1, keepdim=True).clamp(min=1e-9) for maps in on_text]
    return AttentionMaps(
        times=times,
        at=float(times[nearest]),
        layers=tuple(layers),
        maps=by_step[nearest],
        text_maps=on_text[nearest],
        text=text,
        reference_tokens=int(model.cfm.tokens(item.mel.shape[0])),
        entropy=torch.stack([entropy(maps).mean(-1) for maps in by_step]),
        text_entropy=torch.stack([entropy(maps).mean(-1) for maps in shares]),
    )

"""Core C: attention entropy, read from the tensors the model really computes, and guidance that lowers it.

DiT has no cross-attention from sound to text: its attention runs among mel tokens, and text reaches it only through
the input embedding. What a sound token attends to in the text is therefore read off its attention to the tokens at
which each character sounds (for padded text: the first positions, where the characters stand).

Guidance subtracts from the velocity, at time t and for a text of length L,

    lambda(L) w(t) g / max(1, |g|)    with    g = dH / dx,

x the noisy mel tokens, H the entropy of where each token looks (CEAG: among characters; IEAG: among tokens), mean of
heads and blocks, sum of tokens, |g| the norm over a whole row, and w a window (seed, "Core C"; lambda(L), the clip at 1
and the cosine window are of its architecture document). Our readings: the gradient with respect to x; the sum, with
which the clip acts and guidance is strongest (the mean would leave a gradient far below 1); a raised cosine, zero at
both ends of the window. lambda(L) is `laag.lambda_ceag`.

Axes: b batch, h heads, n tokens, d channels of a token, nt characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pvlib.config import CEAG_VARIANTS, ConfigError

if TYPE_CHECKING:
    from pvlib.backbone import Backbone, Item

SEEDS_APART = (
    7_919  # the random variant draws from the row's seed + this, so that the row's noise stays the same
)
FILLER = -1  # behind the characters of a shorter text


# Attention


class _Recorder:
    """An attention processor that also keeps the weights; the output is the wrapped processor's own.

    Passes that are differentiated are guidance's own and not kept.
    """

    def __init__(self, inner, tape: list[Tensor], reduce: Callable[[Tensor], Tensor] | None):
        self.inner, self.tape, self.reduce = inner, tape, reduce
        self.pe_attn_head = inner.pe_attn_head

    def __call__(self, attn, x: Tensor, mask: Tensor | None = None, rope=None) -> Tensor:
        if not torch.is_grad_enabled():
            maps = weights(attn, x, mask, rope, self.pe_attn_head)
            self.tape.append((self.reduce(maps) if self.reduce else maps).float().cpu())
        return self.inner(attn, x, mask=mask, rope=rope)


class _Tap:
    """An attention processor that also keeps the logits (b, h, n, n) with their graph, masked keys at -inf."""

    def __init__(self, inner, tape: list[Tensor]):
        self.inner, self.tape = inner, tape

    def __call__(self, attn, x: Tensor, mask: Tensor | None = None, rope=None) -> Tensor:
        self.tape.append(logits(attn, x, mask, rope, self.inner.pe_attn_head))
        return self.inner(attn, x, mask=mask, rope=rope)


def logits(attn, x: Tensor, mask: Tensor | None, rope, pe_attn_head: int | None) -> Tensor:
    """Attention logits of an official attention module: x (b, n, d) to (b, h, n, n), masked keys at -inf."""
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
    return scores.float()


def weights(attn, x: Tensor, mask: Tensor | None, rope, pe_attn_head: int | None) -> Tensor:
    """Attention weights of an official attention module: x (b, n, d) to (b, h, n, n), masked keys at zero."""
    return logits(attn, x, mask, rope, pe_attn_head).softmax(-1)


@contextmanager
def _processors(model: Backbone, layers: Sequence[int], wrap: Callable) -> Iterator[None]:
    """Wrap the attention processors of these blocks for the calls inside; wrap(layer, processor) gives the new one."""
    blocks = model.transformer.transformer_blocks
    kept = {layer: blocks[layer].attn.processor for layer in layers}
    for layer, processor in kept.items():
        blocks[layer].attn.processor = wrap(layer, processor)
    try:
        yield
    finally:
        for layer, processor in kept.items():
            blocks[layer].attn.processor = processor


@contextmanager
def recording(
    model: Backbone, layers: Sequence[int], reduce: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[int, list[Tensor]]]:
    """Keep the attention weights of these blocks for every forward pass inside: {layer: [(b, h, n, n), ...]}.

    reduce: what to keep of the weights instead. Passes with gradients, which are guidance's own, are left out.
    Raises IndexError on a layer the model does not have.
    """
    tapes: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with _processors(model, layers, lambda layer, inner: _Recorder(inner, tapes[layer], reduce)):
        yield tapes


def entropy(maps: Tensor) -> Tensor:
    """Mean entropy in nats over queries: (..., n, n) to (...). 0 looks at one place, log n everywhere."""
    return -(maps * maps.clamp(min=1e-12).log()).sum(-1).mean(-1)


def columns_of(model: Backbone, items: Sequence[Item]) -> Tensor:
    """At which character each token of each row sounds: (b, n), -1 for none and behind the row's length."""
    index = model.alignment_of(items)
    if index is not None:
        return index
    text = model.encode([item.reference_text + item.text for item in items])
    lengths = torch.tensor([model.cfm.tokens(item.frames) for item in items], device=text.device)
    n = int(lengths.max())
    if model.settings.text_conditioning == "padded":
        position = torch.arange(n, device=text.device)[None]
        inside = position < torch.minimum((text != FILLER).sum(1), lengths)[:, None]
        return torch.where(inside, position, -1)
    return model.transformer.text_embed.align(text, lengths, n)


def text_columns(model: Backbone, item: Item) -> Tensor:
    """At which character each token sounds: (n,), -1 for none."""
    return columns_of(model, [item])[0].cpu()


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
    conditional pass; text_maps: (layers, h, n, nt); text: the characters; reference_tokens: how many tokens the
    clip reaches into; entropy: (steps, layers) over all columns; text_entropy: (steps, layers) over the text.
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
    guidance: Guidance | None = None,
) -> AttentionMaps:
    """Sample one item, guided or not, and return the attention of these blocks, in full at the step nearest time t."""
    times = model.times(steps, sway_coef)[:-1].cpu()
    with recording(model, layers) as tapes:
        model.sample([item], steps=steps, sway_coef=sway_coef, guidance=guidance)
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


@dataclass(frozen=True)
class Trace:
    """How sharply rows looked while they were sampled together: means of tokens, heads and blocks, in nats.

    times: (steps,); text, whole: (steps, b), entropy among characters and among all tokens; mels: as sampled.
    """

    times: Tensor
    text: Tensor
    whole: Tensor
    mels: list[Tensor]


def trace(
    model: Backbone,
    items: Sequence[Item],
    *,
    layers: Sequence[int] = (-2, -1),
    steps: int = 32,
    sway_coef: float | None = -1.0,
    guidance: Guidance | None = None,
) -> Trace:
    """Sample rows together, guided or not, and follow the entropy of their attention (conditional rows)."""
    columns = columns_of(model, items)
    characters = max(len(item.reference_text + item.text) for item in items)
    onto = (columns[:, :, None] == torch.arange(characters, device=columns.device)).float()
    lengths = torch.tensor([model.cfm.tokens(item.frames) for item in items], device=columns.device)
    real = torch.arange(columns.shape[1], device=columns.device)[None] < lengths[:, None]

    def reduce(maps: Tensor) -> Tensor:
        scores = maps[: len(items)].clamp(min=torch.finfo(maps.dtype).tiny).log()
        on_text = masked_entropy(text_logits(scores, onto), onto.any(1), real)
        return torch.stack([on_text, masked_entropy(scores, real, real)])

    with recording(model, layers, reduce) as tapes:
        mels = model.sample(items, steps=steps, sway_coef=sway_coef, guidance=guidance)
    found = torch.stack([torch.stack(tape) for tape in tapes.values()]).mean(0)  # (steps, 2, b)
    return Trace(model.times(steps, sway_coef)[:-1].cpu(), found[:, 0], found[:, 1], mels)


# Guidance


@dataclass(frozen=True)
class Guidance:
    """Entropy guidance of the sampler; how strong it is, each row says (`Item.ceag_lambda`).

    kind: "ceag", entropy over the characters that sound; "ieag", over all tokens; "random", a random direction of the
    length that CEAG's step would have; "published", the slice of the paper's released code: the first columns of the
    self-attention taken for text whatever the text conditioning, and the log-softmax taken of probabilities.
    start, end: window in the time of the flow. layers: blocks whose attention counts. masked: False leaves padding
    in, for showing what the masks are for. Raises ConfigError on an unknown kind or an empty window.
    """

    kind: str = "ceag"
    start: float = 0.1
    end: float = 0.4
    layers: tuple[int, ...] = (-2, -1)
    masked: bool = True

    def __post_init__(self) -> None:
        if self.kind not in CEAG_VARIANTS:
            raise ConfigError(f"no entropy guidance {self.kind!r}: choose one of {', '.join(CEAG_VARIANTS)}")
        if not self.start < self.end:
            raise ConfigError(f"entropy guidance from t = {self.start} to {self.end}: the window is empty")

    def window(self, t: float) -> float:
        """Raised cosine: 0 outside start..end and at its ends, 1 in the middle."""
        if not self.start <= t <= self.end:
            return 0.0
        return (1 - math.cos(2 * math.pi * (t - self.start) / (self.end - self.start))) / 2


def text_logits(scores: Tensor, onto: Tensor) -> Tensor:
    """Logits of characters: (b, h, n, n) of keys to (b, h, n, nt), the log of the summed exponentials of their keys.

    onto: (b, n, nt), 1 where a key sounds a character. -inf for a character without a key.
    """
    scores = scores.masked_fill(~onto.any(-1)[:, None, None], float("-inf"))
    top = scores.detach().amax(-1, keepdim=True)
    total = (scores - top).exp() @ onto[:, None]
    found = total.clamp(min=torch.finfo(total.dtype).tiny).log() + top
    return found.masked_fill(~onto.any(1)[:, None, None], float("-inf"))


def masked_entropy(scores: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """Mean entropy in nats over heads and queries that count: logits (b, h, n, k) to (b,).

    keys: (b, k), queries: (b, n) bool, at least one of each in a row. Masked before the log-softmax, padding has no
    weight; and its product 0 log 0 is never taken, so that neither value nor gradient becomes NaN.
    """
    silent = ~keys[:, None, None]
    found = scores.masked_fill(silent, float("-inf")).log_softmax(-1)
    each = -(found.exp() * found.masked_fill(silent, 0.0)).sum(-1).mean(1)  # (b, n)
    return each.masked_fill(~queries, 0.0).sum(-1) / queries.sum(-1)


def unmasked_entropy(scores: Tensor) -> Tensor:
    """The same without masks: (b, h, n, k) to (b,). NaN as soon as a logit is -inf."""
    found = scores.log_softmax(-1)
    return -(found.exp() * found).sum(-1).mean((1, 2))


class Guide:
    """Entropy guidance of one batch: what is subtracted from its velocity."""

    def __init__(
        self,
        model: Backbone,
        guidance: Guidance,
        items: Sequence[Item],
        cond: Tensor,
        text: Tensor,
        mask: Tensor | None,
    ) -> None:
        """cond: (b, n, d) the known tokens; text: (b, nt), filler -1; mask: (b, n), None where all rows are full."""
        self.model, self.guidance, self.items = model, guidance, items
        self.cond, self.text, self.mask = cond, text, mask
        self.real = mask if mask is not None else torch.ones_like(cond[..., 0], dtype=torch.bool)
        columns = columns_of(model, items)
        characters = torch.arange(text.shape[1], device=text.device)
        self.onto = (columns[:, :, None] == characters).float()
        self.strength = torch.tensor([item.ceag_lambda for item in items], device=cond.device)[:, None, None]
        self.generators = [torch.Generator().manual_seed(item.seed + SEEDS_APART) for item in items]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor | float:
        """What to subtract from the velocity at x (b, n, d) and time t: (b, n, d), or 0.0 where nothing acts."""
        size = self.guidance.window(float(t))
        if not size or not self.strength.any():
            return 0.0
        step = clipped(self.gradient(x, t)[1])
        if self.guidance.kind == "random":
            step = self._elsewhere(step)
        return self.strength * size * step

    def gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean entropy of each row (b,) at x (b, n, d), and the gradient of its sum over tokens, not clipped."""
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            found = self.entropy(x, t)
            (gradient,) = torch.autograd.grad((found * self.real.sum(-1)).sum(), x)
        return found.detach(), gradient.float()

    def entropy(self, x: Tensor, t: Tensor) -> Tensor:
        """Entropy (b,) of the conditional rows at x (b, n, d), mean of the blocks."""
        tape: list[Tensor] = []
        with _processors(self.model, self.guidance.layers, lambda _, inner: _Tap(inner, tape)):
            self.model.transformer(x=x, cond=self.cond, text=self.text, time=t, mask=self.mask, cache=True)
        return torch.stack([self._entropy(scores) for scores in tape]).mean(0)

    def _entropy(self, scores: Tensor) -> Tensor:
        """Entropy (b,) of one block's logits (b, h, n, n), over what this kind of guidance looks at."""
        kind, keys = self.guidance.kind, self.real
        if kind == "published":
            keys = self.text != FILLER
            scores = scores.softmax(-1)[..., : self.text.shape[1]]
            keys = keys[:, : scores.shape[-1]]
        elif kind != "ieag":
            scores, keys = text_logits(scores, self.onto), self.onto.any(1)
        return masked_entropy(scores, keys, self.real) if self.guidance.masked else unmasked_entropy(scores)

    def _elsewhere(self, step: Tensor) -> Tensor:
        """A random direction in each row, zero in its padding, as long as `step` is there: (b, n, d)."""
        noise = torch.zeros_like(step)
        for row, generator in enumerate(self.generators):
            size = (int(self.real[row].sum()), step.shape[-1])
            noise[row, : size[0]] = torch.randn(size, generator=generator).to(step.device)
        return noise * (_norm(step) / _norm(noise))


def clipped(gradient: Tensor) -> Tensor:
    """A gradient (b, n, d) no longer than 1 in any row."""
    return gradient / _norm(gradient).clamp(min=1.0)


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None]

"""The plug-in adapters: a condition made of voice, persona, style and emotion, and FiLM that carries it into the DiT.

Axes: b batch, n tokens, d channels of the DiT, c channels of the condition.
The backbone stays frozen; of its last blocks the adapters hold their own trained copy (seed, "Architecture Overview").
FiLM acts on what goes into these copies, which can then make of a shifted state what the state means (a pitch is many
channels), on the conditional half of guidance only, so that guidance strengthens what the condition says as it
strengthens the text. A row whose gate is off goes through the frozen blocks: it is what the backbone makes by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pvlib import config
from pvlib.config import EMOTIONS
from pvlib.film import FiLM
from pvlib.oes import OES

PERSONA_GAIN = 10.0  # persona and style come with norm 0.1; beside voice and emotion they would be lost


@dataclass(frozen=True)
class Conditions:
    """What a batch of rows is conditioned on; zeros say nothing.

    embedding: (b, 192) speaker embeddings; persona, style: (b, 64); emotion: (b, 4) shares of the EMOTIONS.
    """

    embedding: Tensor
    persona: Tensor
    style: Tensor
    emotion: Tensor


class Adapters(nn.Module):
    """OES, the emotion's embedding, the tempo, and for each of the last blocks a trained copy and its FiLM."""

    def __init__(self, settings: config.Adapters, transformer: nn.Module) -> None:
        """transformer: the official DiT, whose last blocks are copied as they are."""
        super().__init__()
        self.settings = settings
        self.oes = OES(settings.speaker_dim, settings.environment_dim, settings.env_scale_init)
        self.emotion = nn.Linear(len(EMOTIONS), settings.emotion_dim, bias=False)
        self.blocks = copy.deepcopy(transformer.transformer_blocks[-settings.blocks :]).requires_grad_(True)
        condition = settings.speaker_dim + settings.persona_dim + settings.style_dim + settings.emotion_dim
        self.film = nn.ModuleList(
            FiLM(condition, transformer.dim, settings.film_width) for _ in range(settings.blocks)
        )
        self.tempo = nn.Linear(settings.persona_dim + len(EMOTIONS) - 1, 1, bias=False)
        nn.init.zeros_(self.tempo.requires_grad_(False).weight)  # fitted in one go, not by gradients
        self.mute("style")  # no training speech has a written style: until some has, style says nothing

    def mute(self, part: str) -> None:
        """Let persona, style or emotion say nothing; training without them leaves it so, as their gradient is 0."""
        with torch.no_grad():
            for weight in self._readers(part):
                weight.zero_()

    def hears(self, part: str) -> bool:
        """Whether persona, style or emotion says anything to these adapters."""
        return any(bool(weight.any()) for weight in self._readers(part))

    def _readers(self, part: str) -> list[Tensor]:
        """What FiLM's first layers read one part of the condition with: views of (width, size of the part)."""
        sizes = self.settings
        parts = ("voice", "persona", "style", "emotion")
        widths = (sizes.speaker_dim, sizes.persona_dim, sizes.style_dim, sizes.emotion_dim)
        nets = [net for film in self.film for net in (film.gamma_net, film.beta_net)]
        return [net[0].weight.split(widths, dim=1)[parts.index(part)] for net in nets]

    def condition(
        self, given: Conditions, env_weight: float | Tensor = 0.0, *, use_oes: bool = True
    ) -> Tensor:
        """(b, c): the embedding cleaned by OES, persona, style, emotion.

        env_weight: one number or (b, 1), 0 to 1. use_oes=False leaves the place of the voice empty, as the paper's
        released code does, which computes the cleaned embedding and never passes it on.
        """
        voice = self.oes(given.embedding, env_weight) if use_oes else torch.zeros_like(given.embedding)
        traits, style = PERSONA_GAIN * given.persona, PERSONA_GAIN * given.style
        return torch.cat([voice, traits, style, self.emotion(given.emotion)], -1)

    def stretch(self, given: Conditions) -> Tensor:
        """How many times as long a text lasts when it is said like this: (b,), 1 where nothing is said.

        A flow-matching model speaks at the length that it is given, so what FiLM cannot say of tempo is said here.
        """
        return self.tempo(tempo_input(given.persona, given.emotion))[:, 0].exp()

    @contextmanager
    def modulating(
        self,
        transformer: nn.Module,
        condition: Tensor,
        active: Tensor | None = None,
        *,
        silent: bool = False,
        recompute: bool = False,
    ) -> Iterator[None]:
        """Put the copies, with FiLM, in the place of the last blocks of this DiT for the calls inside.

        condition: (b, c); active: (b,) bool, LAAG's gate, None all on. A pass over 2 b rows (guidance: conditional
        rows first) is modulated in its first half. silent: a pass without any condition, as training has some: the
        copies act, FiLM does not. recompute: keep only what goes into each copy and make the rest again in the
        backward pass (Chen et al., 2016): the same gradients for less memory and a third more time.
        """
        own = transformer.transformer_blocks
        first = len(own) - len(self.blocks)
        frozen = list(own[first:])
        for k, block in enumerate(frozen):
            film = None if silent else self.film[k]
            own[first + k] = _Gated(block, self.blocks[k], film, condition, active, recompute)
        try:
            yield
        finally:
            for k, block in enumerate(frozen):
                own[first + k] = block


def tempo_input(persona: Tensor, emotion: Tensor) -> Tensor:
    """What the tempo depends on: persona (b, 64), and of emotion (b, 4) all shares but neutral's; (b, 64 + 3)."""
    return torch.cat([PERSONA_GAIN * persona, emotion[:, 1:]], -1)


class _Gated(nn.Module):
    """One block of the DiT: the adapters' copy with FiLM for rows whose gate is on, the frozen block for the rest."""

    def __init__(
        self,
        frozen: nn.Module,
        tuned: nn.Module,
        film: FiLM | None,
        condition: Tensor,
        active: Tensor | None,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.frozen, self.tuned, self.film, self.condition = frozen, tuned, film, condition
        self.recompute = recompute
        on = torch.ones(len(condition), dtype=torch.bool) if active is None else active.cpu()
        self.on = on.nonzero()[:, 0].to(condition.device)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None, rope: tuple | None = None) -> Tensor:
        """As the official block: x (b, n, d) or (2 b, n, d), t (b, d) or (2 b, d), mask (b, n) or (2 b, n)."""
        rows = len(self.condition)
        if not len(self.on):
            return self.frozen(x, t, mask=mask, rope=rope)
        chosen = self.on if len(x) == rows else torch.cat([self.on, self.on + rows])
        given = (x[chosen], t[chosen], mask if mask is None else mask[chosen], rope)
        made = checkpoint(self._made, *given, use_reentrant=False) if self.recompute else self._made(*given)
        if len(chosen) == len(x):
            return made
        rest = self.frozen(x, t, mask=mask, rope=rope)
        return rest.index_copy(0, chosen, made.to(rest.dtype))

    def _made(self, x: Tensor, t: Tensor, mask: Tensor | None, rope: tuple | None) -> Tensor:
        """Rows whose gate is on, through the copy; of a guided pass FiLM changes the first half."""
        if self.film is not None:
            first = len(self.on)
            said = self.film(x[:first], self.condition[self.on])
            x = torch.cat([said, x[first:]])
        return self.tuned(x, t, mask=mask, rope=rope)

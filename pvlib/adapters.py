"""The plug-in adapters: a condition made of voice, persona, style and emotion, and FiLM that carries it into the DiT.

Axes: b batch, n tokens, d channels of the DiT, c channels of the condition.
The backbone stays frozen but for its last blocks, of which the adapters hold their own trained copy (seed, "Training"
and Core D). FiLM acts on the output of each of these blocks, on the conditional half of guidance only, so that
guidance strengthens what the condition says as it strengthens the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pvlib import config
from pvlib.config import EMOTIONS
from pvlib.film import FiLM
from pvlib.oes import OES


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
    """OES, the emotion's embedding and one FiLM for each of the last blocks."""

    def __init__(self, settings: config.Adapters, hidden: int) -> None:
        super().__init__()
        self.settings = settings
        self.oes = OES(settings.speaker_dim, settings.environment_dim, settings.env_scale_init)
        self.emotion = nn.Linear(len(EMOTIONS), settings.emotion_dim, bias=False)
        condition = settings.speaker_dim + settings.persona_dim + settings.style_dim + settings.emotion_dim
        self.film = nn.ModuleList(
            FiLM(condition, hidden, settings.film_width) for _ in range(settings.blocks)
        )

    def condition(self, given: Conditions, env_weight: float | Tensor = 0.0) -> Tensor:
        """(b, c): the embedding cleaned by OES, persona, style, emotion. env_weight: one number or (b, 1), 0 to 1."""
        voice = self.oes(given.embedding, env_weight)
        return torch.cat([voice, given.persona, given.style, self.emotion(given.emotion)], -1)

    def none(self, rows: int) -> Conditions:
        """Conditions that say nothing, for so many rows."""
        s, device = self.settings, self.emotion.weight.device
        sizes = (s.speaker_dim, s.persona_dim, s.style_dim, len(EMOTIONS))
        return Conditions(*(torch.zeros(rows, size, device=device) for size in sizes))

    @contextmanager
    def modulating(
        self, blocks: Sequence[nn.Module], condition: Tensor, active: Tensor | None = None
    ) -> Iterator[None]:
        """Let FiLM act on the outputs of these blocks (the last ones of the DiT) for the calls inside.

        condition: (b, c); active: (b,) bool, LAAG's gate, None all on. A pass over 2 b rows (guidance: conditional
        rows first) is modulated in its first half. Raises ValueError when there are not as many blocks as FiLM layers.
        """
        if len(blocks) != len(self.film):
            raise ValueError(f"{len(self.film)} FiLM layers for {len(blocks)} blocks")
        rows = condition.shape[0]

        def hook_of(film: FiLM):
            def hook(block: nn.Module, given: tuple, made: Tensor) -> Tensor:
                first = film(made[:rows], condition, active)
                return first if made.shape[0] == rows else torch.cat([first, made[rows:]])

            return hook

        hooks = [
            block.register_forward_hook(hook_of(film)) for block, film in zip(blocks, self.film, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def last_blocks(transformer: nn.Module, count: int) -> list[nn.Module]:
    """The last `count` blocks of an official DiT."""
    return list(transformer.transformer_blocks[-count:])


def trainable(adapters: Adapters, transformer: nn.Module) -> list[nn.Parameter]:
    """Freeze the DiT but for its last blocks; returns what is trained, adapters first."""
    transformer.requires_grad_(False)
    tuned = nn.ModuleList(last_blocks(transformer, adapters.settings.blocks)).requires_grad_(True)
    return [*adapters.parameters(), *tuned.parameters()]


def state(adapters: Adapters, transformer: nn.Module) -> dict[str, Tensor]:
    """Everything that adapter training changed: "adapters.*" and the tuned "blocks.K.*" by their place in the DiT."""
    found = {f"adapters.{key}": value for key, value in adapters.state_dict().items()}
    depth = len(transformer.transformer_blocks)
    for k, block in enumerate(last_blocks(transformer, adapters.settings.blocks)):
        place = depth - adapters.settings.blocks + k
        found |= {f"blocks.{place}.{key}": value for key, value in block.state_dict().items()}
    return found


def load_state(adapters: Adapters, transformer: nn.Module, found: dict[str, Tensor]) -> None:
    """Take back what `state` gave. Raises RuntimeError naming what does not fit."""
    adapters.load_state_dict(
        {k.removeprefix("adapters."): v for k, v in found.items() if k.startswith("adapters.")}
    )
    depth = len(transformer.transformer_blocks)
    for k, block in enumerate(last_blocks(transformer, adapters.settings.blocks)):
        prefix = f"blocks.{depth - adapters.settings.blocks + k}."
        block.load_state_dict(
            {key.removeprefix(prefix): v for key, v in found.items() if key.startswith(prefix)}
        )

"""The duration predictor, a module that the paper tried and retired: how long each character of a text lasts.

The seed names it and defines nothing. This is FastSpeech's (Ren et al., 2019, section 3.3: two convolutions, each with
ReLU, layer normalisation and dropout, and a linear layer that gives log durations), over characters instead of phones,
since the mini world has none. The speaker's rate comes from the clip as in `laag.letter_duration`; what is new
is that a letter's length depends on its neighbours. Trained by `pvlib train duration-predictor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pvlib import config

DROPOUT = 0.1
TYPICAL_SECONDS = 0.07  # of a character, where training begins


class DurationPredictor(nn.Module):
    """Expected seconds of each character in average speech."""

    def __init__(self, settings: config.DurationPredictor):
        super().__init__()
        self.settings = settings
        self.index = {character: i + 1 for i, character in enumerate(settings.vocabulary)}  # 0: padding
        dim = settings.dim
        self.embed = nn.Embedding(len(self.index) + 1, dim, padding_idx=0)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, dim, settings.kernel, padding=settings.kernel // 2) for _ in range(settings.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(settings.layers))
        self.drop = nn.Dropout(DROPOUT)
        self.out = nn.Linear(dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, math.log(TYPICAL_SECONDS))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Characters to indices, (b, n), padded with 0. A character outside the vocabulary counts as a space."""
        rows = [torch.tensor([self.index.get(c, self.index[" "]) for c in text.lower()]) for text in texts]
        return nn.utils.rnn.pad_sequence([row.long() for row in rows], batch_first=True)

    def forward(self, text: Tensor) -> Tensor:
        """text: (b, n) indices of `encode`. Returns seconds (b, n), 0 for padding."""
        present = (text > 0).unsqueeze(-1)
        x = self.embed(text)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.drop(norm(convolution((x * present).transpose(1, 2)).relu().transpose(1, 2)))
        return (self.out(x).exp() * present).squeeze(-1)

    @torch.inference_mode()
    def seconds_of(self, text: str) -> float:
        """Expected seconds of a whole text in average speech, 0 for an empty one."""
        return float(self(self.encode([text]).to(self.out.weight.device)).sum()) if text else 0.0

"""Core D, FiLM: a condition scales and shifts the hidden layers of a DiT block (Perez et al., 2018; seed, Core D)."""

from __future__ import annotations

from torch import Tensor, nn


class FiLM(nn.Module):
    """h -> h * (1 + gamma(c)) + beta(c).

    The last layers of gamma and beta start at zero: gamma = beta = 0, the identity, so that an untrained adapter
    leaves the frozen backbone as it is.
    """

    def __init__(self, condition_dim: int, hidden_dim: int, width: int = 128) -> None:
        super().__init__()
        self.condition_dim = condition_dim
        self.hidden_dim = hidden_dim
        self.gamma_net = _zero_initialised(condition_dim, width, hidden_dim)
        self.beta_net = _zero_initialised(condition_dim, width, hidden_dim)

    def forward(self, h: Tensor, condition: Tensor, active: Tensor | None = None) -> Tensor:
        """Modulate hidden states.

        h: (batch, frames, hidden_dim); condition: (batch, condition_dim), for instance timbre, persona and emotion
        side by side; active: (batch,) bool, False leaves a row untouched (LAAG's gate), None means all.
        Returns the shape and dtype of h. Raises ValueError when a last axis has the wrong size.
        """
        if h.shape[-1] != self.hidden_dim or condition.shape[-1] != self.condition_dim:
            raise ValueError(
                f"FiLM expects hidden states of {self.hidden_dim} and a condition of {self.condition_dim} channels, "
                f"not {h.shape[-1]} and {condition.shape[-1]}"
            )
        gamma = self.gamma_net(condition).to(h.dtype)[:, None]  # (b, d) -> (b, 1, d)
        beta = self.beta_net(condition).to(h.dtype)[:, None]
        if active is not None:
            gamma, beta = gamma * active[:, None, None], beta * active[:, None, None]
        return h * (1 + gamma) + beta


def _zero_initialised(condition_dim: int, width: int, hidden_dim: int) -> nn.Sequential:
    last = nn.Linear(width, hidden_dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(condition_dim, width), nn.SiLU(), last)

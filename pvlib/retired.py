"""The modules that the paper tried and retired, as pure functions, and one object that the sampler asks at each step.

The seed lists them in a table ("IBOP", "AM-ODE", "TD-CFG", "SBM", "GRPO", "Reference Enhancer") and defines none. What
stands here is the standard mechanism that fits the name, cited where it stands; sizes are our choice. Parameters:
`config.Inference`; each is off by default and then changes no bit.

Axes: b batch, n tokens, m mel frames, d channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Integrator:
    """What AM-ODE, TD-CFG and SBM change in an Euler step x + (s - t) v from time t to s; by default nothing.

    momentum: AM-ODE, None for the plain step. decay: TD-CFG, 0 to 1. noise: SBM, the bridge's sigma.
    """

    momentum: float | None = None
    decay: float = 0.0
    noise: float = 0.0

    def guidance(self, strength: Tensor, t: Tensor) -> Tensor:
        """TD-CFG: guidance that fades linearly, g(t) = g (1 - decay t) / (1 - decay / 2).

        strength: g, any shape. t: scalar, 0 to 1. The linear schedule of Wang et al. ("Analysis of Classifier-Free
        Guidance Weight Schedulers", TMLR 2024), turned to decay. The mean over 0..1 remains g, so that only the
        schedule differs and not the amount.
        """
        if not self.decay:
            return strength
        return strength * (1 - self.decay * t) / (1 - self.decay / 2)

    def direction(self, velocity: Tensor, last: Tensor | None) -> Tensor:
        """AM-ODE: the direction of a step, (1 - w) velocity + w last; the first has no last and is the velocity.

        Heavy-ball momentum (Polyak, 1964) with the weights summing to 1, so that for small steps the same equation is
        solved. With the weight w as initialised, 0, it is the velocity exactly: the identity.
        """
        if self.momentum is None or last is None:
            return velocity
        return (1 - self.momentum) * velocity + self.momentum * last

    def spread(self, t: Tensor, s: Tensor) -> Tensor:
        """SBM: deviation of the noise added by a step from t to s, sigma sqrt((s - t) (1 - s) / (1 - t)).

        The step aims at x + (1 - t) v. Pinned there at time 1, a Brownian bridge at s is normal around the Euler step
        with this deviation, and the last step adds none (bridge sampling: Shi et al., "Diffusion Schrödinger Bridge
        Matching", 2023). The network was trained without the bridge, so a small sigma is all it can take.
        """
        return self.noise * ((s - t) * (1 - s).clamp(min=0) / (1 - t)).sqrt()


EULER = Integrator()


def bottleneck(mel: Tensor, rank: int) -> Tensor:
    """IBOP: a mel spectrogram (m, d) projected on its mean and its `rank` strongest directions; 0 leaves it alone.

    Principal components: of all projections of this rank the one that loses least (Eckart and Young, 1936). Between
    normal variables an information bottleneck is a linear projection too (Chechik et al., 2005).
    """
    if not rank:
        return mel
    mean = mel.mean(0)
    u, s, v = torch.linalg.svd(mel - mean, full_matrices=False)
    return mean + (u[:, :rank] * s[:rank]) @ v[:rank]


def repeats(samples: int, least: float) -> int:
    """Reference enhancer: how often a clip of so many samples is said in a row to last at least `least` samples.

    Whole repetitions only, so that a transcript repeated as often stays true.
    """
    return max(1, math.ceil(least / samples))


def group_relative(rewards: Tensor) -> Tensor:
    """GRPO: advantages (n,) of n samples of one utterance from their rewards (n, r), larger is better.

    Each reward is centred and divided by its deviation within the group, then all are summed (Shao et al.,
    "DeepSeekMath", 2024); a reward that does not vary counts nothing. GRPO is a method of training. The seed calls
    its own "test-time only", which is read here as: draw a group, keep the sample with the highest advantage, train
    nothing.
    """
    centred = rewards - rewards.mean(0)
    return (centred / centred.square().mean(0).sqrt().clamp(min=1e-6)).sum(-1)

"""How far a run is, and the learning rate that goes with it."""

from __future__ import annotations

import math

import torch

from pvlib.training.common import Run


class Progress:
    """How far a run is: by its steps, or by the time budget of this call where that ends sooner.

    first: the step at which it began, for one that goes on from another run's weights.
    """

    def __init__(self, run: Run, steps: int, minutes: float | None, *, first: int = 0):
        self.run, self.steps, self.first = run, steps, first
        self.began = self._by_steps()
        self.budget = None if minutes is None else 60 * minutes

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        by_steps = self._by_steps()
        if self.budget is None:
            return by_steps
        by_time = self.began + (1 - self.began) * self.run.spent / max(self.budget, 1e-9)
        return min(1.0, max(by_steps, by_time))

    def _by_steps(self) -> float:
        return min(1.0, (self.run.step - self.first) / max(1, self.steps - self.first))


class Schedule(Progress):
    """Warm-up and cosine over `steps`, shortened to fit a time budget.

    The cosine follows the steps, or hurries so that the seconds of this call end at the floor. A resumed run
    continues on the cosine of its new total.
    """

    def __init__(
        self, run: Run, *, steps: int, minutes: float | None, peak: float, warmup: int, floor: float = 0.01
    ):
        super().__init__(run, steps, minutes)
        self.peak, self.warmup, self.floor = peak, warmup, floor

    def rate(self) -> float:
        """Learning rate of the next step."""
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * self.progress))
        return self.peak * cosine * min(1.0, (self.run.step + 1) / self.warmup)

    def apply(self, *optimizers: torch.optim.Optimizer) -> float:
        """Set the rate of every group of the optimisers, and return it."""
        rate = self.rate()
        set_rate(rate, *optimizers)
        return rate


def set_rate(rate: float, *optimizers: torch.optim.Optimizer) -> None:
    """Set the rate of every group of the optimisers."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate

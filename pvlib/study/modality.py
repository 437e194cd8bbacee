"""One heap or two: evidence that values are bimodal, such as error rates that are either perfect or hopeless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pvlib.study.statistics import ALPHA

TWO_MODES = 5 / 9  # Sarle's coefficient of a uniform distribution; above it speaks for two modes
PERFECT, BROKEN = 0.0, 0.8  # error rates: the paper counts its ultra-short texts at these two ends
HEAP = 0.1  # of all is the least that makes a heap
RESAMPLES = 4999  # the smallest p is 1 / 5000: below 0.05 after Holm's correction of two hundred tests


@dataclass(frozen=True)
class Bimodality:
    """Evidence of two modes in n values.

    coefficient: Sarle's, above 5/9 for two modes (Pfister et al., 2013; skewness raises it too). bandwidth: the
    smallest at which a Gaussian kernel density has one mode; p: of the hypothesis of one mode (Silverman, 1981,
    conservative); modes: where they lie just below that bandwidth.
    """

    n: int
    coefficient: float
    bandwidth: float
    p: float
    modes: tuple[float, ...]

    @property
    def two(self) -> bool:
        """Whether two modes are shown, before any correction for several tests."""
        return self.p < ALPHA and self.coefficient > TWO_MODES

    @property
    def lacking(self) -> str:
        """What two modes lack; "" where they are shown."""
        if self.two:
            return ""
        if self.p < ALPHA:
            return "one mode is unlikely, yet the coefficient is not above 5/9"
        return "more than one mode is not shown"

    def __str__(self) -> str:
        return f"coefficient {self.coefficient:.3f}, one mode: p = {self.p:.3f}"


@dataclass(frozen=True)
class Ends:
    """How many error rates are perfect, how many broken (above `BROKEN`), and how many lie between."""

    perfect: int
    between: int
    broken: int

    @property
    def smaller(self) -> int:
        """How many are at the end that holds fewer."""
        return min(self.perfect, self.broken)

    @property
    def heap(self) -> bool:
        """Whether a heap (a share of `HEAP`) lies at either end."""
        return self.smaller >= HEAP * (self.perfect + self.between + self.broken)

    @property
    def two(self) -> bool:
        """Whether a heap lies at either end, and fewer between than in either."""
        return self.heap and self.between < self.smaller


def ends(error_rates: Sequence[float]) -> Ends:
    """Error rates counted at both ends and between. A test of modes alone takes any few at an end for a mode."""
    x = np.asarray(error_rates, dtype=float)
    perfect, broken = int((x <= PERFECT).sum()), int((x > BROKEN).sum())
    return Ends(perfect, len(x) - perfect - broken, broken)


def bimodality(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Bimodality:
    """Whether values come in two heaps: Sarle's coefficient, and Silverman's bootstrap test of one mode.

    The test draws from the density of the smallest bandwidth with one mode, rescaled to the sample's variance, and
    counts how often the same bandwidth shows more. Its p is (count + 1) / (resamples + 1), so never below
    1 / (resamples + 1). A large p does not show one heap: the test can speak for two, or be silent.
    values: (n,), n at least 4. Raises ValueError on fewer, on one that is not finite and on values that are all the
    same.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 4 or not np.isfinite(x).all() or np.ptp(x) == 0:
        raise ValueError(f"{x.size} values: four or more are needed, finite and not all the same")
    width = critical_bandwidth(x)
    rng = np.random.default_rng(seed)
    shrink = np.sqrt(1 + width**2 / x.var(ddof=1))
    more = 0
    for _ in range(resamples):
        drawn = rng.choice(x, len(x)) + width * rng.normal(size=len(x))
        more += len(kernel_modes(x.mean() + (drawn - x.mean()) / shrink, width)) > 1
    return Bimodality(
        len(x),
        bimodality_coefficient(x),
        width,
        (more + 1) / (resamples + 1),
        kernel_modes(x, 0.99 * width),
    )


def bimodality_coefficient(values: Sequence[float]) -> float:
    """Sarle's coefficient, (skewness^2 + 1) / kurtosis, with the corrections for a finite sample (n at least 4)."""
    from scipy.stats import kurtosis, skew

    n = len(values)
    tails = kurtosis(values, bias=False) + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return float((skew(values, bias=False) ** 2 + 1) / tails)


def critical_bandwidth(values: np.ndarray) -> float:
    """The smallest bandwidth at which the Gaussian kernel density of values has one mode, to a ten-thousandth."""
    low, high = 0.0, np.ptp(values)  # modes never grow in number with a Gaussian bandwidth
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        if len(kernel_modes(values, middle)) > 1:
            low = middle
        else:
            high = middle
        if high < 1e-3 * np.ptp(values):
            break
    return float(high)


def kernel_modes(values: np.ndarray, bandwidth: float) -> tuple[float, ...]:
    """Where the Gaussian kernel density of values has its modes, on a grid of at most a quarter of the bandwidth."""
    points, counts = np.unique(values, return_counts=True)
    low, high = points[0] - bandwidth, points[-1] + bandwidth
    grid = np.linspace(low, high, max(256, int(4 * (high - low) / bandwidth) + 2))
    density = np.exp(-0.5 * ((grid[:, None] - points) / bandwidth) ** 2) @ counts
    slope = np.sign(np.diff(density))
    moving = np.flatnonzero(slope)  # far from every value the density underflows to a flat zero
    tops = (slope[moving][:-1] > 0) & (slope[moving][1:] < 0)
    return tuple(float(x) for x in grid[moving[1:][tops]])

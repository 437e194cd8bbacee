"""Real-time factor: seconds of computing per second of speech, one utterance at a time, warm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pvlib.audio import SAMPLE_RATE
from pvlib.systems.base import Request, System


@dataclass(frozen=True)
class Timing:
    """One timed utterance."""

    utterance: str
    generated_seconds: float
    synthesis_seconds: float

    @property
    def rtf(self) -> float:
        return self.synthesis_seconds / self.generated_seconds


@dataclass(frozen=True)
class Benchmark:
    """What a system needs per second of speech: the median and the range over utterances."""

    system: str
    timings: tuple[Timing, ...]
    failures: int

    @property
    def values(self) -> np.ndarray:
        return np.array([t.rtf for t in self.timings])

    def to_dict(self) -> dict:
        values = self.values
        found = len(values) > 0
        return {
            "system": self.system,
            "median": float(np.median(values)) if found else None,
            "low": float(values.min()) if found else None,
            "high": float(values.max()) if found else None,
            "utterances": len(values),
            "failures": self.failures,
            "timings": [{**asdict(t), "rtf": t.rtf} for t in self.timings],
        }


def benchmark(
    systems: Sequence[System],
    requests: Sequence[Request],
    *,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] | None = None,
) -> list[Benchmark]:
    """Time each request on its own: front end, transcript of the clip, sampling and vocoder together.

    Systems take turns, so that a slower minute of the machine is one of all of them: each says the first request, then
    each the second, and so on. requests: the first one warms the systems up and is not counted, so at least two.
    progress: called with 1 after each request of each system. Returns one benchmark per system, in their order. Raises
    ValueError on fewer than two requests.
    """
    if len(requests) < 2:
        raise ValueError("a benchmark needs at least two requests: the first one only warms up")
    timings: list[list[Timing]] = [[] for _ in systems]
    failures = [0] * len(systems)
    for turn, request in enumerate(requests):
        for index, system in enumerate(systems):
            start = clock()
            (result,) = system.synthesise([request])
            seconds = clock() - start
            if progress is not None:
                progress(1)
            if turn == 0:
                continue
            if result.wave is None:
                failures[index] += 1
                continue
            timings[index].append(Timing(request.utterance, len(result.wave) / SAMPLE_RATE, seconds))
    return [
        Benchmark(system.name, tuple(own), failed)
        for system, own, failed in zip(systems, timings, failures, strict=True)
    ]

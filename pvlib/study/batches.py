"""Our batches beside the official inference function: the same weights, texts, lengths and noise.

`full_size` times random weights. These here speak, so it can also be asked whether a batch says the same in the same
voice. Batches are made as a study makes them, on a CPU by several processes that share the cores; what these alone give
is told by the official function in as many. And what bounds the gain is measured: the multiplications that the networks
do, and how fast this machine multiplies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from pvlib import audio, laag, paths
from pvlib.backbone import Item
from pvlib.config import Profile
from pvlib.metrics.judges import Exhibit, Panel
from pvlib.study import manifest as manifests
from pvlib.study.evaluate import shared_judges
from pvlib.study.full_size import BEST, DTYPES, SIDES, TARGETS, usual_dtypes
from pvlib.study.kept import kept
from pvlib.study.launch import usual_jobs
from pvlib.study.manifest import Manifest
from pvlib.study.provenance import cores, machine
from pvlib.study.ranks import RanksError
from pvlib.systems.base import Request
from pvlib.systems.f5 import F5Official, as_read, chunks, closed
from pvlib.systems.fingerprint import digest, module_path, source_hash
from pvlib.text import TextError, normalise

UTTERANCES = 32
BATCH = {"cuda": 16, "cpu": 1}  # of each process; on a CPU further rows only fill its caches
SHARED = "official, shared"  # the official function in as many processes as our side has
PATIENCE = 600.0  # seconds until every process has loaded and warmed up
HEARD = ("wer_capped", "secs_ecapa_clip", "secs_ge2e_clip")
CLOSE = 0.01  # by which the means of what is heard may differ
CLIP_HOPS = audio.CLIP_SAMPLES // audio.HOP_LENGTH
SQUARES = (512, 1024, 2048)  # sides of the matrices whose product is timed
TIMES = 5  # that each is multiplied; the quickest counts
LONGEST = 5.0  # seconds that one product may take
LOUD = 0.1  # root mean square to which the official function raises a quiet clip


@dataclass(frozen=True)
class Asked:
    """What the official function is given for a request, and how many mel frames it fills, the clip's included.

    read: the clip's text as it reads it, with a space of its own behind an ASCII character.
    """

    request: Request
    reference_text: str
    read: str
    text: str
    frames: int


class Pair(F5Official):
    """One backbone, one vocoder, and two ways to speak with them."""

    def asked(self, requests: Sequence[Request]) -> list[Asked]:
        """What the official function is asked of requests, without those that it would cut into pieces or refuse."""
        vocabulary, found = self._model("backbone").vocabulary, []
        for request, transcript in zip(requests, self.transcripts(requests), strict=True):
            try:
                reference_text = closed(normalise(transcript, vocabulary, "the transcript"))
                text = normalise(request.text, vocabulary, request.utterance)
            except TextError:
                continue
            if len(chunks(text, reference_text, audio.CLIP_SECONDS, self.profile.inference.speed)) == 1:
                read = as_read(reference_text)
                frames = laag.duration(CLIP_HOPS, read, text, self.profile.inference)
                found.append(Asked(request, reference_text, read, text, frames))
        return found

    def official(self, asked: Sequence[Asked], precision: torch.dtype) -> list[np.ndarray]:
        """One text at a time by the official function: waves (s,)."""
        with _forward_in(self._model("backbone").transformer, precision):
            return [
                self.infer(self.reference(one.request), one.reference_text, one.text, one.request.seed)
                for one in asked
            ]

    def companion(
        self, asked: Sequence[Asked], precision: torch.dtype, steps: int | None = None
    ) -> list[np.ndarray]:
        """All texts in one batch by our sampler, otherwise as the official function does: waves (s,).

        steps: instead of the profile's own.
        """
        model, inference = self._model("backbone"), self.profile.inference
        model.precision = precision
        levels = [float(np.sqrt(np.mean(np.square(one.request.clip)))) for one in asked]
        gains = [LOUD / level if 0 < level < LOUD else 1.0 for level in levels]
        items = [
            Item(
                audio.mel(torch.from_numpy(one.request.clip) * gain)[0].T,
                one.read,
                one.text,
                one.frames,
                seed=one.request.seed,
                cfg_strength=inference.cfg_strength,
                pinned=False,
            )
            for one, gain in zip(asked, gains, strict=True)
        ]
        mels = model.sample(items, steps=steps or inference.steps, sway_coef=inference.sway_coef)
        with torch.inference_mode():
            return [
                self._model("vocoder").decode(mel[CLIP_HOPS:].T[None].to(self.device))[0].cpu().numpy() / gain
                for mel, gain in zip(mels, gains, strict=True)
            ]


def products(pair: Pair, asked: Sequence[Asked]) -> float:
    """How many multiplications the matrix products, convolutions and attention of backbone and vocoder take.

    Of the texts one by one, so that no padding counts. Every step takes the same, so two of them tell all. Fourier
    transforms, norms and activations do not count.
    """
    counted = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            for one in asked:
                pair.companion([one], torch.float32, steps)
        counted.append(counter.get_total_flops() / 2)  # which counts a multiplication and an addition
    first, second = counted
    return first + (pair.profile.inference.steps - 1) * (second - first)


def best_rate(precision: torch.dtype, device: torch.device, squares: Sequence[int] = SQUARES) -> float:
    """How many multiplications a second this machine does at best in products of square matrices, on all threads.

    Matrices that would take more than `LONGEST` are left out: so slow a machine is at its best in smaller ones.
    """
    rates = []
    for n in squares:
        if rates and n**3 / max(rates) > LONGEST:
            break
        a, b = torch.rand(2, n, n, device=device).to(precision)
        for _ in range(TIMES):
            begun = time.perf_counter()
            a @ b
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            rates.append(n**3 / (time.perf_counter() - begun))
    return max(rates)


@contextlib.contextmanager
def _forward_in(network: nn.Module, precision: torch.dtype) -> Iterator[None]:
    """Let a network multiply in this precision, in whichever thread it is called."""
    usual = network.forward

    def forward(*given: Any, **named: Any) -> Any:
        with torch.autocast(next(network.parameters()).device.type, precision, precision != torch.float32):
            return usual(*given, **named).float()

    network.forward = forward
    try:
        yield
    finally:
        del network.forward


def measured(profile: Profile, samples: int, *, progress: bool = True) -> pd.DataFrame | None:
    """`measure`, kept in `build/results/<profile>/batches.json`; None in a study that is not complete.

    What was measured on this machine with the same weights and sources is not measured again, so that a notebook that
    runs beside another one shows the times of a quiet machine.
    """
    if samples < profile.samples:
        return None
    device, jobs = _device(), usual_jobs(profile)
    made_by = Pair("", profile, device).fingerprint(), shared_judges(profile).fingerprint()
    sizes = UTTERANCES, BATCH[device.type], usual_dtypes(device), jobs
    key = digest([machine(), *made_by, source_hash(module_path(__name__)), sizes])

    def again() -> dict[str, object]:
        return {"lines": measure(profile, progress=progress).to_dict(orient="records")}

    return pd.DataFrame(kept(paths.WORKING_ROWS / profile.name / "batches.json", key, again)["lines"])


def measure(
    profile: Profile,
    *,
    utterances: int = UTTERANCES,
    batch: int | None = None,
    jobs: int | None = None,
    precisions: Sequence[str] | None = None,
    manifest: Manifest | None = None,
    judges: Panel | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Both sides on the same texts, each alone and then judged; a line per precision and side.

    Taken are the first texts of the study's sample that the official function says in one piece. batch: rows of one of
    ours, by default `BATCH`; jobs: processes that make batches at the same time, by default those of a study
    (`launch.usual_jobs`); precisions: by default `usual_dtypes`. The official function speaks in one process with all
    threads and, where jobs is over 1, a second time in as many (`SHARED`). A batch for each process is made by each
    side in each precision in turn, so that a machine that slows down slows them all; a first text warms up.
    Columns: dtype, side, batch, processes, utterances, seconds, utterances_per_minute, the means of `HEARD`, products
    (10^9 multiplications that the networks do for all texts) and best_rate (10^9 a second, at most, on this machine).
    Raises what `hub` and `manifest` raise.
    """
    manifest, judges = manifest or manifests.read(profile.manifest), judges or shared_judges(profile)
    device = _device()
    batch, jobs = batch or BATCH[device.type], jobs or usual_jobs(profile)
    precisions = precisions or usual_dtypes(device)
    pair = Pair("f5-official", profile, device)
    sample = manifest.sample(min(profile.samples, len(manifest.table)), profile.seed)
    asked = pair.asked(manifest.requests(sample.head(2 * utterances)))[:utterances]
    asked = sorted(asked, key=lambda one: one.frames)
    sides = SIDES if jobs == 1 else (*SIDES, SHARED)
    ways = [(dtype, side) for dtype in precisions for side in sides]

    with _processes(jobs, profile, device, asked[:1], precisions) as pool:

        def speak(dtype: str, side: str, some: Sequence[Asked]) -> list[np.ndarray]:
            if side == "official" or pool is None:
                return _say(pair, side, dtype, some)
            shares = [some[first::jobs] for first in range(jobs)]
            tasks = [pool.submit(_say_here, side, dtype, share) for share in shares]
            made = [iter(task.result()) for task in tasks]
            return [next(made[number % jobs]) for number in range(len(some))]

        for way in ways:
            speak(*way, asked[:1])
        waves, seconds = {way: [] for way in ways}, dict.fromkeys(ways, 0.0)
        with tqdm(
            total=len(asked) * len(ways), desc="batches", unit="utterance", disable=not progress
        ) as bar:
            for start in range(0, len(asked), jobs * batch):
                some = asked[start : start + jobs * batch]
                for way in ways:
                    begun = time.perf_counter()
                    waves[way] += speak(*way, some)
                    seconds[way] += time.perf_counter() - begun
                    bar.update(len(some))
    needed = products(pair, asked)
    rates = {dtype: best_rate(DTYPES[dtype], pair.device) for dtype in precisions}
    lines = []
    for dtype, side in ways:
        exhibits = [
            Exhibit(wave, one.text, one.request.clip, manifest.enrolment.get(one.request.speaker, {}))
            for one, wave in zip(asked, waves[dtype, side], strict=True)
        ]
        heard = pd.DataFrame([vars(verdict) for verdict in judges.judge(exhibits)])
        spent = seconds[dtype, side]
        lines.append(
            {
                "dtype": dtype,
                "side": side,
                "batch": batch if side == "companion" else 1,
                "processes": 1 if side == "official" else jobs,
                "utterances": len(asked),
                "seconds": spent,
                "utterances_per_minute": 60 * len(asked) / spent,
                **heard[list(HEARD)].mean().to_dict(),
                "products": needed / 1e9,
                "best_rate": rates[dtype] / 1e9,
            }
        )
    return pd.DataFrame(lines)


def _say(pair: Pair, side: str, dtype: str, some: Sequence[Asked]) -> list[np.ndarray]:
    return (pair.companion if side == "companion" else pair.official)(some, DTYPES[dtype])


_PAIR: list[Pair] = []  # of a process of `_processes`


def _say_here(side: str, dtype: str, some: Sequence[Asked]) -> list[np.ndarray]:
    return _say(_PAIR[0], side, dtype, some) if some else []


def _begin(
    ready: Barrier,
    profile: Profile,
    device: torch.device,
    threads: int,
    first: Sequence[Asked],
    precisions: Sequence[str],
) -> None:
    torch.set_num_threads(threads)
    try:
        _PAIR.append(Pair("f5-official", profile, device))
        for dtype in precisions:
            for side in SIDES:
                _say_here(side, dtype, first)
    except BaseException:
        ready.abort()
        raise
    ready.wait(PATIENCE)


@contextlib.contextmanager
def _processes(
    jobs: int, profile: Profile, device: torch.device, first: Sequence[Asked], precisions: Sequence[str]
) -> Iterator[Executor | None]:
    """Processes that share the cores and have said a first text; None for one, which is this one."""
    if jobs == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    ready, threads = context.Barrier(jobs), max(1, cores() // jobs)
    given = (ready, profile, device, threads, first, precisions)
    with ProcessPoolExecutor(jobs, context, _begin, given) as pool:
        try:
            for started in [pool.submit(int) for _ in range(jobs)]:  # each task starts a process
                started.result()
            yield pool
        except BrokenProcessPool as error:
            raise RanksError(
                f"one of the {jobs} processes that share the batches failed, was killed (memory?), or was not ready "
                f"within {PATIENCE // 60} minutes; finished rows are kept: run again with --jobs 1"
            ) from error


def ratios(found: pd.DataFrame) -> dict[str, float]:
    """Our utterances a minute over the official function's: in each dtype, and each side at its best."""
    wide = found.pivot(index="dtype", columns="side", values="utterances_per_minute")
    same = (wide["companion"] / wide["official"]).to_dict()
    best = wide.max()
    return {
        **{f"same dtype, {dtype}": ratio for dtype, ratio in same.items()},
        BEST: best["companion"] / best["official"],
    }


def ceilings(found: pd.DataFrame) -> dict[str, float]:
    """What `ratios` could be at most: if our side did nothing but the products, at the machine's best rate."""
    official = found[found["side"] == "official"].set_index("dtype")
    least = official["products"] / official["best_rate"]  # seconds
    same = (official["seconds"] / least).to_dict()
    return {
        **{f"same dtype, {dtype}": ratio for dtype, ratio in same.items()},
        BEST: official["seconds"].min() / least.min(),
    }


def shares(found: pd.DataFrame) -> dict[str, float]:
    """Of the machine's best rate, the share that our side's products come at, in each dtype."""
    own = found[found["side"] == "companion"].set_index("dtype")
    return (own["products"] / own["seconds"] / own["best_rate"]).to_dict()


def bound(found: pd.DataFrame) -> str:
    """In words: what bounds the gain on this machine, beside the targets."""
    own = found[found["side"] == "companion"].set_index("dtype")
    rates = ", ".join(f"{rate:.0f} ({dtype})" for dtype, rate in own["best_rate"].items())
    most = ", ".join(f"{name}, {ratio:.1f}" for name, ratio in ceilings(found).items())
    used = ", ".join(f"{share:.0%} ({dtype})" for dtype, share in shares(found).items())
    return (
        f"The networks do {own['products'].iloc[0]:.0f} thousand million multiplications for these texts, and this "
        f"machine does at best so many thousand million a second: {rates}. A sampler of nothing but products would "
        f"make at most so many times as many utterances a minute as the official function: {most}; ours comes at a "
        f"share of that rate of {used}."
    )


def differences(found: pd.DataFrame) -> dict[str, float]:
    """The largest absolute difference between the two sides' means, over the dtypes, of each of `HEARD`."""
    wide = found.pivot(index="dtype", columns="side", values=list(HEARD))
    return {name: float((wide[name, "companion"] - wide[name, "official"]).abs().max()) for name in HEARD}


def by_processes(found: pd.DataFrame) -> str:
    """In words: what the processes alone give, and what is left to ours; nothing where our side has one."""
    wide = found.pivot(index="dtype", columns="side", values="utterances_per_minute")
    if SHARED not in wide:
        return ""

    def gains(side: str, other: str) -> str:
        return ", ".join(f"{gain:.2f} ({dtype})" for dtype, gain in (wide[side] / wide[other]).items())

    n = int(found["processes"].max())
    return (
        f" Of that, {n} processes that share the cores alone give the official function, text by text: "
        f"{gains(SHARED, 'official')}. Like for like, in as many processes, ours makes so many times as many: "
        f"{gains('companion', SHARED)}."
    )


def told(found: pd.DataFrame | None) -> str:
    """In words: how many times as many utterances a minute, against `TARGETS`, and whether the same is heard."""
    if found is None:
        return "Batches are held against the official function in a complete study only."
    own, n = found[found["side"] == "companion"].iloc[0], int(found["utterances"].iloc[0])
    parts = []
    for name, ratio in ratios(found).items():
        target = next(value for start, value in TARGETS.items() if name.startswith(start))
        parts.append(f"{name}, {ratio:.2f} (target {target:g}: {'met' if ratio >= target else 'missed'})")
    apart = differences(found)
    heard = ", ".join(f"`{name}` {value:.4f}" for name, value in apart.items())
    close = "met" if max(apart.values()) <= CLOSE else "missed"
    way = "one at a time" if own["batch"] == 1 else f"in batches of {own['batch']}"
    way += f" in each of {own['processes']} processes" if own["processes"] > 1 else ""
    return (
        f"On {n} texts, {way}, our sampler makes so many times as many utterances a "
        f"minute as the official function with the same weights, lengths and noise: {'; '.join(parts)}."
        f"{by_processes(found)} Means differ by at most: {heard} (target {CLOSE:g}: {close}). {bound(found)}"
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

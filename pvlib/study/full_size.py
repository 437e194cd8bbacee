"""Speed of the full-size F5-TTS with random weights: our sampler beside the official inference function.

Time and memory do not depend on what the weights are, so this needs no download: the official DiT (337 M parameters)
and Vocos, drawn at random, generate a given length after one second of noise. Both sides get the same texts, lengths,
steps and dtype; the official function takes one text at a time, ours a whole batch.
"""

from __future__ import annotations

import contextlib
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import audio, backbone, hub, paths, vocoder
from pvlib.config import PAPER, Profile
from pvlib.study.provenance import commit, machine
from pvlib.study.rows import write_text
from pvlib.systems import f5
from pvlib.systems.fingerprint import package_versions

NFE = (32, 16, 7)
BATCHES = (1, 16)
SECONDS = 3.0
SIDES = ("official", "companion")
REFERENCE_TEXT = "Some call me nature. "
TEXT = "The river keeps its secrets."
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FOLDER = paths.RESULTS / "speed"


class SpeedError(ValueError):
    """A measurement that cannot be made as asked; the message names the value."""


@dataclass(frozen=True)
class Measured:
    """One setting on one side. latency: seconds until all of the batch is there (median); rtf: per second of speech.

    peak_gb: memory of the process (CPU) or of the tensors (GPU) at its highest; NaN where the system does not tell.
    """

    side: str
    dtype: str
    nfe: int
    batch: int
    generated_seconds: float
    latency: float
    rtf: float
    utterances_per_minute: float
    peak_gb: float
    repeats: int


def measure(
    *,
    nfe: Sequence[int] = NFE,
    batches: Sequence[int] = BATCHES,
    dtypes: Sequence[str] = ("fp32", "bf16"),
    seconds: float = SECONDS,
    repeats: int = 1,
    device: torch.device | str | None = None,
    profile: Profile = PAPER,
    progress: bool = True,
) -> pd.DataFrame:
    """One line per side, dtype, NFE and batch, in one run on this machine.

    seconds: of speech to generate behind one second of reference. repeats: of each, after a warm-up of one step.
    Raises SpeedError on a value out of range.
    """
    if not 0.1 <= seconds <= 20:
        raise SpeedError(f"{seconds} seconds of speech: give 0.1 to 20")
    if unknown := set(dtypes) - DTYPES.keys():
        raise SpeedError(f"no dtype {', '.join(sorted(unknown))}: choose among {', '.join(DTYPES)}")
    if min((*nfe, *batches, repeats)) < 1:
        raise SpeedError("NFE, batch and repeats start at 1")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    vocabulary = hub.packaged_vocabulary()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = backbone.build(profile.backbone, vocabulary).eval()
        voice = vocoder.build(profile.vocoder).eval().to(device)
    grid = [(d, n, b, side) for d in dtypes for n in nfe for b in batches for side in SIDES]
    found = []
    with tqdm(total=len(grid), desc="full size", unit="setting", disable=not progress) as bar:
        for dtype, steps, batch, side in grid:
            model.to(device=device, dtype=DTYPES[dtype])
            bar.set_postfix_str(f"{side} {dtype} NFE {steps} batch {batch}")
            model.precision = DTYPES[dtype]
            speak = {"official": _official, "companion": _companion}[side](model, voice, seconds)
            speak(1, 1)
            _reset_peak(device)
            spent = [_timed(speak, steps, batch, device) for _ in range(repeats)]
            latency = statistics.median(spent)
            found.append(
                Measured(
                    side, dtype, steps, batch, seconds, latency, latency / (batch * seconds), 60 * batch / latency,
                    _peak_gb(device), repeats,
                )
            )  # fmt: skip
            bar.update()
    return pd.DataFrame([asdict(line) for line in found])


def ratios(measured: pd.DataFrame) -> pd.DataFrame:
    """Our utterances per minute over those of the official function: in the same dtype, and each side's best."""
    wide = measured.pivot(index=["nfe", "batch", "dtype"], columns="side", values="utterances_per_minute")
    same = (wide["companion"] / wide["official"]).unstack("dtype").add_prefix("same dtype, ")
    best = wide.groupby(level=["nfe", "batch"]).max()
    return same.assign(**{"each side's best": best["companion"] / best["official"]}).reset_index()


def record(measured: pd.DataFrame, name: str) -> Path:
    """Write the measurement with machine and versions to data/results/speed/<name>.json."""
    content = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "packages": package_versions(),
        "commit": commit(),
        "parameters": "random weights; the official DiT of F5TTS_v1_Base and Vocos",
        "measured": json.loads(measured.to_json(orient="records")),
        "ratios": json.loads(ratios(measured).to_json(orient="records")),
    }
    return write_text(FOLDER / f"{name}.json", json.dumps(content, indent=2) + "\n")


def _reference() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(audio.CLIP_SAMPLES)).astype(np.float32)


def _official(model: backbone.Backbone, voice: Any, seconds: float) -> Callable[[int, int], None]:
    process, device = f5.official(), model.device
    clip = (torch.from_numpy(_reference())[None], audio.SAMPLE_RATE)

    def speak(steps: int, batch: int) -> None:
        for _ in range(batch):
            next(
                process.infer_batch_process(
                    clip,
                    REFERENCE_TEXT,
                    [TEXT],
                    model.cfm,
                    voice,
                    progress=None,
                    nfe_step=steps,
                    cfg_strength=PAPER.inference.cfg_strength,
                    fix_duration=audio.CLIP_SECONDS + seconds,
                    device=device,
                )
            )

    return speak


def _companion(model: backbone.Backbone, voice: Any, seconds: float) -> Callable[[int, int], None]:
    mel = audio.mel(torch.from_numpy(_reference()))[0].T
    frames = len(mel) + round(seconds * audio.SAMPLE_RATE / audio.HOP_LENGTH)

    def speak(steps: int, batch: int) -> None:
        items = [backbone.Item(mel, REFERENCE_TEXT, TEXT, frames, seed=k) for k in range(batch)]
        made = torch.stack(model.sample(items, steps=steps))[:, len(mel) :]
        with torch.inference_mode():
            voice.decode(made.transpose(1, 2).to(model.device))

    return speak


def _timed(speak: Callable[[int, int], None], steps: int, batch: int, device: torch.device) -> float:
    gc.collect()
    start = time.perf_counter()
    speak(steps, batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the highest resident size so far


def _peak_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) * 1024 / 1e9 for line in status.splitlines() if line.startswith("VmHWM"))

"""Speed of the full-size F5-TTS with random weights: our sampler beside the official inference function.

Time and memory do not depend on what the weights are, so this needs no download: the official DiT (337 M parameters)
and Vocos, drawn at random, generate a given length after one second of noise. Both sides get the same texts, lengths,
steps and dtype; the official function takes one text at a time, ours a whole batch.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pvlib import audio, backbone, hub, paths, vocoder
from pvlib.config import PAPER, Profile
from pvlib.study.comparisons import many
from pvlib.study.provenance import commit, machine
from pvlib.study.rows import write_text
from pvlib.systems import f5
from pvlib.systems.fingerprint import digest, fingerprint, package_versions

NFE = (32, 16, 7)
BATCHES = (1, 16)
SECONDS = 3.0
SIDES = ("official", "companion")
REFERENCE_TEXT = "Some call me nature. "
TEXT = "The river keeps its secrets."
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BEST = "each side's best"
TARGETS = {"same dtype": 2.0, BEST: 6.0}  # times as many utterances a minute, of a batch
SETTING = ("dtype", "nfe", "batch", "side")
FOLDER = paths.RESULTS / "speed"


def usual_dtypes(device: torch.device | str) -> tuple[str, ...]:
    """fp32, and bf16 where the hardware multiplies in it: where it does not, bf16 takes many times as long as fp32."""
    return ("fp32", "bf16") if hub.precision(device) == torch.bfloat16 else ("fp32",)


class SpeedError(ValueError):
    """A measurement that cannot be made as asked; the message names the value."""


@dataclass(frozen=True)
class Measured:
    """One setting on one side. latency: seconds until all of the batch is there (median); rtf: per second of speech.

    peak_gb: memory of the process (CPU) or of the tensors (GPU) at its highest; NaN where the system does not tell.
    refused: why this side makes nothing in this setting, and has no times; empty where it does.
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
    refused: str = ""


class _RefusedError(Exception):
    """A side that cannot do what is asked, by its own words."""


def measure(
    *,
    nfe: Sequence[int] = NFE,
    batches: Sequence[int] = BATCHES,
    dtypes: Sequence[str] | None = None,
    seconds: float = SECONDS,
    repeats: int = 1,
    device: torch.device | str | None = None,
    profile: Profile = PAPER,
    progress: bool = True,
    known: pd.DataFrame | None = None,
    keep: Callable[[pd.DataFrame], object] | None = None,
) -> pd.DataFrame:
    """One line per side, dtype, NFE and batch, on this machine.

    dtypes: default `usual_dtypes`. seconds: of speech to generate behind one second of reference. repeats: of each,
    after a warm-up of one step. known: lines of settings that are not measured again (`recorded`); they come first.
    keep: called with all lines after each setting. Raises SpeedError on a value out of range.
    """
    if not 0.1 <= seconds <= 20:
        raise SpeedError(f"{seconds} seconds of speech: give 0.1 to 20")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtypes = usual_dtypes(device) if dtypes is None else dtypes
    if unknown := set(dtypes) - DTYPES.keys():
        raise SpeedError(f"no dtype {', '.join(sorted(unknown))}: choose among {', '.join(DTYPES)}")
    if min((*nfe, *batches, repeats)) < 1:
        raise SpeedError("NFE, batch and repeats start at 1")
    known = pd.DataFrame(columns=list(SETTING)) if known is None else known
    there = set(known[list(SETTING)].itertuples(index=False, name=None))
    grid = [(d, n, b, side) for d in dtypes for n in nfe for b in batches for side in SIDES]
    grid = list(dict.fromkeys(setting for setting in grid if setting not in there))
    if not grid:
        return known
    vocabulary = hub.packaged_vocabulary()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = backbone.build(profile.backbone, vocabulary).eval()
        voice = vocoder.build(profile.vocoder).eval().to(device)
    found = known.to_dict("records")
    with tqdm(total=len(grid), desc="full size", unit="setting", disable=not progress) as bar:
        for dtype, steps, batch, side in grid:
            model.to(device=device, dtype=DTYPES[dtype])
            bar.set_postfix_str(f"{side} {dtype} NFE {steps} batch {batch}")
            model.precision = DTYPES[dtype]
            speak = {"official": _official, "companion": _companion}[side](model, voice, seconds)
            speak(1, 1)
            _reset_peak(device)
            refused = ""
            try:
                latency = statistics.median(_timed(speak, steps, batch, device) for _ in range(repeats))
            except _RefusedError as error:
                latency, refused = float("nan"), str(error)
            line = Measured(
                side, dtype, steps, batch, seconds, latency, latency / (batch * seconds), 60 * batch / latency,
                _peak_gb(device), repeats, refused,
            )  # fmt: skip
            found.append(asdict(line))
            if keep is not None:
                keep(pd.DataFrame(found))
            bar.update()
    return pd.DataFrame(found)


def ratios(measured: pd.DataFrame) -> pd.DataFrame:
    """Our utterances per minute over those of the official function: in the same dtype, and each side's best.

    The official function takes one text after another, so its best with so many steps is that of any batch.
    """
    wide = measured.pivot(index=["nfe", "batch", "dtype"], columns="side", values="utterances_per_minute")
    wide = wide.reindex(columns=list(SIDES))  # of a measurement that was ended between the two
    same = (wide["companion"] / wide["official"]).unstack("dtype").add_prefix("same dtype, ")
    best = wide.groupby(level=["nfe", "batch"]).max()
    official = best["official"].groupby(level="nfe").transform("max")
    return same.assign(**{BEST: best["companion"] / official}).reset_index()


def record(measured: pd.DataFrame, name: str) -> Path:
    """Write the measurement with machine and versions to data/results/speed/<name>.json."""
    content = {
        "key": _key(float(measured["generated_seconds"].iloc[0]), int(measured["repeats"].iloc[0])),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "packages": package_versions(),
        "commit": commit(),
        "parameters": "random weights; the official DiT of F5TTS_v1_Base and Vocos",
        "measured": json.loads(measured.to_json(orient="records")),
        "ratios": _ratios(measured),
    }
    return write_text(path_of(name), json.dumps(content, indent=2) + "\n")


def _ratios(measured: pd.DataFrame) -> list[dict[str, float | None]]:
    return json.loads(ratios(measured).to_json(orient="records"))


def path_of(name: str) -> Path:
    """The file of a measurement. Raises SpeedError on a name that is none of a file."""
    if not re.fullmatch(r"[\w-]+", name):
        raise SpeedError(f"{name!r} is no name for a measurement: letters, digits, - and _, please")
    return FOLDER / f"{name}.json"


def recorded(name: str, seconds: float = SECONDS, repeats: int = 1) -> pd.DataFrame | None:
    """What was measured under a name so far, to go on from; None where there is nothing.

    Raises SpeedError where it was measured otherwise: on another machine, with other sources, versions or lengths.
    """
    path = path_of(name)
    if not path.exists():
        return None
    content = _read(path)
    if content["key"] != _key(seconds, repeats):
        raise SpeedError(
            f"{path} was measured on another machine, with other sources, versions, seconds or repeats: numbers of the "
            "two must not be mixed; give --record another name, or delete the file"
        )
    return pd.DataFrame(content["measured"])


def records() -> dict[str, dict[str, Any]]:
    """Every measurement in data/results/speed by name, as `record` wrote it. Raises SpeedError on a damaged file."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.json"))}


def overview(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A line per machine, NFE, batch and dtype: real-time factor of both sides, how many times as many utterances a
    minute the companion makes, and the most memory of the two in GB. found: of `records`."""
    lines = []
    for content in found.values():
        wide = pd.DataFrame(content["measured"]).pivot(index=list(SETTING[:-1]), columns="side")
        wide = wide.reindex(columns=pd.MultiIndex.from_product([wide.columns.levels[0], SIDES]))
        for setting, line in wide.iterrows():
            lines.append(
                {
                    "machine": _processor(content),
                    **dict(zip(SETTING, setting, strict=False)),
                    **{f"rtf, {side}": line["rtf", side] for side in SIDES},
                    "times as many": line["utterances_per_minute", "companion"]
                    / line["utterances_per_minute", "official"],
                    "GB": line["peak_gb"].max(),
                }
            )
    return pd.DataFrame(lines)


def told(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In words, per machine: each side's best, batch for batch, and the targets of the largest; how to measure where
    nothing is recorded."""
    if not found:
        return ["No speed at full size is recorded; `pvlib speed --record NAME` measures this machine."]
    sentences = []
    for content in found.values():
        best = [
            f"{line[BEST]:.1f} at NFE {line['nfe']}, batch {line['batch']}"
            for line in sorted(content["ratios"], key=lambda line: (line["batch"], -line["nfe"]))
            if line[BEST] is not None
        ]
        sentences.append(
            f"{_processor(content)}, {content['threads']} {many(content['threads'], 'thread')}: of the "
            f"full-size model the companion makes so many times as many utterances a minute as the official function, "
            f"each at its best precision, the official one at its best "
            f"batch too: {', '.join(best)}.{_against_targets(content['ratios'])}"
            f"{_refusals(content['measured'])}"
        )
    return sentences


def _against_targets(found: Sequence[Mapping[str, Any]]) -> str:
    """The largest batch against `TARGETS`, at the number of steps that is best; nothing where there is no batch."""
    largest = max(line["batch"] for line in found)
    if largest == 1:
        return " No batch is measured yet."
    lines = [line for line in found if line["batch"] == largest]
    parts = []
    for what, target in TARGETS.items():
        ratios = [v for line in lines for name, v in line.items() if name.startswith(what) and v is not None]
        if ratios:
            met = "met" if max(ratios) >= target else "missed"
            parts.append(f"{what} {max(ratios):.1f} times (target {target:g}: {met})")
    return f" At a batch of {largest}: {', '.join(parts)}."


def _refusals(measured: Sequence[Mapping[str, Any]]) -> str:
    refused: dict[tuple[str, str], set[int]] = {}
    for line in measured:
        if words := line.get("refused"):
            refused.setdefault((line["dtype"], words), set()).add(line["nfe"])
    return "".join(
        f" In {dtype} the official function makes nothing at NFE {', '.join(map(str, sorted(steps)))}: {words}."
        for (dtype, words), steps in refused.items()
    )


def _processor(content: Mapping[str, Any]) -> str:
    return content["machine"]["gpu"] or content["machine"]["cpu"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {key: content[key] for key in ("key", "machine", "threads", "measured")}
        return found | {"ratios": _ratios(pd.DataFrame(content["measured"]))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpeedError(
            f"{path} cannot be read ({error!r}); restore it with `git checkout -- {path}` or delete it"
        ) from error


def _key(seconds: float, repeats: int) -> str:
    """What must be the same for two lines to stand in one table."""
    sources = fingerprint(PAPER, modules=[module.__name__ for module in (backbone, vocoder, f5)])
    return digest([machine(), torch.get_num_threads(), sources, seconds, repeats])


def _reference() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(audio.CLIP_SAMPLES)).astype(np.float32)


def _official(model: backbone.Backbone, voice: Any, seconds: float) -> Callable[[int, int], None]:
    process, device = f5.official(), model.device
    clip = (torch.from_numpy(_reference())[None], audio.SAMPLE_RATE)

    def speak(steps: int, batch: int) -> None:
        for _ in range(batch):
            try:
                once(steps)
            except AssertionError as error:
                if "strictly increasing or decreasing" not in str(error):  # the solver's, of its times
                    raise
                raise _RefusedError(
                    f"its times, bent towards the start and rounded to this precision, fall together ({error})"
                ) from error

    def once(steps: int) -> None:
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

"""What one second holds, what the front end makes of it, and what that does to the cloned speech."""

from __future__ import annotations

import jiwer
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from pvlib import audio, frontend, hub, laag
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE, AudioError
from pvlib.config import Inference, Profile, get_profile
from pvlib.recognizer import normalise
from pvlib.study import ablations
from pvlib.study import manifest as manifests
from pvlib.study.evaluate import evaluate
from pvlib.study.front_end import WORD_EDGES, rms
from pvlib.study.look import styled
from pvlib.study.manifest import ManifestError

VARIANTS = ("without VAD", "without RMS", "without front end")
MOST = 24  # utterances for the pipeline with and without, unless more are asked for


# The clips of the study


def frames() -> pd.DataFrame:
    """How many mel frames one second has, by the two counts that are used."""
    mel = audio.mel(torch.zeros(audio.CLIP_SAMPLES)).shape[-1]
    lines = [
        ("frames of its mel, the first centred on the first sample", mel),
        ("whole hops, by which the official length formula counts", audio.CLIP_SAMPLES // HOP_LENGTH),
        ("frames of a cross-fade", laag.overlap_frames(Inference().cross_fade_seconds)),
    ]
    return pd.DataFrame(lines, columns=["what", "frames"]).assign(
        milliseconds=lambda f: f["frames"] * 1000 * HOP_LENGTH / SAMPLE_RATE
    )


def clips(profile: Profile | str, samples: int, seed: int | None = None) -> pd.DataFrame:
    """What the front end does to the clips of a study, and what the recogniser hears in them, a row per clip.

    Columns utterance, speaker, room, true (the words said, the last one as far as it goes), heard, heard_raw (without
    the front end), wrong and wrong_raw (letters mistaken, a share), seconds (kept), cut_ms (of the first word;
    negative: the silence kept in front), first_word, gain_db, level_before, level_after (dB of full scale), error.
    Raises ManifestError where the manifest has no word times.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest, times = manifests.read(profile.manifest), manifests.word_times(profile.manifest)
    if not times:
        raise ManifestError(f"{profile.manifest} has no word times, so what a clip says is not known")
    table = manifest.sample(samples, profile.seed if seed is None else seed)
    recognizer = hub.load_recognizer(profile, torch.device("cpu"))
    rows = []
    for request, room in zip(manifest.requests(table), table["room"], strict=True):
        word, begin, _ = times[request.utterance][0]
        true = normalise(request.clip_text or "", profile.recognizer.alphabet)
        row = {"utterance": request.utterance, "speaker": request.speaker, "room": room, "true": true}
        row |= {"first_word": word, "level_before": _db(rms(request.clip)), "error": ""}
        row["heard_raw"] = recognizer.transcribe([request.clip])[0]
        try:
            wave, gain = frontend.prepare_with_gain(request.clip, profile.inference, request.utterance)
        except AudioError as error:
            rows.append(row | {"error": str(error)})
            continue
        first = frontend.speech_spans(request.clip, profile.inference)[0][0]
        row |= {"seconds": len(wave) / SAMPLE_RATE, "cut_ms": 1000 * (first / SAMPLE_RATE - begin)}
        row |= {"gain_db": _db(gain), "level_after": _db(rms(wave))}
        rows.append(row | {"heard": recognizer.transcribe([wave])[0]})
    found = pd.DataFrame(rows)
    for heard, wrong in (("heard", "wrong"), ("heard_raw", "wrong_raw")):
        letters = found[heard].fillna("").map(lambda text: normalise(text, profile.recognizer.alphabet))
        found[wrong] = [jiwer.cer(t, h) if t else np.nan for t, h in zip(found["true"], letters, strict=True)]
    return found


@styled
def levels(found: pd.DataFrame) -> Figure:
    """The level of every clip before and after the front end, the rooms in order of their mean."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    ax = figure.subplots()
    order = list(found.groupby("room")["level_before"].mean().sort_values().index)
    where = found["room"].map(order.index)
    ax.plot(where - 0.12, found["level_before"], "s", ms=4, color="#5f5f5f", mfc="none", label="as recorded")
    ax.plot(where + 0.12, found["level_after"], "o", ms=4, color="#0072b2", label="after the front end")
    ax.axhline(_db(Inference().rms_target), color="#0072b2", lw=0.8, ls="--")
    ax.set_xticks(range(len(order)), order, rotation=20)
    ax.set(xlabel="room", ylabel="level (dB of full scale, RMS)")
    ax.legend(loc="lower right", fontsize=8)
    return figure


def _db(ratio: float) -> float:
    return 20 * float(np.log10(ratio)) if ratio > 0 else float("-inf")


# The pipeline with and without


def rows(
    profile: Profile | str, samples: int, utterances: int = 0, seed: int | None = None, **options: object
) -> pd.DataFrame:
    """Rows of the pipeline and of `VARIANTS` on the first utterances of a study; 0 takes a share, 24 at most.

    options: of `evaluate`, which computes and caches them. Raises what it raises.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    count = utterances or min(MOST, ablations.size(profile, samples))
    by_short = {short: system for system, short in ablations.variants().items()}
    names = [ablations.SYSTEM, *(by_short[short] for short in VARIANTS)]
    return evaluate(profile, names, count, seed=seed, **options)


# Conclusions


def about_a_second(found: pd.DataFrame) -> str:
    """One sentence: how many words a clip holds, how often it ends within one, how well it is heard. See `clips`."""
    words = found["true"].str.split().str.len()
    return (
        f"{len(found)} clips of one second hold {words.mean():.1f} words on average ({words.min()} to {words.max()}). "
        f"Of a clip's letters the recogniser mistakes {found['wrong'].mean():.1%} on average, "
        f"{found['wrong_raw'].mean():.1%} without the front end{_refused(found)}. "
        "That transcript is all the model knows about what the clip says."
    )


def _refused(found: pd.DataFrame) -> str:
    count = int((found["error"] != "").sum())
    return f", the {count} that the front end refuses counted as all wrong" if count else ""


def about_trims(found: pd.DataFrame, tolerance_ms: float = 20.0) -> str:
    """One sentence: how much of the clips is kept and how often their first word is cut into. See `clips`."""
    own = found[found["error"] == ""]
    deep = own[own["cut_ms"] > tolerance_ms]
    hissing = own[
        own["first_word"].map(lambda w: any(p.match(w) for (_, s), p in WORD_EDGES.items() if s == "start"))
    ]
    lost = f"{(hissing['cut_ms'] > tolerance_ms).sum()} of {len(hissing)}" if len(hissing) else "none of none"
    depth = f", by {deep['cut_ms'].median():.0f} ms in the middle of them" if len(deep) else ""
    return (
        f"Silero leaves {own['seconds'].mean():.2f} s of a second on average and refuses "
        f"{(found['error'] != '').sum()} clips. In {len(deep)} of {len(own)} it cuts into the first word by more than "
        f"{tolerance_ms:.0f} ms{depth}; of words that begin with /s/ or /f/ in {lost}."
    )


def about_levels(found: pd.DataFrame) -> str:
    """One sentence: the spread of levels before and after. See `clips`."""
    own = found[found["error"] == ""]
    return (
        f"The level of the clips spreads by {own['level_before'].std():.1f} dB (standard deviation) as recorded and by "
        f"{own['level_after'].std():.2f} dB after RMS normalisation, with gains from {own['gain_db'].min():+.1f} to "
        f"{own['gain_db'].max():+.1f} dB."
    )

"""LAAG on texts of several chunks: what it plans, how the chunks are joined, and what each mechanism is worth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pvlib import audio, laag, systems
from pvlib.audio import HOP_LENGTH, N_MELS, SAMPLE_RATE
from pvlib.backbone import Item
from pvlib.config import Inference, Profile, get_profile
from pvlib.metrics.judges import Exhibit, Panel
from pvlib.study import ablations, ledger, pictures, statistics
from pvlib.study import manifest as manifests
from pvlib.study.evaluate import evaluate, finished, shared_judges
from pvlib.study.look import styled
from pvlib.study.manifest import Manifest
from pvlib.study.measure import lookup, measure
from pvlib.study.pairs import LEAST
from pvlib.systems.base import Request
from pvlib.voice import SEEDS_PER_JOB, Job, PersonaVoice

STEPS = 8  # of the sampler, for every system here: long texts cost most, and only differences are of interest
MOST, FOR_MOST = 24, 168  # long texts, of a study with so many utterances or more
QUICK = 2  # of a smaller one: each of many systems speaks minutes of them
ALPHA = 0.1  # a slope of the guidance with which a long text is guided less; the paper's is zero
_BASE = f"personavoice@steps={STEPS}"
SYSTEMS = {  # short name -> system
    ablations.SYSTEM: _BASE,
    "without chunking": f"{_BASE},laag_chunking=False",
    "without boundary hardening": f"{_BASE},boundary_hardening=False",
    "guidance by length": f"{_BASE},laag_cfg_alpha={ALPHA}",
    "with the gate open": f"{_BASE},use_adapters=True",
}
MECHANISMS = tuple(name for name in SYSTEMS if name != ablations.SYSTEM)
STANDING = {  # metric, stratum -> its name, and the target that was set
    ("wer_capped", "long"): ("WER of long texts", "at most", 0.12),
    ("secs_retention", "overall"): ("SECS retention by GE2E of all texts", "at least", 0.7),
}
GAIN_CLAIM = "mel-splice-gain"  # what the paper says of mending the splice
LEAST_BASE = 0.1  # of a similarity: a ratio to less says nothing
EDGE_FRAMES = 2  # on each side of an overlap that still belong to the seam
JOINS = {  # how chunks are joined -> (order of the axes, seconds of cross-fade)
    "cross-fade": ("time", None),
    "hard cut": ("time", 0.0),
    "faded along bands": ("bands", None),
    "axes misread": ("misread", None),
}


@dataclass(frozen=True, eq=False)
class LongTexts(Manifest):
    """A manifest of which only texts of two chunks or more are drawn, in the order of the whole."""

    def sample(self, size: int | None = None, seed: int = 42) -> pd.DataFrame:
        """The first `size` texts of several chunks; None, or more than there are, takes all."""
        table = super().sample(None, seed)
        several = table["text"].map(lambda text: len(laag.chunk(text)) > 1)
        return table[several].head(len(table) if size is None else size).reset_index(drop=True)


def long_texts(name: str) -> LongTexts:
    """The long texts of a committed manifest. Raises ManifestError."""
    whole = manifests.read(name)
    return LongTexts(whole.name, whole.table, whole.folder, whole.enrolment, whole.ecapa_sha256)


# What is planned


def plan_table(
    text: str, inference: Inference, gate: str = "auto", clip_text: str = "the clip says this. "
) -> pd.DataFrame:
    """The plan of a text behind a one-second clip, a line per chunk; ␣ is a leading space.

    Raises ValueError on an unknown gate.
    """
    hops = audio.CLIP_SAMPLES // HOP_LENGTH
    rows = [
        {
            "chunk": re.sub("^ ", "␣", piece.text),
            "characters": len(piece.text.strip()),
            "seconds": (piece.frames - hops) * HOP_LENGTH / SAMPLE_RATE,
            "guidance": piece.cfg_strength,
            "entropy guidance": piece.ceag_lambda,
            "FiLM": "on" if piece.film else "off",
        }
        for piece in laag.plan(hops, clip_text, text, inference, gate_mode=gate)
    ]
    return pd.DataFrame(rows)


def gate_table(texts: Mapping[str, str], inference: Inference) -> pd.DataFrame:
    """Number of chunks of each text, and whether FiLM acts under each setting of the gate."""
    rows = []
    for name, text in texts.items():
        plans = {mode: laag.plan(1, "a", text, inference, gate_mode=mode) for mode in laag.GATE_MODES}
        gates = {mode: "on" if chunks[0].film else "off" for mode, chunks in plans.items()}
        rows.append({"text": name, "chunks": len(plans["auto"]), **gates})
    return pd.DataFrame(rows).set_index("text").rename_axis(None)


def replan(text: str, gate: str, alpha: float, max_chars: int) -> pd.DataFrame:
    """`plan_table` with another gate, slope of the guidance and chunk length: what the sliders move."""
    return plan_table(text, Inference(laag_cfg_alpha=alpha, laag_chunk_max_chars=max_chars), gate)


@styled
def by_length(inference: Inference, slopes: Sequence[float] = (0.0, 0.3, -0.3), most: int = 60) -> Figure:
    """CFG(L) for some slopes, and lambda(L), over the number of tokens, from the functions that plan uses."""
    figure = Figure(figsize=(8.6, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens = np.arange(1, most + 1)
    texts = [" ".join(["7"] * n) for n in tokens]  # a number is one token
    for slope, style, colour in zip(
        slopes, ("-", "--", ":"), ("#0072b2", "#d55e00", "#009e73"), strict=False
    ):
        bent = replace(inference, laag_cfg_alpha=slope)
        values = [laag.guidance(text, bent) for text in texts]
        left.plot(tokens, values, style, color=colour, label=f"a = {slope:g}")
    left.set(xlabel="length L (tokens)", ylabel="guidance CFG(L)", ylim=(0, inference.laag_cfg_max + 0.3))
    right.plot(tokens, [laag.lambda_ceag(text, inference) for text in texts], color="#0072b2")
    right.set(xlabel="length L (tokens)", ylabel="entropy guidance λ(L)", ylim=(0, None))
    for ax in (left, right):
        ax.axvline(
            inference.laag_reference_tokens, color="#7a7a7a", lw=0.8, ls="--", label="reference length"
        )
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


# One text, joined in several ways


def chunk_mels(voice: PersonaVoice, request: Request) -> tuple[Job, list[Tensor]]:
    """The job of a request and the generated mels of its chunks, [(n, 100)], as the pipeline samples them."""
    reference = voice.reference(request.clip, name=f"the clip of {request.utterance}")
    job = Job(reference, request.text, request.seed)
    items = [
        Item(
            mel=reference.mel,
            reference_text=reference.text,
            text=piece.text,
            frames=piece.frames,
            seed=job.seed * SEEDS_PER_JOB + k,
            cfg_strength=piece.cfg_strength,
        )
        for k, piece in enumerate(voice.plan(job))
    ]
    own = voice.inference
    made = voice.backbone.sample(items, steps=own.steps, sway_coef=own.sway_coef)
    return job, [mel[len(reference.mel) :].float().cpu() for mel in made]


def seams(mels: Sequence[Tensor], seconds: float = 0.15) -> list[tuple[int, int]]:
    """Where the overlaps lie in the spliced mel: (first, past the last) frame of each."""
    found, end = [], len(mels[0])
    for part in mels[1:]:
        k = min(laag.overlap_frames(seconds), end, len(part))
        found.append((end - k, end))
        end += len(part) - k
    return found


def joined(mels: Sequence[Tensor], seconds: float = 0.15) -> dict[str, Tensor]:
    """The spliced mel under each of `JOINS`, (n, 100)."""
    return {
        name: laag.splice_mel(mels, seconds if fade is None else fade, order)
        for name, (order, fade) in JOINS.items()
    }


def roughness(mel: Tensor, places: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Mean change from frame to frame (nat), at the seams and elsewhere. mel: (n, 100). NaN where there is no frame."""
    change = (mel[1:] - mel[:-1]).abs().mean(dim=1)
    near = torch.zeros(len(change), dtype=torch.bool)
    for first, end in places:
        near[max(0, first - EDGE_FRAMES) : end + EDGE_FRAMES - 1] = True
    return float(change[near].mean()), float(change[~near].mean())


def joins(
    voice: PersonaVoice,
    requests: Sequence[Request],
    enrolment: Mapping[str, Mapping],
    judges: Panel | None = None,
) -> pd.DataFrame:
    """Each request's chunks, sampled once, joined in every way and judged, a row each.

    All but "wave" are joined as mels and then vocoded; "wave" is the pipeline's own way, vocoded chunk by chunk.
    Columns join, utterance, speaker, at_seams and elsewhere (`roughness` of the mel), from_right (mel distance to
    the cross-fade, nat; NaN for other lengths), wer_capped, secs_ecapa_clip.
    """
    judges = judges or shared_judges(voice.profile)
    rows = []
    for request in requests:
        _, mels = chunk_mels(voice, request)
        seconds = voice.inference.cross_fade_seconds
        ways = joined(mels, seconds)
        right, places = ways["cross-fade"], seams(mels, seconds)
        cuts = seams(mels, 0.0)
        waves = {name: _vocoded(voice, mel) for name, mel in ways.items()}
        parts = [_vocoded(voice, mel) for mel in mels]
        waves["wave"] = laag.splice_wave(parts, laag.overlap_frames(seconds) * HOP_LENGTH / SAMPLE_RATE)
        exhibits = [
            Exhibit(wave, request.text, request.clip, dict(enrolment.get(request.speaker, {})))
            for wave in waves.values()
        ]
        for name, verdict in zip(waves, judges.judge(exhibits), strict=True):
            row = {"join": name, "utterance": request.utterance, "speaker": request.speaker}
            if name in ways:
                near, far = roughness(ways[name], cuts if JOINS[name][1] == 0.0 else places)
                alike = len(ways[name]) == len(right)
                apart = float((ways[name] - right).abs().mean()) if alike else float("nan")
                row |= {"at_seams": near, "elsewhere": far, "from_right": apart}
            rows.append(row | {"wer_capped": verdict.wer_capped, "secs_ecapa_clip": verdict.secs_ecapa_clip})
    return pd.DataFrame(rows)


def sounds(voice: PersonaVoice, mels: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """The wave of a text's chunks under each of `JOINS`, (s,) at 24 kHz."""
    ways = joined(mels, voice.inference.cross_fade_seconds)
    return {name: _vocoded(voice, mel) for name, mel in ways.items()}


def _vocoded(voice: PersonaVoice, mel: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return voice.vocoder.decode(mel.T[None].to(voice.device))[0].float().cpu().numpy()


def joins_table(found: pd.DataFrame) -> pd.DataFrame:
    """Means of `joins`, a line per way of joining."""
    names = {
        "at_seams": "change per frame at the seams (nat)",
        "elsewhere": "elsewhere (nat)",
        "from_right": "distance to the cross-fade (nat)",
        "secs_ecapa_clip": "SECS (ECAPA, clip)",
        "wer_capped": "WER (capped)",
    }
    return found.groupby("join", sort=False)[list(names)].mean().rename(columns=names).rename_axis(None)


@styled
def seam_picture(mels: Sequence[Tensor], seconds: float = 0.15, around: float = 0.4) -> Figure:
    """The first seam of a text: both chunks' weights in the cross-fade, and the mel under each of `JOINS`.

    around: seconds drawn on each side of the overlap.
    """
    first, end = seams(mels, seconds)[0]
    margin = round(around * pictures.FRAMES_PER_SECOND)
    low, high = max(0, first - margin), end + margin
    ways = joined(mels, seconds)
    figure = Figure(figsize=(8.6, 1.25 * len(ways) + 1.6), layout="constrained")
    axes = figure.subplots(len(ways) + 1, 1, sharex=True)
    times = (np.arange(low, high) + 0.5) / pictures.FRAMES_PER_SECOND
    rise = np.interp(np.arange(low, high), [first, end - 1], [0, 1])
    axes[0].plot(times, 1 - rise, color="#0072b2", label="chunk 1")
    axes[0].plot(times, rise, "--", color="#d55e00", label="chunk 2")
    axes[0].set_ylabel("weight")
    axes[0].legend(fontsize=8, loc="center right")
    image = None
    for ax, (name, mel) in zip(axes[1:], ways.items(), strict=True):
        image = pictures.spectrogram(ax, mel.T.numpy())
        for place in (first, end):
            ax.axvline(place / pictures.FRAMES_PER_SECOND, color="white", lw=0.8, ls="--")
        ax.set_xlim(low / pictures.FRAMES_PER_SECOND, high / pictures.FRAMES_PER_SECOND)
        ax.set_ylim(0, N_MELS)
        ax.set_title(name, loc="left", fontsize=9)
    axes[-1].set_xlabel("time (s)")
    figure.supylabel("mel band", fontsize=9)
    figure.colorbar(image, ax=axes[1:], label="log mel magnitude (nat)", pad=0.01)
    return figure


# The mechanisms on many texts


def size(samples: int) -> int:
    """How many long texts a study with `samples` utterances takes."""
    return MOST if samples >= FOR_MOST else QUICK


def rows(
    profile: Profile | str, samples: int, utterances: int = 0, seed: int | None = None, **options: object
) -> pd.DataFrame:
    """Rows of `SYSTEMS` on long texts, `size(samples)` of them or `utterances`; options as of `evaluate`."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    options.setdefault("manifest", long_texts(profile.manifest))
    there = systems.present(profile, SYSTEMS.values())
    return evaluate(profile, there, utterances or size(samples), seed=seed, **options)


# Conclusions


def standing(profile: Profile | str, samples: int, seed: int | None = None) -> str:
    """One sentence: the whole pipeline, without adapters, in the study, where the study's rows are all there."""
    found = finished(profile, (*systems.CONTROLS, ablations.SYSTEM), samples, seed=seed)
    if found is None:
        return "The rows of the study are not all there: run notebook 06, then this one again."
    parts = []
    for (metric, stratum), (label, relation, target) in STANDING.items():
        line = lookup(measure(found, [metric], [stratum]), metric, stratum, ablations.SYSTEM)
        if line is None:
            return "The study has too few long texts to say how the whole pipeline does on them; take more `samples`."
        met = statistics.against_target(line["value"], line["low"], line["high"], target, relation)
        parts.append(
            f"{label}, n = {line['n']}: {line['value']:.3f} [{line['low']:.3f}, {line['high']:.3f}] "
            f"(target: {relation} {target:g}, {met})"
        )
    return f"The whole pipeline in the study, without adapters: {'; '.join(parts)}."


def about_size(profile: Profile | str, rows: pd.DataFrame) -> str:
    """One sentence: how many of the test set's long texts the rows hold, and how to take all of them."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    taken, there = rows["utterance"].nunique(), len(long_texts(profile.manifest).sample())
    more = "" if taken >= there else f"; `utterances = {there}` takes all"
    return f"The mechanisms were tried on {taken} of the {there} texts of the test set that have several chunks{more}."


def about_joins(found: pd.DataFrame) -> list[str]:
    """Sentences on `joins`: what the cross-fade smooths, what a mistaken order of the axes costs, beside the paper.

    A difference is shown where Holm's p of `tests` is below 0.05.
    """
    paper = next(claim.value for claim in ledger.load() if claim.id == GAIN_CLAIM)
    means = found.groupby("join")[["at_seams", "elsewhere", "from_right", "secs_ecapa_clip"]].mean()
    tested = tests(found).set_index("join")["p_holm"]
    right, cut = means.loc["cross-fade"], means.loc["hard cut"]
    sentences = [
        f"Over {found['utterance'].nunique()} long texts the mel changes by {right['at_seams']:.2f} nat per frame at "
        f"the seams and {right['elsewhere']:.2f} elsewhere; with hard cuts by {cut['at_seams']:.2f} at the seams."
    ]
    for name in ("faded along bands", "axes misread"):
        wrong = means.loc[name]
        far = right["secs_ecapa_clip"] - wrong["secs_ecapa_clip"]
        told = f", {far:+.3f}"
        if wrong["secs_ecapa_clip"] >= LEAST_BASE:
            told += f" or {far / wrong['secs_ecapa_clip']:+.1%}"
        shown = tested[name] < statistics.ALPHA  # NaN, of too few texts, is not
        sentences.append(
            f"*{name}* is {wrong['from_right']:.2f} nat away from the right splice; SECS is "
            f"{wrong['secs_ecapa_clip']:.3f} with it and {right['secs_ecapa_clip']:.3f} without"
            f"{told if shown else ': no difference is shown'}. The paper reports +{paper} and does not say "
            "what exactly was wrong."
        )
    return sentences


def tests(found: pd.DataFrame, metric: str = "secs_ecapa_clip") -> pd.DataFrame:
    """Every way of joining against the cross-fade, a line each: difference, interval over speakers, paired t, Holm.

    Columns join, n, difference, low, high, p, p_holm; p is NaN under six texts.
    """
    wide = found.pivot_table(metric, ["utterance", "speaker"], "join").reset_index()
    lines = []
    for name in (name for name in found["join"].unique() if name != "cross-fade"):
        ends = statistics.paired_bootstrap(wide[name], wide["cross-fade"], wide["speaker"])
        p = statistics.paired_test(wide[name], wide["cross-fade"]).p if len(wide) >= LEAST else float("nan")
        lines.append((name, len(wide), ends.value, ends.low, ends.high, p))
    table = pd.DataFrame(lines, columns=["join", "n", "difference", "low", "high", "p"])
    return table.assign(p_holm=statistics.holm(table["p"]))

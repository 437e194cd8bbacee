"""SV2TTS stage by stage: what each network hears, writes and says, and how often attention fails.

Only what is trained takes part. A picture that needs an absent network says so instead, with the command that makes it.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from pvlib import audio, hub, paths
from pvlib.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE
from pvlib.config import Folding, Profile, get_profile
from pvlib.metrics import dnsmos
from pvlib.metrics.prosody import pitch_deviation
from pvlib.study import manifest as manifests
from pvlib.study.architecture import parameters_of
from pvlib.study.comparisons import many
from pvlib.study.examples import mel_distance
from pvlib.study.kept import kept
from pvlib.study.look import look, styled
from pvlib.study.manifest import BUCKETS
from pvlib.study.pictures import spectrogram
from pvlib.study.provenance import machine
from pvlib.study.statistics import cluster_bootstrap_median
from pvlib.systems.base import Request, Result
from pvlib.systems.fingerprint import digest
from pvlib.systems.sv2tts import encoder, prediction, synthesizer, vocoders, wavernn, weights
from pvlib.systems.sv2tts.attention import Failures
from pvlib.systems.sv2tts.encoder import Encoder
from pvlib.systems.sv2tts.pipeline import SV2TTS
from pvlib.systems.sv2tts.synthesizer import Piece, Synthesizer
from pvlib.systems.sv2tts.system import SV2TTSSystem, SV2TTSWaveRNN
from pvlib.systems.sv2tts.vocoders import FoldedWaveRNN, SoundStage
from pvlib.text import TextWarning

RESEMBLYZER, OWN = "Resemblyzer", "GE2E, trained here"
VOCODERS = {"Vocos": "vocos", "Griffin-Lim": "griffin-lim", "WaveRNN": "wavernn"}
KINDS = ("skips", "repeats", "runaways")
SHARE, LEAST = 10, 4  # one utterance in so many of a study is spoken for its prosody, but no fewer than this
SHORT_FOLDING, LONG_FOLDING = (
    1.0,
    10.0,
)  # seconds of speech to time folding on: by default, of a complete study
TIMED = 3  # turns of a complete study; of another, one


@dataclass(frozen=True)
class Stages:
    """The networks that are there, by name: at least Resemblyzer's encoder, Vocos and Griffin-Lim."""

    profile: Profile
    encoders: Mapping[str, Encoder]
    synthesizer: Synthesizer | None
    vocoders: Mapping[str, SoundStage]

    def voice(self, encoder: str = RESEMBLYZER, vocoder: str = "Vocos") -> SV2TTS | None:
        """The three stages in a row, None where the synthesizer is not trained. Raises KeyError on an absent stage."""
        if self.synthesizer is None:
            return None
        stages = (self.encoders[encoder], self.synthesizer, self.vocoders[vocoder])
        return SV2TTS(*stages, self.profile.inference)


def stages(profile: Profile | str) -> Stages:
    """Every stage of a profile that has weights. Raises WeightsError on those that are damaged."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    encoders: dict[str, Encoder] = {RESEMBLYZER: encoder.Resemblyzer()}
    if trained("sv2tts-encoder", profile):
        encoders[OWN] = weights.load(encoder.build(profile.sv2tts_encoder), "sv2tts-encoder", profile)
    speaks = None
    if trained("sv2tts-synthesizer", profile):
        network = synthesizer.build(profile.sv2tts_synthesizer)
        speaks = weights.load(network, "sv2tts-synthesizer", profile)
    kinds = {
        name: kind
        for name, kind in VOCODERS.items()
        if kind != "wavernn" or trained("sv2tts-vocoder", profile)
    }
    return Stages(
        profile, encoders, speaks, {name: vocoders.load(kind, profile) for name, kind in kinds.items()}
    )


def trained(name: str, profile: Profile) -> bool:
    """Whether a profile has weights of one of the three networks."""
    return hub.weights_path(name, profile).is_file()


def missing(profile: Profile) -> list[str]:
    """The networks of the three that a profile has no weights of."""
    return [name for name in weights.NAMES if not trained(name, profile)]


def lacking(name: str, profile: Profile) -> str:
    """One sentence on an absent network: how to get it."""
    where = "" if profile.embedded else " (for the profile `mini`; nobody has trained it for this one)"
    return f"{name} is not trained: `pvlib train {name}` makes it{where}."


def inventory(found: Stages) -> pd.DataFrame:
    """The networks of the three stages, a line each: parameters, and whether they are there."""
    profile = found.profile
    with torch.device("meta"):  # sizes of networks that need not be trained
        own = {
            "sv2tts-encoder": encoder.build(profile.sv2tts_encoder),
            "sv2tts-synthesizer": synthesizer.build(profile.sv2tts_synthesizer),
            "sv2tts-vocoder": wavernn.build(profile.sv2tts_vocoder),
        }
    state = {name: "trained" if trained(name, profile) else lacking(name, profile) for name in own}
    lines = [
        (
            "1, encoder",
            RESEMBLYZER,
            parameters_of(found.encoders[RESEMBLYZER].network),
            "its package's weights",
        ),
        ("1, encoder", OWN, parameters_of(own["sv2tts-encoder"]), state["sv2tts-encoder"]),
        (
            "2, synthesizer",
            "Tacotron 2",
            parameters_of(own["sv2tts-synthesizer"]),
            state["sv2tts-synthesizer"],
        ),
        ("3, vocoder", "Vocos", parameters_of(found.vocoders["Vocos"].network), "the project's own"),
        ("3, vocoder", "WaveRNN", parameters_of(own["sv2tts-vocoder"]), state["sv2tts-vocoder"]),
        ("3, vocoder", "Griffin-Lim", 0, "nothing to learn"),
    ]
    return pd.DataFrame(lines, columns=["stage", "network", "parameters", "state"])


# Stage 2


def example(profile: Profile | str, samples: int, seed: int, bucket: str = "short") -> Request:
    """The first utterance of a study's sample whose text has the given length."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifests.read(profile.manifest)
    table = manifest.sample(samples, seed)
    own = table[table["bucket"] == bucket]
    return manifest.requests((own if len(own) else table).head(1).reset_index(drop=True))[0]


@styled
def pieces_figure(pieces: Sequence[Piece], note: str = "") -> Figure:
    """Alignment and mel of each piece of a text, side by side. Without pieces the note is written instead."""
    if not pieces:
        return _noted(note)
    height = float(np.clip(0.1 * max(len(piece.text) for piece in pieces), 3.4, 8.0))  # inches of a piece
    figure = Figure(figsize=(10, height * len(pieces)), layout="constrained")
    axes = figure.subplots(len(pieces), 2, squeeze=False)
    for (left, right), piece in zip(axes, pieces, strict=True):
        seconds = len(piece.mel) * audio.HOP_LENGTH / SAMPLE_RATE
        extent = (0, seconds, -0.5, piece.alignment.shape[1] - 0.5)
        options = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "cmap": "cividis"}
        image = left.imshow(piece.alignment.T.numpy(), extent=extent, vmin=0, vmax=1, **options)
        size = min(9.0, 0.75 * 72 * height / len(piece.text))  # points: a letter is no higher than its row
        left.set_yticks(range(len(piece.text)), list(piece.text), fontsize=size)
        left.grid(visible=False)
        left.set(xlabel="time (s)", ylabel="character", title="where the decoder looks")
        spectrogram(right, piece.mel.T.numpy())
        right.set(xlabel="time (s)", ylabel="mel band", title="what it writes")
        figure.colorbar(image, ax=left, label="attention")
    return figure


def _noted(words: str) -> Figure:
    figure = Figure(figsize=(9.5, 1.2))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.text(0.5, 0.5, words, ha="center", va="center", color="#5f5f5f", transform=ax.transAxes)
    return figure


@dataclass(frozen=True)
class Spoken:
    """What SV2TTS made of some requests, with the attention failures of each that it could speak."""

    requests: list[Request]
    results: list[Result]
    attention: dict[str, Failures]


def spoken(profile: Profile | str, samples: int, seed: int, utterances: int = 0) -> Spoken | None:
    """Utterances of a study's sample spoken by `sv2tts`; None where it is not trained.

    utterances: how many; 0: one in `SHARE` but no fewer than `LEAST`, and all of a complete study.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if not trained("sv2tts-synthesizer", profile):
        return None
    share = samples if samples >= profile.samples else max(LEAST, samples // SHARE)
    manifest = manifests.read(profile.manifest)
    requests = manifest.requests(manifest.sample(min(samples, utterances or share), seed))
    system = SV2TTSSystem("sv2tts", profile, torch.device("cpu"))
    with warnings.catch_warnings():  # of texts that are split, which the notebook says of all of them
        warnings.simplefilter("ignore", TextWarning)
        return Spoken(requests, system.synthesise(requests), system.attention)


def failure_table(made: Spoken | None) -> pd.DataFrame:
    """Attention failures by length of text: how many of each kind, and how many utterances have any."""
    lines = []
    for bucket in (*BUCKETS, "all"):
        own = [r for r in made.requests if bucket in (r.bucket, "all")] if made else []
        found = [made.attention[r.utterance] for r in own if r.utterance in made.attention]
        if own:
            total = sum(found, Failures())
            silent = len(own) - len(found)
            lines.append((bucket, len(own), *astuple(total), sum(f.total > 0 for f in found), silent))
    columns = ["text", "utterances", *KINDS, "with any of them", "refused"]
    return pd.DataFrame(lines, columns=columns).set_index("text")


def prosody_table(made: Spoken | None) -> pd.DataFrame:
    """Pitch deviation (semitones) and length (s) of each utterance beside its true recording's; NaN where unvoiced."""
    columns = ["utterance", "speaker", "pitch", "true pitch", "seconds", "true seconds"]
    lines = []
    for request, result in zip(*((made.requests, made.results) if made else ([], [])), strict=True):
        if result.wave is not None and request.audio_path is not None:
            true = audio.load(request.audio_path)
            pitches = [pitch_deviation(wave) for wave in (result.wave, true)]
            lengths = [len(wave) / SAMPLE_RATE for wave in (result.wave, true)]
            lines.append((request.utterance, request.speaker, *pitches, *lengths))
    return pd.DataFrame(lines, columns=columns)


@styled
def prosody_figure(table: pd.DataFrame, note: str = "") -> Figure:
    """Each utterance as a point: its pitch deviation and its length against those of the true recording."""
    if table.empty:
        return _noted(note)
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    for ax, name, unit in zip(figure.subplots(1, 2), ("pitch", "seconds"), ("semitones", "s"), strict=True):
        x, y = table[f"true {name}"], table[name]
        ax.scatter(x, y, color=look("sv2tts").colour, marker=look("sv2tts").marker, s=30)
        top = 1.05 * float(np.nanmax([x, y]))
        ax.plot([0, top], [0, top], color="#999999", lw=0.8, ls="--")
        what = "deviation of pitch" if name == "pitch" else "length"
        ax.set(xlabel=f"{what}, true recording ({unit})", ylabel=f"{what}, sv2tts ({unit})")
    return figure


# Stage 3


def sound_again(found: Stages, wave: np.ndarray, seed: int = 0) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """A true recording's mel through each vocoder: how near, how good, how fast; and the sounds."""
    mel = audio.mel(torch.from_numpy(np.ascontiguousarray(wave)))
    lines, sounds = [("original", 0.0, dnsmos.overall(wave), np.nan)], {"original": wave}
    for name, stage in found.vocoders.items():
        made, seconds = _timed(stage, mel, seed)
        sounds[name] = made
        near = mel_distance(wave, made)
        lines.append((name, near, dnsmos.overall(made), seconds * SAMPLE_RATE / len(made)))
    columns = ["sound", "mel distance (nat)", "DNSMOS (proxy)", "real-time factor"]
    return pd.DataFrame(lines, columns=columns).set_index("sound"), sounds


def _timed(stage: SoundStage, mel: Tensor, seed: int) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    made = stage.decode(mel, seed)[0].float().cpu().numpy()
    return made, time.perf_counter() - start


@styled
def news_figure(profile: Profile, wave: np.ndarray, milliseconds: float = 40.0) -> Figure:
    """The loudest stretch of a sound, what its mel and its last samples foretell of it, and what WaveRNN has to draw.

    wave: (s,) at 24 kHz. Raises ValueError where it is silent or has no whole hops of the stretch's length.
    """
    length, order = int(milliseconds / 1000 * SAMPLE_RATE), profile.sv2tts_vocoder.order
    hops = len(wave) // HOP_LENGTH
    if hops * HOP_LENGTH < max(length, N_FFT):
        raise ValueError(f"a sound of {len(wave)} samples is too short for a picture of {milliseconds:g} ms")
    wave = torch.from_numpy(wave[: hops * HOP_LENGTH].astype(np.float32))
    high = prediction.raised(wave)[None]
    between = prediction.at_stretches(audio.mel(wave), 0, len(wave) // prediction.STRETCH)
    padded = torch.nn.functional.pad(high, (order, 0))
    foretold = prediction.predicted(padded, prediction.filters(between, order))[0].numpy()
    sound = high[0].numpy()
    start = int(np.convolve(sound**2, np.ones(length), "valid").argmax())
    span = slice(start, start + length)
    left = (sound - foretold)[span]
    if not left.any():
        raise ValueError("the sound is silent")
    quieter = 10 * np.log10(np.mean(sound[span] ** 2) / np.mean(left**2))
    ms = 1000 * np.arange(length) / SAMPLE_RATE
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    above.plot(ms, sound[span], color="#333333", lw=1.0, label="true samples")
    above.plot(ms, foretold[span], color=look("sv2tts").colour, lw=1.0, ls="--", label="foretold")
    figure.legend(loc="outside right upper", fontsize=8)
    below.plot(ms, left, color="#333333", lw=1.0)
    figure.supylabel("amplitude (full scale = 1)", fontsize=9)
    below.set(xlabel="time (ms)", title=f"what is left for WaveRNN: {quieter:.0f} dB quieter")
    above.set(title=f"one sound, its high tones raised; each sample foretold from the {order} before it")
    return figure


def swaps(found: Stages, request: Request) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One request by every pair of encoder and vocoder: SECS of Resemblyzer against the true recording, and the sounds.

    Both are empty where the synthesizer is not trained.
    """
    lines, sounds = [], {}
    true = found.encoders[RESEMBLYZER].voiceprint(audio.load(request.audio_path)).embedding
    for first in found.encoders if found.synthesizer else ():
        for third in found.vocoders:
            speech = found.voice(first, third).clone(request.clip, request.text, request.seed)
            own = found.encoders[RESEMBLYZER].voiceprint(speech.wave).embedding
            sounds[f"{first}, {third}"] = speech.wave
            length = len(speech.wave) / SAMPLE_RATE
            lines.append((first, third, float(own @ true), length, speech.seconds, speech.failures.total))
    columns = ["encoder", "vocoder", "SECS (GE2E)", "length (s)", "computing (s)", "attention failures"]
    return pd.DataFrame(lines, columns=columns), sounds


def folding_length(profile: Profile, samples: int) -> float:
    """On how many seconds of speech folding is timed: few, and ten in a complete study."""
    return LONG_FOLDING if samples >= profile.samples else SHORT_FOLDING


def time_folding(profile: Profile | str, samples: int, progress: bool = True) -> pd.DataFrame:
    """`folding_kept` as notebook 11 asks for it in a study with so many samples, before notebooks run side by side."""
    found = stages(profile)
    seed = found.profile.seed
    recording = audio.load(example(found.profile, samples, seed).audio_path)
    return folding_kept(found, recording, folding_length(found.profile, samples), seed, progress)


def folding_kept(
    found: Stages, wave: np.ndarray, seconds: float, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """`folding`, kept in `build/results/<profile>/folding.json`.

    What was measured on this machine of the same sound, with the same weights and sources, is not measured again, so
    that a notebook that runs beside another one, with fewer threads, shows the times of a quiet machine.
    """
    if "WaveRNN" not in found.vocoders:
        return folding(found, wave, seconds, seed, progress)
    path = paths.WORKING_ROWS / found.profile.name / "folding.json"
    made_by = SV2TTSWaveRNN("", found.profile, torch.device("cpu")).fingerprint()
    sound = hashlib.sha256(wave.tobytes()).hexdigest()
    key = digest([machine(), made_by, sound, seconds, seed, TIMED])

    def measure() -> dict[str, object]:
        table = folding(found, wave, seconds, seed, progress).reset_index()
        return {"threads": torch.get_num_threads(), "table": table.to_dict(orient="list")}

    return pd.DataFrame(kept(path, key, measure)["table"]).set_index("WaveRNN")


def folding(
    found: Stages, wave: np.ndarray, seconds: float, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """WaveRNN with folding and without on the mel of one recording, as often repeated as the seconds need.

    A line each: computing time, real-time factor, SECS (GE2E) against the recording. Empty where it is not trained.
    Times of long sounds are the median of `TIMED` turns, in each of which both speak, so that a slower minute is slower
    for both; short ones are timed once.
    """
    lines = []
    stage = found.vocoders.get("WaveRNN")
    if isinstance(stage, FoldedWaveRNN):
        length = int(seconds * SAMPLE_RATE)
        wave = np.resize(wave, length)
        mel = audio.mel(torch.from_numpy(wave))
        judge = found.encoders[RESEMBLYZER]
        true = judge.voiceprint(wave).embedding
        ways = {"folded": stage.folding, "in one piece": Folding(enabled=False)}
        turns = [
            {name: _timed(FoldedWaveRNN(stage.network, way), mel, seed) for name, way in ways.items()}
            for _ in tqdm(
                range(TIMED if seconds >= LONG_FOLDING else 1),
                desc="WaveRNN, folding",
                unit="turn",
                disable=not progress,
            )
        ]
        for name in ways:
            made, spent = turns[0][name][0], float(np.median([turn[name][1] for turn in turns]))
            similarity = float(judge.voiceprint(made).embedding @ true)
            lines.append((name, len(made) / SAMPLE_RATE, spent, spent * SAMPLE_RATE / len(made), similarity))
    columns = ["WaveRNN", "length (s)", "computing (s)", "real-time factor", "SECS (GE2E)"]
    return pd.DataFrame(lines, columns=columns).set_index("WaveRNN")


# What to conclude


def attention(table: pd.DataFrame, note: str) -> str:
    """One sentence on `failure_table`; the note where nothing was spoken."""
    if table.empty:
        return f"Attention failures were not counted: {note}"
    line = table.loc["all"]
    kinds = ", ".join(f"{line[kind]} {many(line[kind], kind.removesuffix('s'))}" for kind in KINDS)
    n = line["utterances"]
    return f"Attention failed in {line['with any of them']} of {n} {many(n, 'utterance')}: {kinds}."


def prosody(table: pd.DataFrame, note: str) -> str:
    """One sentence on `prosody_table`: is the speech more monotone than the truth? The note where there is none.

    Of medians: an octave error of the pitch tracker multiplies the deviation of an utterance, and pulls a mean.
    """
    own = table.dropna(subset=["pitch", "true pitch"])
    if len(own) < 2:
        return f"Prosody was not measured: {note or 'too few utterances with a pitch'}"
    found = cluster_bootstrap_median(own["pitch"] - own["true pitch"], own["speaker"])
    unvoiced = len(table) - len(own)
    lacking = f"; {unvoiced} more have too few voiced frames on one side" if unvoiced else ""
    words = (
        "less"
        if found.high < 0
        else "more"
        if found.low > 0
        else "neither less nor more, as far as is shown,"
    )
    return (
        f"Pitch deviates by {own['pitch'].median():.2f} semitones in `sv2tts`, by {own['true pitch'].median():.2f} in "
        f"the true recordings (medians, which octave errors of the pitch tracker hardly move); median difference "
        f"{found.value:+.2f} (95 % interval {found.low:+.2f} to {found.high:+.2f}, n = {len(own)}{lacking}): "
        f"**{words}** than the truth."
    )


def pace(table: pd.DataFrame, note: str) -> str:
    """One sentence on `prosody_table`: how long an utterance is beside the truth. The note where there is none."""
    if table.empty:
        return f"The pace was not measured: {note or 'no utterance was spoken'}"
    ratio = table["seconds"] / table["true seconds"]
    low, middle, high = ratio.quantile([0.25, 0.5, 0.75])
    return (
        f"An utterance of `sv2tts` lasts {middle:.2f} times as long as its true recording (median of {len(ratio)}; the "
        f"middle half {low:.2f} to {high:.2f}); {(ratio < 1).mean():.0%} are shorter than the truth."
    )


def folded(table: pd.DataFrame, note: str) -> str:
    """One sentence on `folding`: how much faster, and what similarity it costs. The note where it was not timed."""
    if table.empty:
        return f"Folding was not timed: {note}"
    one, whole = table.loc["folded"], table.loc["in one piece"]
    ratio = whole["computing (s)"] / one["computing (s)"]
    lost = whole["SECS (GE2E)"] - one["SECS (GE2E)"]
    return (
        f"Folding makes WaveRNN {ratio:.1f} times faster on {one['length (s)']:.1f} s of speech (real-time factor "
        f"{one['real-time factor']:.2f} instead of {whole['real-time factor']:.2f}); SECS changes by {-lost:+.3f}."
    )

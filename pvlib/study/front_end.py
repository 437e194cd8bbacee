"""Where voice activity detectors cut a clip whose edges are known: Silero, an energy threshold, WebRTC's.

Two kinds of known edges. *Words*: a stretch of a true recording that begins or ends with a word in /s/ or /f/, cut
out by the world's word times. *Attached sounds*: a stretch that begins and ends with voiced letters, with a noise of
known kind, length and level in front or behind. The recordings say what happens, the attached sounds from which
level on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.signal
from matplotlib.figure import Figure

from pvlib import audio, frontend
from pvlib.audio import SAMPLE_RATE
from pvlib.config import Inference
from pvlib.study import manifest as manifests
from pvlib.study import statistics
from pvlib.study.look import styled
from pvlib.study.manifest import ManifestError

FLOOR_SECONDS = 0.25  # room noise in front of and behind a stretch
FLOOR_DB = -45.0  # its level, under the stretch
CORE_SECONDS = (0.5, 0.9)  # how long a stretch of known speech is
WORD_EDGE_SECONDS = 0.08  # of a word in /s/ or /f/ so much counts as the consonant
FADE_SECONDS = 0.005  # of an attached sound
LEVELS_DB = (0, -10, -20, -30, -40)  # of an attached sound, under the stretch

# Attached sounds: corner frequencies (Hz) of second-order filters, and seconds. /s/ hisses high, /f/ is flat, a
# breath is lower and longer.
SOUNDS = {"s": (4500, 9500, 0.10), "f": (1500, 9000, 0.10), "breath": (300, 3000, 0.35)}

# Words whose first or last letters are read as a voiceless /s/ or /f/ for certain
WORD_EDGES = {
    ("s", "start"): re.compile(r"s(?!h)"),
    ("f", "start"): re.compile(r"f|ph"),
    ("s", "end"): re.compile(r".*(?:ss|[fkpt]s|[aeiou][rnl]?ce)$"),
    ("f", "end"): re.compile(r".*(?:[^o]f|ff|[iu]fe|ph)$"),
}
_VOICED = "aeioulmnrwy"

ENERGY_DB = 30  # the energy threshold, under the loudest frame
ENERGY_FRAME = 720  # samples, 30 ms
WEBRTC_FRAME_MS = 20
NETWORK = "Silero"
STYLES = {  # colour and marker of each detector
    NETWORK: ("#0072b2", "o"),
    "energy": ("#e69f00", "s"),
    "WebRTC 0": ("#009e73", "^"),
    "WebRTC 2": ("#cc79a7", "P"),
    "WebRTC 3": ("#d55e00", "v"),
}
MARGINS_MS = (0, 10, 20, 30, 50, 75, 100, 150, 200)
WIDEST_MS = 1000.0  # of a margin on either side of nothing: beyond it lies no clip
NEAR_MS = 1.0  # nearer amounts of noise are equal


@dataclass(frozen=True, eq=False)
class Edge:
    """A clip with a sound at one of its edges.

    wave: (s,) at 24 kHz: floor, speech with the sound at its `side` ("start" or "end"), floor. begin, end: the sound,
    in samples. speech: (first, past the last) sample of everything that is said, the sound included. level_db: of the
    sound under the rest of the speech. utterance, speaker: whose recording it is.
    """

    wave: np.ndarray
    sound: str
    side: str
    begin: int
    end: int
    speech: tuple[int, int]
    level_db: float
    utterance: str
    speaker: str


# Known edges


def attached(
    sound: str, level_db: float, side: str, core: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, int, int]:
    """Speech with a filtered noise at one side: the samples (s,), and where the noise begins and ends in them.

    sound: of `SOUNDS`. level_db: its root mean square against that of core, (s,) at 24 kHz. Raises KeyError on
    another sound, ValueError on another side.
    """
    low, high, seconds = SOUNDS[sound]
    if side not in ("start", "end"):
        raise ValueError(f"no side {side!r}: start or end")
    count = round(seconds * SAMPLE_RATE)
    noise = np.random.default_rng(seed).standard_normal(2 * count)
    filters = scipy.signal.butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    noise = scipy.signal.sosfilt(filters, noise)[count:]
    fade = np.minimum(1, np.arange(count) / (FADE_SECONDS * SAMPLE_RATE))
    noise *= fade * fade[::-1]
    noise *= rms(core) * 10 ** (level_db / 20) / rms(noise)
    parts, begin = ((noise, core), 0) if side == "start" else ((core, noise), len(core))
    return np.concatenate(parts).astype(np.float32), begin, begin + count


def attached_edges(profile_manifest: str, count: int, levels: Sequence[float] = LEVELS_DB) -> list[Edge]:
    """Every sound at every level on both sides of `count` stretches of true recordings, one of each utterance.

    Raises ManifestError where the manifest has no word times.
    """
    edges = []
    for k, (row, wave, words) in enumerate(_recordings(profile_manifest, count, _voiced_stretch)):
        core = _cut(wave, *_voiced_stretch(words))
        for sound in SOUNDS:
            for side in ("start", "end"):
                for level in levels:
                    speech, begin, end = attached(sound, level, side, core, seed=k)
                    edges.append(_edge(speech, sound, side, begin, end, float(level), row, core, seed=k))
    return edges


def word_edges(profile_manifest: str, count: int) -> list[Edge]:
    """`count` stretches of true recordings for each of `WORD_EDGES`, one of each utterance at most.

    Raises ManifestError where the manifest has no word times.
    """
    edges = []
    for (sound, side), spelling in WORD_EDGES.items():
        for k, (row, wave, words) in enumerate(
            _recordings(profile_manifest, count, lambda w, s=side, p=spelling: _word_stretch(w, s, p))
        ):
            speech = _cut(wave, *_word_stretch(words, side, spelling))
            size = round(WORD_EDGE_SECONDS * SAMPLE_RATE)
            begin = 0 if side == "start" else len(speech) - size
            own, rest = speech[begin : begin + size], speech[size:] if side == "start" else speech[:-size]
            level = 20 * np.log10(max(rms(own), 1e-6) / rms(rest))
            edges.append(_edge(speech, sound, side, begin, begin + size, float(level), row, rest, seed=k))
    return edges


def _recordings(name: str, count: int, wanted: Callable) -> list[tuple[object, np.ndarray, list]]:
    manifest, times = manifests.read(name), manifests.word_times(name)
    if not times:
        raise ManifestError(
            f"{name} has no word times, so the edges of its words are not known; take mini-test"
        )
    found = []
    for row in manifest.sample().itertuples():
        if len(found) < count and wanted(times[row.utterance]):
            found.append((row, audio.load(manifest.folder / row.audio), times[row.utterance]))
    return found


def _voiced_stretch(words: Sequence[tuple[str, float, float]]) -> tuple[float, float] | None:
    """The first run of whole words of `CORE_SECONDS` that begins and ends with a voiced letter."""
    for i, (first, start, _) in enumerate(words):
        for last, _, end in words[i:]:
            fits = CORE_SECONDS[0] <= end - start <= CORE_SECONDS[1]
            if fits and first[0] in _VOICED and last[-1] in _VOICED:
                return start, end
    return None


def _word_stretch(
    words: Sequence[tuple[str, float, float]], side: str, spelling: re.Pattern[str]
) -> tuple[float, float] | None:
    """The first run of whole words of `CORE_SECONDS` that begins or ends with such a word."""
    for i, (first, start, _) in enumerate(words):
        for last, _, end in words[i:]:
            fits = CORE_SECONDS[0] <= end - start <= CORE_SECONDS[1]
            if fits and spelling.match(first if side == "start" else last):
                return start, end
    return None


def _cut(wave: np.ndarray, start: float, end: float) -> np.ndarray:
    return wave[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def _edge(
    speech: np.ndarray,
    sound: str,
    side: str,
    begin: int,
    end: int,
    level: float,
    row: object,
    core: np.ndarray,
    seed: int,
) -> Edge:
    pad = round(FLOOR_SECONDS * SAMPLE_RATE)
    noise = np.random.default_rng(1000 + seed).standard_normal(len(speech) + 2 * pad)
    wave = noise * rms(core) * 10 ** (FLOOR_DB / 20)
    wave[pad : pad + len(speech)] += speech
    spoken = (pad, pad + len(speech))
    return Edge(
        wave.astype(np.float32),
        sound,
        side,
        pad + begin,
        pad + end,
        spoken,
        level,
        row.utterance,
        row.speaker,
    )


def rms(wave: np.ndarray) -> float:
    """The root mean square of samples."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


# Detectors: bounds of what is taken for speech, in samples, without any margin; None where nothing is


def silero(wave: np.ndarray, inference: Inference) -> tuple[int, int] | None:
    """The front end's detector. wave: (s,) at 24 kHz."""
    spans = frontend.speech_spans(wave, inference)
    pad = frontend.VAD_PAD_MS * SAMPLE_RATE // 1000
    return (spans[0][0] + pad, spans[-1][1] - pad) if spans else None


def energy(wave: np.ndarray, below_db: float = ENERGY_DB) -> tuple[int, int] | None:
    """First to last frame whose level is less than `below_db` under the loudest one's. wave: (s,) at 24 kHz."""
    import librosa

    options = {"top_db": below_db, "frame_length": ENERGY_FRAME, "hop_length": ENERGY_FRAME // 3}
    first, last = librosa.effects.trim(wave, **options)[1]
    return (int(first), int(last)) if last > first else None


def webrtc(wave: np.ndarray, mode: int) -> tuple[int, int] | None:
    """First to last frame that WebRTC's Gaussian mixtures take for speech. mode: 0 (lenient) to 3. wave: at 24 kHz."""
    import webrtcvad

    rate = frontend.VAD_RATE
    samples = (np.clip(audio.resample(wave, SAMPLE_RATE, rate), -1, 1) * 32767).astype(np.int16)
    size, detector = WEBRTC_FRAME_MS * rate // 1000, webrtcvad.Vad(mode)
    frames = [samples[i : i + size] for i in range(0, len(samples) - size + 1, size)]
    speech = np.flatnonzero([detector.is_speech(frame.tobytes(), rate) for frame in frames])
    scale = size * SAMPLE_RATE // rate
    return (int(speech[0] * scale), int((speech[-1] + 1) * scale)) if len(speech) else None


def detectors(inference: Inference) -> dict[str, Callable[[np.ndarray], tuple[int, int] | None]]:
    """Every detector by the name that it has in tables."""
    found: dict[str, Callable] = {NETWORK: lambda wave: silero(wave, inference), "energy": energy}
    return found | {f"WebRTC {mode}": lambda wave, mode=mode: webrtc(wave, mode) for mode in (0, 2, 3)}


# What they keep


def cuts(edges: Sequence[Edge], inference: Inference) -> pd.DataFrame:
    """Where every detector cuts every edge, a row each.

    Columns detector, sound, side, level_db, utterance, speaker, sound_ms (its length) and reach_ms: how far beyond the
    true edge of the speech the detector keeps; negative where it cuts into it, NaN where it found no speech at all.
    """
    rows = []
    for edge in edges:
        for name, detect in detectors(inference).items():
            bounds = detect(edge.wave)
            reach = float("nan")
            if bounds is not None:
                reach = edge.speech[0] - bounds[0] if edge.side == "start" else bounds[1] - edge.speech[1]
            row = {key: getattr(edge, key) for key in ("sound", "side", "level_db", "utterance", "speaker")}
            sizes = {"sound_ms": edge.end - edge.begin, "reach_ms": reach}
            rows.append({"detector": name, **row, **{k: v * 1000 / SAMPLE_RATE for k, v in sizes.items()}})
    return pd.DataFrame(rows)


def margins(inference: Inference) -> dict[str, float]:
    """What the front end keeps in front of and behind what it takes for speech, in ms."""
    return {
        "start": float(frontend.VAD_PAD_MS),
        "end": float(frontend.VAD_PAD_MS + inference.vad_trailing_silence_ms),
    }


def kept(found: pd.DataFrame, margin: dict[str, float]) -> pd.DataFrame:
    """`cuts` with a margin around each detector's speech: columns share (of the sound kept, 0..1) and floor_ms.

    floor_ms: room noise kept beyond the edge. Where no speech was found both are 0.
    """
    reach = found["reach_ms"] + found["side"].map(margin)
    share = (1 + reach / found["sound_ms"]).clip(0, 1)
    floor = reach.clip(0, FLOOR_SECONDS * 1000)
    return found.assign(share=share.fillna(0.0), floor_ms=floor.fillna(0.0))


def kept_table(words: pd.DataFrame, margin: dict[str, float]) -> pd.DataFrame:
    """Mean share of the consonants of words that each detector keeps, and the room noise it keeps with them (ms)."""
    own = kept(words, margin)
    shares = own.pivot_table("share", "detector", ["side", "sound"], sort=False)
    shares.columns = [f"/{sound}/ at the {side}" for side, sound in shares.columns]
    floors = own.pivot_table("floor_ms", "detector", "side", sort=False)
    floors = floors[list(dict.fromkeys(own["side"]))]  # as the shares stand
    floors.columns = [f"noise kept at the {side} (ms)" for side in floors.columns]
    return shares.join(floors).rename_axis(None)


def beside_network(words: pd.DataFrame, margin: dict[str, float]) -> pd.DataFrame:
    """Share of consonants kept by the network minus that of each other detector, a line per detector and side.

    Columns detector, side, network, other, difference with a 95 % interval from resampled speakers (low, high), n.
    """
    own, keys = kept(words, margin), ["sound", "utterance", "speaker"]
    lines = []
    for side, part in own.groupby("side", sort=False):
        wide = part.pivot_table("share", keys, "detector", sort=False).reset_index()
        for name in (name for name in STYLES if name != NETWORK):
            found = statistics.paired_bootstrap(wide[NETWORK], wide[name], wide["speaker"])
            ends = {"difference": found.value, "low": found.low, "high": found.high, "n": found.n}
            means = {"network": wide[NETWORK].mean(), "other": wide[name].mean()}
            lines.append({"detector": name, "side": side, **means, **ends})
    return pd.DataFrame(lines)


def at_equal_noise(words: pd.DataFrame, margin: dict[str, float]) -> pd.DataFrame:
    """`beside_network` with the network's margin chosen so that it keeps as much room noise as the other detector.

    The others have the given margins. Columns as there, with margin_ms (the network's) and noise_ms (what both keep,
    the mean); where no margin gives the network so much noise, margin_ms, network and difference are NaN. The interval
    takes the margin as given.
    """
    own, lines = kept(words, margin), []
    for side, part in own.groupby("side", sort=False):
        network = part[part["detector"] == NETWORK]
        for name in (name for name in STYLES if name != NETWORK):
            other = part[part["detector"] == name]
            noise = float(other["floor_ms"].mean())
            line = {"detector": name, "side": side, "noise_ms": noise, "other": other["share"].mean()}
            wide = _margin_of_noise(network, side, noise)
            if np.isfinite(wide):
                pairs = ["sound", "utterance", "speaker"]
                both = kept(network, {side: wide}).merge(other, on=pairs, suffixes=("", "_other"))
                found = statistics.paired_bootstrap(both["share"], both["share_other"], both["speaker"])
                line |= {"margin_ms": wide, "network": both["share"].mean(), "difference": found.value}
                line |= {"low": found.low, "high": found.high, "n": found.n}
            lines.append(line)
    columns = ["detector", "side", "network", "other", "difference", "low", "high", "n"]
    return pd.DataFrame(lines, columns=[*columns, "margin_ms", "noise_ms"])


def _margin_of_noise(cut: pd.DataFrame, side: str, noise_ms: float) -> float:
    """The widest margin with which no more noise than this is kept on average; NaN where none gives nearly so much."""
    low, high = -WIDEST_MS, WIDEST_MS
    if kept(cut, {side: high})["floor_ms"].mean() < noise_ms - NEAR_MS:
        return float("nan")
    while high - low > 0.1:  # ms
        middle = (low + high) / 2
        enough = kept(cut, {side: middle})["floor_ms"].mean() <= noise_ms
        low, high = (middle, high) if enough else (low, middle)
    return low


def needed_margin(words: pd.DataFrame, side: str, share: float = 0.9) -> float:
    """The smallest of `MARGINS_MS` with which the network keeps so large a share on one side; infinite where none."""
    own = words[(words["detector"] == NETWORK) & (words["side"] == side)]
    enough = [m for m in MARGINS_MS if kept(own, {side: float(m)})["share"].mean() >= share]
    return float(enough[0]) if enough else float("inf")


@styled
def by_level(found: pd.DataFrame, margin: dict[str, float]) -> Figure:
    """Share kept of attached sounds over their level, a panel per sound and side, with the front end's margins."""
    own = kept(found, margin).groupby(["side", "sound", "detector", "level_db"])["share"].mean()
    sides, sounds = ("start", "end"), list(SOUNDS)
    figure = Figure(figsize=(3.1 * len(sounds), 4.6), layout="constrained")
    axes = figure.subplots(2, len(sounds), sharex=True, sharey=True)
    for row, side in zip(axes, sides, strict=True):
        for ax, sound in zip(row, sounds, strict=True):
            for name, (colour, marker) in STYLES.items():
                line = own[side, sound, name]
                ax.plot(line.index, line, color=colour, marker=marker, ms=4.5, lw=1.2, label=name)
            ax.set_title(f"{'breath' if sound == 'breath' else f'/{sound}/'} at the {side}", loc="left")
            ax.set_ylim(-0.04, 1.04)
    for ax in axes[-1]:
        ax.set_xlabel("level against the speech (dB)")
    figure.supylabel("share of the sound kept", fontsize=9.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def trade(words: pd.DataFrame) -> Figure:
    """Share of consonants kept over room noise kept, each line one detector with its margin from none to 200 ms."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, side in zip(axes, ("start", "end"), strict=True):
        own = words[words["side"] == side]
        for name, (colour, marker) in STYLES.items():
            points = [
                kept(own[own["detector"] == name], {side: float(m)})[["floor_ms", "share"]].mean()
                for m in MARGINS_MS
            ]
            line = pd.DataFrame(points)
            ax.plot(line["floor_ms"], line["share"], color=colour, marker=marker, ms=4.5, lw=1.2, label=name)
        ax.set_title(f"words in /s/ and /f/ at the {side}", loc="left")
        ax.set_xlabel("room noise kept (ms)")
    axes[0].set_ylabel("share of the consonant kept")
    axes[1].legend(loc="lower right", fontsize=8)
    return figure


def about_consonants(words: pd.DataFrame, inference: Inference) -> list[str]:
    """Sentences for each side: whether the network keeps more of the consonants than the others.

    First with the same margin for all and the noise that each then keeps, and which margin the network would need;
    then at equal noise.
    """
    margin = margins(inference)
    found, equal, sentences = beside_network(words, margin), at_equal_noise(words, margin), []
    noise = kept(words, margin).groupby(["side", "detector"])["floor_ms"].mean()
    for side in ("start", "end"):
        own = found[found["side"] == side]
        told = [
            f"{_difference(line)}, with {noise[side, line.detector]:.0f} ms of noise"
            for line in own.itertuples()
        ]
        need = needed_margin(words, side)
        wide = f"{need:.0f} ms" if np.isfinite(need) else f"more than {MARGINS_MS[-1]} ms"
        sentences.append(
            f"At the {side} of a clip Silero keeps {own['network'].iloc[0]:.0%} of /s/ and /f/ in "
            f"{own['n'].iloc[0]} words, and {noise[side, NETWORK]:.0f} ms of room noise with them. Difference with "
            f"95 % interval, all with the same margin: {'; '.join(told)}. To keep nine tenths it would need a margin "
            f"of {wide}, of those tried; it has {margin[side]:.0f} ms."
        )
        sentences.append(_about_equal_noise(equal[equal["side"] == side], side))
    return sentences


def _about_equal_noise(lines: pd.DataFrame, side: str) -> str:
    """One sentence on the lines of `at_equal_noise` of one side."""
    there = lines.dropna(subset=["difference"])
    told = [f"{_difference(line)} (margin {line.margin_ms:.0f} ms)" for line in there.itertuples()]
    apart = " and ".join(lines.loc[lines["difference"].isna(), "detector"])
    more = f" No margin makes it keep as much noise as {apart}." if apart else ""
    if not told:
        return f"At the {side}, at equal noise: nothing to compare.{more}"
    return (
        f"At the {side}, at equal noise, that is, with the margin at which Silero keeps as much room noise as the "
        f"other does: {'; '.join(told)}.{more}"
    )


def _difference(line: object) -> str:
    """A line of `beside_network` or `at_equal_noise` in words."""
    shown = "not shown" if line.low <= 0 <= line.high else "more" if line.difference > 0 else "**less**"
    return f"{line.difference:+.2f} ({line.low:+.2f} to {line.high:+.2f}) against {line.detector}, {shown}"


def about_breaths(sounds: pd.DataFrame, inference: Inference) -> str:
    """One sentence: how much of attached breaths each detector keeps, over all levels. sounds: see `cuts`."""
    own = kept(sounds[sounds["sound"] == "breath"], margins(inference))
    means = own.groupby(["side", "detector"])["share"].mean()
    told = [
        f"at the {side} Silero keeps {means[side, NETWORK]:.0%} of it, the others "
        f"{means[side].drop(NETWORK).min():.0%} to {means[side].drop(NETWORK).max():.0%}"
        for side in ("start", "end")
    ]
    return f"Of a breath, mean of all levels: {'; '.join(told)}."

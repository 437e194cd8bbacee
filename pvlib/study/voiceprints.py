"""Voices as an encoder hears them: the windows of one recording, many recordings in the plane, speakers told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pvlib import audio
from pvlib.audio import SAMPLE_RATE
from pvlib.config import Profile, get_profile
from pvlib.study import manifest as manifests
from pvlib.study import statistics
from pvlib.study.look import look, styled
from pvlib.study.pictures import spectrogram
from pvlib.systems.base import Request
from pvlib.systems.sv2tts.encoder import Encoder, Voiceprint


@dataclass(frozen=True)
class Heard:
    """Voices of some recordings. speakers: of each; embeddings: (n, 256), unit norm; clips: whether one second only."""

    speakers: tuple[str, ...]
    embeddings: Tensor
    clips: np.ndarray

    @property
    def plane(self) -> np.ndarray:
        """The two directions in which the embeddings differ most (principal components): (n, 2)."""
        centred = (self.embeddings - self.embeddings.mean(0)).double()
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        return (centred @ directions[:2].T).numpy()

    @property
    def plane_share(self) -> float:
        """Share of the variance that the plane keeps."""
        spread = (self.embeddings - self.embeddings.mean(0)).double().square().sum()
        return float(np.square(self.plane).sum() / float(spread))


def some_speakers(profile: Profile | str, speakers: int) -> list[Request]:
    """Every utterance of the first so many speakers of the manifest of a profile."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifests.read(profile.manifest)
    chosen = list(dict.fromkeys(manifest.table["speaker"]))[:speakers]
    return manifest.requests(manifest.table[manifest.table["speaker"].isin(chosen)].reset_index(drop=True))


def hear(by: Encoder, requests: Sequence[Request]) -> Heard:
    """What an encoder makes of the true recordings of some requests, and of their one-second clips."""
    found, speakers, clips = [], [], []
    for request in requests:
        for wave, clip in ((audio.load(request.audio_path), False), (request.clip, True)):
            found.append(by.voiceprint(wave).embedding)
            speakers.append(request.speaker)
            clips.append(clip)
    return Heard(tuple(speakers), torch.stack(found), np.array(clips))


def verification(heard: Mapping[str, Heard]) -> pd.DataFrame:
    """How well encoders tell speakers apart: cosines of whole recordings, and of clips against whole recordings.

    A line per encoder and kind of trial: mean cosine of the same and of different speakers, equal error rate and its
    95 % interval from resampled speakers.
    """
    lines = []
    for name, own in heard.items():
        scores = (own.embeddings @ own.embeddings.T).numpy()
        index = range(len(own.speakers))
        whole = [(i, j) for i, j in combinations(index, 2) if not own.clips[i] and not own.clips[j]]
        # a clip is the beginning of the recording that stands before it: that pair would be no trial
        short = [(i, j) for i in index for j in index if own.clips[i] and not own.clips[j] and j != i - 1]
        for kind, pairs in (("whole recordings", whole), ("one second against whole", short)):
            values = np.array([scores[i, j] for i, j in pairs])
            same = np.array([own.speakers[i] == own.speakers[j] for i, j in pairs])
            sides = ([own.speakers[i] for i, _ in pairs], [own.speakers[j] for _, j in pairs])
            rate = statistics.verification_error(values, same, sides)
            cosines = (values[same].mean(), values[~same].mean())
            lines.append((name, kind, len(pairs), *cosines, rate.value, rate.low, rate.high))
    columns = ["encoder", "trials", "n", "same speaker", "another speaker"]
    columns += ["equal error rate", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


@styled
def windows_figure(voiceprint: Voiceprint, wave: np.ndarray) -> Figure:
    """The partial windows over their recording (24 kHz), and how near each comes to their mean."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1.4))
    spectrogram(above, audio.mel(torch.from_numpy(np.ascontiguousarray(wave)))[0].numpy())
    above.set(ylabel="mel band", title="the recording")
    near = (voiceprint.partials @ voiceprint.embedding).tolist()
    for (start, end), value in zip(voiceprint.windows.tolist(), near, strict=True):
        below.plot([start, end], [value, value], color=look("sv2tts").colour, lw=3, solid_capstyle="butt")
    below.axvline(len(wave) / SAMPLE_RATE, color="#999999", lw=0.8, ls="--")
    below.set(xlabel="time (s); dashed: the end of the sound", ylabel="cosine with the mean")
    return figure


@styled
def plane_figure(heard: Mapping[str, Heard]) -> Figure:
    """Speakers in the plane, a panel per encoder: whole recordings filled, one-second clips open."""
    figure = Figure(figsize=(5.2 * len(heard), 4.4), layout="constrained")
    axes = figure.subplots(1, len(heard), squeeze=False)[0]
    for ax, (name, own) in zip(axes, heard.items(), strict=True):
        places, everyone = own.plane, list(dict.fromkeys(own.speakers))
        shades = sns.color_palette("colorblind", len(everyone))
        for k, speaker in enumerate(everyone):
            mine = np.array(own.speakers) == speaker
            marker = "os^vDP*X<>"[k % 10]
            for clips, fill in ((False, shades[k]), (True, "none")):
                x, y = places[mine & (own.clips == clips)].T
                label = speaker if not clips else None
                ax.scatter(x, y, marker=marker, facecolor=fill, edgecolor=shades[k], s=34, label=label)
        ax.set(xlabel="first component", ylabel="second component")
        ax.set_title(f"{name} ({own.plane_share:.0%} of the variance)")
    axes[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def clusters(table: pd.DataFrame) -> str:
    """One sentence on `verification`: equal error rates of every encoder."""
    parts = [
        f"{row['encoder']} {row['equal error rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}] ({row['trials']}, "
        f"n = {row['n']})"
        for _, row in table.iterrows()
    ]
    return f"Equal error rates: {'; '.join(parts)}. Pairs share recordings, so they are fewer than they look."

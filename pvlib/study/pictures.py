"""Pictures of sound: waveforms, spectrograms and attention. Pictures of result rows are in `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pvlib import audio
from pvlib.study.look import look, styled

QUIET = float(np.log(audio.MEL_FLOOR))  # the floor of a log-mel
LOUD = 3.0  # natural logarithm of the loudest mel magnitude that is drawn
CLIP_COLOUR = "#009e73"
FRAMES_PER_SECOND = audio.SAMPLE_RATE / audio.HOP_LENGTH

Words = Sequence[tuple[str, float, float]]  # word, start and end in seconds


def spectrogram(ax: Axes, mel: np.ndarray) -> object:
    """Draw a log-mel of shape (100, frames) over seconds; returns the image for a colour bar."""
    seconds = mel.shape[-1] / FRAMES_PER_SECOND
    extent = (0.0, seconds, 0, audio.N_MELS)
    image = ax.imshow(
        mel,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="magma",
        vmin=QUIET,
        vmax=LOUD,
        interpolation="nearest",
    )
    ax.grid(visible=False)
    return image


def mel_of(wave: np.ndarray) -> np.ndarray:
    """Log-mel (100, frames) of 24 kHz samples."""
    return audio.mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)))[0].numpy()


@styled
def waveforms_and_spectrograms(
    waves: Mapping[str, np.ndarray], words: Mapping[str, Words] | None = None
) -> Figure:
    """Figure 5: one line per sound, waveform on the left, log-mel on the right, all on one time axis.

    waves: name -> 24 kHz samples; names of systems take their colours. words: name -> true word
    times, written under the waveform of that name.
    """
    figure = Figure(figsize=(10.5, 1.45 * len(waves) + 0.5), layout="constrained")
    axes = figure.subplots(len(waves), 2, squeeze=False, sharex=True)
    longest = max(len(wave) for wave in waves.values()) / audio.SAMPLE_RATE
    image = None
    for (left, right), (name, wave) in zip(axes, waves.items(), strict=True):
        colour = look(name).colour if name != "clip" else CLIP_COLOUR
        left.plot(np.arange(len(wave)) / audio.SAMPLE_RATE, wave, color=colour, lw=0.4)
        left.set(ylim=(-1, 1), xlim=(0, longest))
        left.set_title(f"{name}, {len(wave) / audio.SAMPLE_RATE:.2f} s", loc="left", fontsize=9)
        for word, start, end in (words or {}).get(name, []):
            left.axvline(start, color="#bbbbbb", lw=0.5)
            left.text((start + end) / 2, -0.93, word, ha="center", va="bottom", fontsize=5.5, rotation=90)
        image = spectrogram(right, mel_of(wave))
        right.set_xlim(0, longest)
    figure.supylabel("amplitude (full scale = 1)", fontsize=9)
    axes[0, 1].set_title("mel band (0 to 99) over time", loc="left", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("time (s)")
    figure.colorbar(image, ax=axes[:, 1], label="log mel magnitude (nat)", pad=0.01)
    return figure


@styled
def spectrograms(mels: Mapping[str, np.ndarray]) -> Figure:
    """Log-mels (100, frames) of one utterance, above each other."""
    figure = Figure(figsize=(9.5, 1.5 * len(mels) + 0.4), layout="constrained")
    axes = figure.subplots(len(mels), 1, sharex=True, squeeze=False)[:, 0]
    image = None
    for ax, (name, mel) in zip(axes, mels.items(), strict=True):
        image = spectrogram(ax, mel)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_ylabel("mel band")
    axes[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=axes, label="log mel magnitude (nat)", pad=0.01)
    return figure


def _heat(ax: Axes, weights: np.ndarray, **options: object) -> object:
    """A map of non-negative weights, square-rooted so that the small ones show; dark is much."""
    palette = sns.color_palette("rocket_r", as_cmap=True)
    image = ax.imshow(
        np.sqrt(weights), aspect="auto", cmap=palette, vmin=0, interpolation="nearest", **options
    )
    ax.grid(visible=False)
    return image


@styled
def attention_heads(maps: np.ndarray, boundary: float, seconds: float, layers: Sequence[int]) -> Figure:
    """Figure 6, upper part: self-attention of every head, query time downwards, key time to the right.

    maps: (layers, heads, n, n), rows summing to one. boundary: where the one-second reference ends (s).
    seconds: length of the whole sequence. layers: names of the first axis, counted from the end.
    """
    rows, columns = maps.shape[:2]
    figure = Figure(figsize=(2.55 * columns + 0.8, 2.45 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    image = None
    for row in range(rows):
        for column in range(columns):
            ax = axes[row, column]
            image = _heat(ax, maps[row, column], extent=(0, seconds, seconds, 0), vmax=_ceiling(maps))
            ax.axvline(boundary, color=CLIP_COLOUR, lw=1)
            ax.axhline(boundary, color=CLIP_COLOUR, lw=1)
            ax.set_title(f"block {layers[row]}, head {column}", fontsize=8.5)
    figure.supxlabel("time attended to (s); green: end of the reference", fontsize=9)
    figure.supylabel("time of the frame (s)", fontsize=9)
    figure.colorbar(image, ax=axes, label="square root of the attention weight", pad=0.01)
    return figure


def _ceiling(weights: np.ndarray) -> float:
    """Where the colour scale ends: the root of the 99.5th percentile, so that one peak hides nothing."""
    return float(np.sqrt(np.quantile(weights, 0.995))) or 1.0


@styled
def attention_text(
    token_map: np.ndarray,
    tokens: Sequence[str],
    spans: Sequence[float],
    entropy: np.ndarray,
    boundary: float,
    seconds: float,
    line: str = "the token's own frames",
) -> Figure:
    """Figure 6, lower part: attention of every frame, gathered by the text token that a key frame stands for.

    token_map: (n, tokens), rows summing to one at most. spans: for each token the middle of its frames
    (s), NaN for none;
    attention to the token being spoken would lie on this line. entropy: (n,) of each frame's attention over
    frames, a share of the largest possible. boundary, seconds: end of the reference and of the whole (s).
    line: what the line is called.
    """
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(5, 1), sharey=True)
    extent = (-0.5, len(tokens) - 0.5, seconds, 0)
    image = _heat(left, token_map, extent=extent, vmax=_ceiling(token_map))
    places = np.asarray(spans, dtype=float)
    own = np.flatnonzero(np.isfinite(places))
    left.plot(own, places[own], ".-", color="#0072b2", ms=3, lw=1, label=line)
    left.axhline(boundary, color=CLIP_COLOUR, lw=1)
    left.set_xticks(range(len(tokens)), ["␣" if token == " " else token for token in tokens], fontsize=6)
    left.set(xlabel="text token (the key frames that it lies on)", ylabel="time of the frame (s)")
    left.legend(loc="upper right", fontsize=8, frameon=True)
    figure.colorbar(image, ax=left, label="square root of the attention weight", pad=0.01)
    right.plot(entropy, (np.arange(len(entropy)) + 0.5) / len(entropy) * seconds, color="#444444", lw=0.9)
    right.axhline(boundary, color=CLIP_COLOUR, lw=1)
    right.set(xlabel="entropy over all tokens\n(share of its maximum)", xlim=(0, 1.1))
    return figure


@styled
def attention_compared(
    token_maps: Mapping[str, np.ndarray],
    tokens: Sequence[str],
    boundary: float,
    seconds: float,
    scale: float,
) -> Figure:
    """Figure 6 under guidance: attention of every frame, gathered by text token, and how each guidance changes it.

    token_maps: name -> (n, tokens), rows summing to one at most, the first one without guidance; the others are drawn
    as differences from it, on one scale with zero in the middle that the largest few exceed. boundary, seconds: end of
    the reference and of the whole (s). scale: of the guidance's strength, in multiples of the formula's.
    """
    figure = Figure(figsize=(3.4 * len(token_maps) + 1.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(token_maps), sharex=True, sharey=True, squeeze=False)[0]
    (first, plain), *others = token_maps.items()
    extent = (-0.5, len(tokens) - 0.5, seconds, 0)
    image = _heat(axes[0], plain, extent=extent, vmax=_ceiling(plain))
    axes[0].set_title(f"guidance: {first}", fontsize=9)
    axes[0].set_ylabel("time of the frame (s)")
    figure.colorbar(image, ax=axes[0], label="square root of the attention weight", pad=0.01)
    changes = {name: weights - plain for name, weights in others}
    most = max((_ceiling(np.abs(change)) ** 2 for change in changes.values()), default=1.0)
    palette = sns.color_palette("vlag", as_cmap=True)
    for ax, (name, change) in zip(axes[1:], changes.items(), strict=True):
        options = {"aspect": "auto", "cmap": palette, "interpolation": "nearest", "extent": extent}
        image = ax.imshow(change, vmin=-most, vmax=most, **options)
        ax.grid(visible=False)
        ax.set_title(f"{name} minus {first}, at {scale:g} times the strength", fontsize=9)
    if changes:
        words = {"label": "difference of the attention weight", "extend": "both"}
        figure.colorbar(image, ax=axes[1:], pad=0.01, **words)
    for ax in axes:
        ax.axhline(boundary, color=CLIP_COLOUR, lw=1)
    figure.supxlabel("position of the character in the text; green: end of the reference", fontsize=9)
    return figure


@styled
def entropy_compared(
    times: np.ndarray, nats: Mapping[str, np.ndarray], window: tuple[float, float], scale: float
) -> Figure:
    """Entropy of the attention over text under each kind of guidance, and its difference from none.

    times: (steps,) in 0..1. nats: name -> (steps,), mean of heads and blocks; the first one is without guidance.
    scale: of the guidance's strength, in multiples of the formula's.
    """
    figure = Figure(figsize=(9.5, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    plain = next(iter(nats.values()))
    for k, (name, values) in enumerate(nats.items()):
        style = {"color": sns.color_palette("colorblind")[k % 8], "ms": 3.5, "lw": 1.2, "label": name}
        left.plot(times, values, ("-o", "--s", ":^")[k % 3], **style)
        right.plot(times, values - plain, ("-o", "--s", ":^")[k % 3], **style)
    for ax in (left, right):
        ax.axvspan(*window, color="#eeeeee", zorder=0)
        ax.set_xlabel("time of the flow (0 noise, 1 speech)")
    left.set_ylabel("entropy over text (nat)")
    right.set_ylabel("difference from no guidance (nat)")
    note = f"guidance at {scale:g} times the formula's strength; shaded: its window"
    left.set_title(note, loc="left", fontsize=8.5, color="#555555")
    left.legend(fontsize=8)
    return figure


@styled
def entropy_over_time(
    times: np.ndarray, share: np.ndarray, layers: Sequence[int], window: tuple[float, float]
) -> Figure:
    """Entropy of the attention over text at each step of the sampler, one line per block; the window is shaded.

    times: (steps,) in 0..1. share: (steps, layers), entropies as a share of their largest value.
    """
    figure = Figure(figsize=(7.0, 3.0), layout="constrained")
    ax = figure.subplots()
    for column, layer in enumerate(layers):
        style = ("-o", "--s", ":^")[column % 3]
        shade = sns.color_palette("colorblind")[column % 8]
        ax.plot(times, share[:, column], style, ms=3.5, lw=1.2, color=shade, label=f"block {layer}")
    ax.axvspan(*window, color="#eeeeee", zorder=0, label="CEAG's window")
    ax.set(xlabel="time of the flow (0 noise, 1 speech)", ylabel="entropy over text\n(share of its maximum)")
    ax.legend(fontsize=8)
    return figure

"""Sound inside a page: small players that stay in the notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping

import numpy as np
import soundfile
from IPython.display import HTML, Audio

from pvlib.audio import SAMPLE_RATE, AudioError


def player(wave: np.ndarray) -> Audio:
    """A player of 24 kHz samples, as MP3 (about 6 kB per second; every browser plays it).

    Raises AudioError on samples that are empty or not finite.
    """
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
        raise AudioError(f"a player needs finite mono samples, not an array of shape {wave.shape}")
    buffer = io.BytesIO()
    wave = wave / max(1.0, float(np.abs(wave).max()))
    soundfile.write(buffer, wave, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
    audio = Audio(data=buffer.getvalue())
    audio.mimetype = "audio/mpeg"
    return audio


def players(waves: Mapping[str, np.ndarray | None], captions: Mapping[str, str] | None = None) -> HTML:
    """A table of names, players and captions (what was said or heard). A wave of None is shown missing."""
    lines = []
    for name, wave in waves.items():
        sound = player(wave)._repr_html_() if wave is not None else "no sound"
        seconds = f"{len(wave) / SAMPLE_RATE:.2f} s" if wave is not None else ""
        caption = html.escape((captions or {}).get(name, ""))
        lines.append(
            f"<tr><td>{html.escape(name)}</td><td>{seconds}</td><td>{sound}</td><td>{caption}</td></tr>"
        )
    return HTML(f"<table>{''.join(lines)}</table>")

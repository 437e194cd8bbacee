"""What nearness to the mel is worth: Vocos's sound moved towards the mel that it was made from.

Griffin-Lim comes nearer to a mel than Vocos, since it searches for nothing else. Here the same search goes on from the
sound of Vocos, for some turns, on mels of true recordings and on those that the sampler writes, which are smoother.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torchaudio
from torch import Tensor
from tqdm.auto import tqdm

from pvlib import audio
from pvlib.audio import HOP_LENGTH, MEL_FLOOR, N_FFT, N_MELS, SAMPLE_RATE, AudioError
from pvlib.metrics import dnsmos, wer
from pvlib.study.pairs import LEAST
from pvlib.study.statistics import Interval, cluster_bootstrap_mean
from pvlib.systems.base import Request
from pvlib.vocoder import griffin_lim
from pvlib.voice import Job, PersonaVoice

TURNS = (1, 3, 10)
VOCOS, CLASSIC = "Vocos", "Griffin-Lim"
RECORDING, CLONE = "recording", "clone"
METRICS = {"near": "mel distance (nat)", "dnsmos": "DNSMOS", "secs": "SECS", "wer": "WER"}
SHARE, QUICK = 8, 1  # of a complete study one utterance in so many; of another so many


def matched(wave: Tensor, mel: Tensor, turns: int) -> Tensor:
    """A waveform moved towards a mel, with nothing learned: Griffin and Lim's search, begun at the waveform.

    In each turn the short-time spectrum is scaled, band by band, to the mel, its phases kept, and made a waveform
    again. wave: (b, (n - 1) 256), mel: (b, 100, n) natural logarithm. Raises AudioError on a wave that is no longer
    than half a window, which has no spectrum.
    """
    if wave.shape[-1] <= N_FFT // 2:
        raise AudioError(f"{wave.shape[-1]} samples are too few: give more than {N_FFT // 2}")
    filters = torchaudio.functional.melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE)
    filters = filters.to(wave.device)
    shares = filters / filters.sum(1, keepdim=True).clamp(min=1e-8)  # of each band in a bin
    window = torch.hann_window(N_FFT, device=wave.device)
    for _ in range(turns):
        spectrum = torch.stft(wave, N_FFT, HOP_LENGTH, window=window, return_complex=True)
        own = (filters.T @ spectrum.abs()).clamp(min=MEL_FLOOR).log()
        spectrum = spectrum * (shares @ (mel - own)).exp()
        wave = torch.istft(spectrum, N_FFT, HOP_LENGTH, window=window, length=wave.shape[-1])
    return wave


def ways(voice: PersonaVoice, mel: Tensor) -> dict[str, np.ndarray]:
    """Each way back from a mel (100, n), by name: samples at 24 kHz."""
    given = mel[None].float().to(voice.device)
    with torch.inference_mode():
        plain = voice.vocoder.decode(given).float()
        found = {VOCOS: plain} | {name_of(turns): matched(plain, given, turns) for turns in TURNS}
        found[CLASSIC] = griffin_lim(given)
    return {name: wave[0].cpu().numpy().astype(np.float32) for name, wave in found.items()}


def name_of(turns: int) -> str:
    """What Vocos with so many turns is called."""
    return f"{VOCOS}, {turns} more turn{'' if turns == 1 else 's'}"


def rows(voice: PersonaVoice, requests: Sequence[Request], progress: bool = True) -> pd.DataFrame:
    """A line per utterance, sound and way: what each way makes of the mel of the true recording and of the clone's.

    Columns sound ("recording" or "clone"), way, utterance, speaker, near (mean distance to the mel that was given,
    nat), dnsmos, secs (ECAPA, against the clip), wer (capped at 1).
    """
    lines = []
    for request in tqdm(requests, desc="nearness to the mel", unit="utterance", disable=not progress):
        reference = voice.reference(request.clip, name=f"the clip of {request.utterance}")
        speech = voice.synthesise([Job(reference, request.text, request.seed)])[0]
        recording = torch.from_numpy(np.ascontiguousarray(audio.load(request.audio_path)))
        mels = {RECORDING: audio.mel(recording)[0], CLONE: speech.mel.T}
        for sound, mel in mels.items():
            for way, wave in ways(voice, mel).items():
                again = audio.mel(torch.from_numpy(wave))[0]
                heard = voice.recognizer.transcribe([wave])[0]
                with torch.inference_mode():
                    own = voice.speaker_encoder.embed([wave])[0].cpu().float()
                lines.append(
                    {
                        "sound": sound,
                        "way": way,
                        "utterance": request.utterance,
                        "speaker": request.speaker,
                        "near": float((again - mel.cpu()[:, : again.shape[1]]).abs().mean()),
                        "dnsmos": dnsmos.overall(wave),
                        "secs": float(own @ reference.embedding),
                        "wer": min(1.0, wer.wer(request.text, heard)),
                    }
                )
    return pd.DataFrame(lines)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Means, a line per sound and way. found: of `rows`."""
    means = found.groupby(["sound", "way"], sort=False)[list(METRICS)].mean()
    return means.rename(columns=METRICS).sort_index(level="sound", ascending=False, sort_remaining=False)


def told(found: pd.DataFrame) -> list[str]:
    """In words: what the most turns change on recordings and on clones, beside Vocos and beside Griffin-Lim."""
    most = name_of(max(TURNS))
    sentences = []
    for sound in (RECORDING, CLONE):
        own = found[found["sound"] == sound]
        near = own.groupby("way")["near"].mean()
        changes = ", ".join(
            f"{METRICS[metric]} {_shown(_difference(own, metric, most, VOCOS))}"
            for metric in ("dnsmos", "secs", "wer")
        )
        side = "nearer than" if near[most] < near[CLASSIC] else "not as near as"
        sentences.append(
            f"{own['utterance'].nunique()} {sound}s: {max(TURNS)} turns bring the sound of Vocos from "
            f"{near[VOCOS]:.3f} to {near[most]:.3f} nat of its mel, {side} Griffin-Lim's {near[CLASSIC]:.3f} "
            f"({_shown(_difference(own, 'near', most, CLASSIC))}). That changes {changes}."
        )
    clones = found[found["sound"] == CLONE]
    price = [m for m in ("dnsmos", "secs") if _is_below(_difference(clones, m, most, VOCOS))]
    if price:
        named = " and ".join(METRICS[metric] for metric in price)
        sentences.append(
            "A vocoder that keeps to the mel can be had without any training, and **clones pay for it with "
            f"{named}**: the mel that the sampler writes is smoother than speech, and where Vocos leaves it, it leaves "
            "it to the good."
        )
    return sentences


def _difference(own: pd.DataFrame, metric: str, one: str, other: str) -> Interval:
    wide = own.pivot(index=["speaker", "utterance"], columns="way", values=metric)
    return cluster_bootstrap_mean(wide[one] - wide[other], wide.index.get_level_values("speaker"))


def _is_below(interval: Interval) -> bool:
    return interval.n >= LEAST and interval.high < 0


def _shown(interval: Interval) -> str:
    text = f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    return text if interval.n >= LEAST else f"{text} of too few to tell"

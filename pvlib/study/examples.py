"""Utterances chosen by a rule, and their sound made again: rows keep numbers, not waveforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from pvlib import audio, hub, systems
from pvlib.audio import AudioError
from pvlib.config import MINI, Profile, get_profile
from pvlib.metrics import dnsmos
from pvlib.study import manifest as manifests
from pvlib.study.manifest import Manifest, ManifestError
from pvlib.study.measure import in_stratum
from pvlib.systems.base import Request, System
from pvlib.systems.ground_truth import vocoded
from pvlib.text import TextError
from pvlib.vocoder import griffin_lim
from pvlib.voice import PersonaVoice


def median(rows: pd.DataFrame, system: str, stratum: str = "long") -> str:
    """The utterance in the middle of a system's word error rates, of equals the one of middle length.

    Raises ValueError when the system has no row in the stratum.
    """
    own = in_stratum(rows[(rows["system"] == system) & (rows["error"] == "")], stratum)
    if own.empty:
        raise ValueError(f"no {stratum} utterance of {system} to choose from; take more samples")
    middle = own["wer"].sort_values().iloc[(len(own) - 1) // 2]
    equal = own[own["wer"] == middle].sort_values(["words", "utterance"])
    return str(equal["utterance"].iloc[(len(equal) - 1) // 2])


def worst(rows: pd.DataFrame, system: str, count: int = 4, stratum: str = "overall") -> pd.DataFrame:
    """The rows of a system with the highest word error rate, the worst first; of equals the shortest text first."""
    own = in_stratum(rows[rows["system"] == system], stratum)
    return own.sort_values(["wer", "words", "utterance"], ascending=[False, True, True]).head(count)


def strangers(profile: Profile | str, clip: np.ndarray) -> np.ndarray:
    """Similarity of a clip to one clip of each speaker of the embedded test set, by the profile's ECAPA-TDNN: (n,).

    clip: (s,) at 24 kHz, of none of them. What a clone has to be above. Raises WeightsError, ManifestError.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    others = manifests.read(MINI.manifest)
    one_each = others.sample().drop_duplicates("speaker").reset_index(drop=True)
    encoder = hub.load_speaker_encoder(profile)
    heard = encoder.embed([clip, *(request.clip for request in others.requests(one_each))]).float().cpu()
    return torch.cosine_similarity(heard[1:], heard[:1]).numpy()


def requests(
    profile: Profile | str, utterances: Sequence[str], manifest: Manifest | None = None
) -> list[Request]:
    """Requests by the names of their utterances, in that order. Raises ManifestError on an unknown name."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    manifest = manifest or manifests.read(profile.manifest)
    table = manifest.table.set_index("utterance", drop=False)
    if unknown := [name for name in utterances if name not in table.index]:
        raise ManifestError(f"{manifest.name} has no utterance {unknown[0]!r}")
    return manifest.requests(table.loc[list(utterances)].reset_index(drop=True))


def speakable(
    voice: PersonaVoice | None, manifest: Manifest, rows: pd.DataFrame, count: int = 1
) -> list[Request]:
    """The first `count` requests among rows of a manifest whose clip can be cloned; fewer where there are fewer.

    A clip in which nobody speaks, or no word is recognised, is passed over: the first second of a real recording may
    be a pause. Without a voice no clip is tried. Raises AudioError or TextError, that of the last row, when there are
    rows and none of them can be cloned.
    """
    found: list[Request] = []
    refusal: AudioError | TextError | None = None
    for place in range(len(rows)):
        if len(found) == count:
            break
        try:
            (request,) = manifest.requests(rows.iloc[[place]])
            if voice is not None:
                voice.reference(request.clip, name=f"the clip of {request.utterance}")
        except (AudioError, TextError) as error:
            refusal = error
        else:
            found.append(request)
    if refusal and not found:
        raise refusal
    return found


def sounds(
    profile: Profile | str,
    utterances: Sequence[str],
    names: Iterable[str | System],
    manifest: Manifest | None = None,
) -> dict[str, dict[str, np.ndarray | None]]:
    """What systems say for some utterances, synthesised again from the rows' seeds.

    Returns utterance -> {"clip": the reference, system: (s,) at 24 kHz, None where the synthesis failed}.
    """
    asked = requests(profile, utterances, manifest)
    found: dict[str, dict[str, np.ndarray | None]] = {r.utterance: {"clip": r.clip} for r in asked}
    for name in names:
        system = systems.create(name, profile) if isinstance(name, str) else name
        for request, result in zip(asked, system.synthesise(asked), strict=True):
            found[request.utterance][system.name] = result.wave
    return found


def through_mel(profile: Profile | str, wave: np.ndarray) -> dict[str, np.ndarray]:
    """One recording turned into a mel spectrogram and back, by the profile's vocoder and by Griffin-Lim."""
    profile = get_profile(profile) if isinstance(profile, str) else profile
    learned = vocoded(hub.load_vocoder(profile, torch.device("cpu")), wave, "cpu")
    classic = griffin_lim(audio.mel(torch.from_numpy(np.ascontiguousarray(wave))))[0].numpy()
    return {"Vocos": learned, "Griffin-Lim": classic}


def vocoders(original: np.ndarray, copies: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """What each way back from the mel spectrogram keeps: mel distance to the original (nat) and DNSMOS."""
    lines = [("original", 0.0, dnsmos.overall(original))]
    for name, wave in copies.items():
        lines.append((name, mel_distance(original, wave), dnsmos.overall(wave)))
    columns = ["sound", "mel distance (nat, lower is better)", "DNSMOS (proxy, higher is better)"]
    return pd.DataFrame(lines, columns=columns).set_index("sound")


def true_words(manifest: str, utterance: str) -> list[tuple[str, float, float]]:
    """Word, start and end (s) of a true recording; empty where the manifest has no word times.

    Raises ManifestError when the file of word times is damaged.
    """
    return manifests.word_times(manifest).get(utterance, [])


def mel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two log-mels (nat) over the frames that both have; waves at 24 kHz.

    Raises AudioError when one of them is empty.
    """
    length = min(len(one), len(other))
    if not length:
        raise AudioError("a mel distance needs two sounds")
    mels = [
        audio.mel(torch.from_numpy(np.ascontiguousarray(w[:length], dtype=np.float32))) for w in (one, other)
    ]
    return float((mels[0] - mels[1]).abs().mean())

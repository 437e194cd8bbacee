"""Voices from outside: a folder of anyone's recordings as the clips of a study, said with the test set's sentences."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from pvlib import audio, frontend, paths
from pvlib.config import Profile, get_profile
from pvlib.study import manifest as manifests
from pvlib.study.manifest import COLUMNS, Manifest

NAME = "recordings"
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
TEXTS = 12  # long sentences that each recording says
FOLDER = paths.BUILD / NAME


class RecordingsError(audio.AudioError):
    """A folder without a usable recording; the message names it."""


class RecordingsWarning(UserWarning):
    """A recording that is left out; the message names it and says why."""


def manifest(folder: Path, profile: Profile | str = "mini", texts: int = TEXTS) -> Manifest:
    """Each recording of a folder with the first `texts` long sentences of the study's order.

    The clip is the second that begins where somebody begins to speak (Silero); the recording itself is the speaker.
    There are no true recordings of the sentences and no enrolment, so controls and similarities to other speech are
    left out. The clips are kept in build/recordings. A file that is no sound, that `audio.check` refuses (silence,
    NaN), or that has no second from there on is left out with a RecordingsWarning.
    Raises RecordingsError on a folder without sound files, or where all are left out, and where fewer long sentences
    are there than asked for; AudioError where a clip cannot be kept.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if not folder.is_dir():
        raise RecordingsError(f"{folder} is no folder; name one with recordings ({', '.join(SUFFIXES)})")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise RecordingsError(f"{folder} holds no recordings ({', '.join(SUFFIXES)})")
    said = manifests.read(profile.manifest).sample(None, profile.seed)
    said = said[said["bucket"] == "long"]
    if not 1 <= texts <= len(said):
        raise RecordingsError(f"{texts} sentences for each recording; there are 1 to {len(said)} long ones")
    lines, reason = [], ""
    for file in files:
        try:
            wave = first_second(audio.load(file), str(file), profile)
        except audio.AudioError as error:
            reason = str(error)
            warnings.warn(f"left out: {reason}", RecordingsWarning, stacklevel=2)
            continue
        clip = f"{file.stem}-{hashlib.sha256(wave.tobytes()).hexdigest()[:12]}.flac"
        if not (FOLDER / clip).is_file():
            audio.write(FOLDER / clip, wave)
        for row in said.head(texts).itertuples():
            name = f"{file.name}-{row.utterance}"
            lines.append((name, file.name, row.text, row.words, row.bucket, "", clip, row.seed))
    if not lines:
        raise RecordingsError(f"{folder}: none of {len(files)} recordings can be used; the last: {reason}")
    return Manifest(NAME, pd.DataFrame(lines, columns=list(COLUMNS)), FOLDER)


def first_second(wave: np.ndarray, name: str, profile: Profile) -> np.ndarray:
    """The second (24000,) that begins with the first speech of a recording (s,) at 24 kHz. Raises AudioError."""
    spans = frontend.speech_spans(wave, profile.inference)
    if not spans:
        raise audio.AudioError(f"{name}: nobody speaks; give a recording of a voice")
    start = spans[0][0]
    if len(wave) - start < audio.CLIP_SAMPLES:
        seconds = (len(wave) - start) / audio.SAMPLE_RATE
        raise audio.AudioError(
            f"{name}: {seconds:.2f} s from the first word on, less than {audio.CLIP_SECONDS:g} s; give a longer "
            "recording"
        )
    clip = wave[start : start + audio.CLIP_SAMPLES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", audio.AudioWarning)  # of the whole recording they were given
        audio.check(clip, audio.SAMPLE_RATE, name)
    return clip

"""The table of bad inputs: each gets a specific error that names the input and the remedy, or a stated treatment.

Nothing is half-written. Weights on disk and their damages have more cases in test_hub.py.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from babble import babble

from pvlib import audio, frontend, hub, paths, recognizer
from pvlib.audio import SAMPLE_RATE, AudioError, AudioWarning
from pvlib.config import MINI
from pvlib.study import rows
from pvlib.text import MAX_TEXT_CHARS, TextError, TextWarning, normalise

RATE = SAMPLE_RATE
VOICE = babble(1.0)


def wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bomb(path: Path) -> Path:
    """Half a minute of silence in eight channels at 655 kHz: a small file of 157 million samples."""
    with soundfile.SoundFile(path, "w", 655_350, 8, format="FLAC") as file:
        for _ in range(30):
            file.write(np.zeros((655_350, 8), dtype=np.int16))
    return path


def hour(path: Path) -> Path:
    with soundfile.SoundFile(path, "w", 8000, 1, subtype="PCM_U8") as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8000, dtype=np.float32))
    return path


def with_nan(wave: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(wave)) == 100, np.nan, wave).astype(np.float32)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


# A recording that is refused: what lies at the path, what the message says besides the path, and the remedy in it.
BAD_RECORDINGS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda p: p, "does not exist", "give a sound file"),
    "a folder": (folder, "is a folder", "give a sound file"),
    "empty file": (lambda p: raw(p, b""), "empty file", "give a sound file"),
    "not audio": (lambda p: raw(p, b"%PDF-1.7 " * 999), "cannot be decoded", "convert it to wav"),
    "header only": (lambda p: wav(p, VOICE[:0]), "holds no samples", "give a sound file"),
    "cut header": (
        lambda p: raw(p, wav(p, VOICE).read_bytes()[:20]),
        "cannot be decoded",
        "convert it to wav",
    ),
    "silence": (lambda p: wav(p, 0 * VOICE), "silent or constant", "someone speaks"),
    "constant": (lambda p: wav(p, 0 * VOICE + 0.5), "silent or constant", "someone speaks"),
    "0.1 s": (lambda p: wav(p, VOICE[: RATE // 10]), "lasts 0.10 s", "at least 0.3 s of a voice"),
    "NaN": (lambda p: wav(p, with_nan(VOICE)), "1 of 24000 samples are NaN", "export the recording again"),
    "infinite": (
        lambda p: wav(p, np.where(abs(VOICE) > 0.2, np.inf, VOICE)),
        "infinite",
        "export the recording again",
    ),
    "an hour": (hour, "lasts 60.0 minutes", "cut out one second"),
    "157 million samples in a small file": (bomb, "more than the 120,000,000", "convert it to mono"),
    "a rate of 900 kHz": (lambda p: wav(p, VOICE, 900_000), "900000 Hz is not plausible", "the rate it was"),
    "channels that cancel": (
        lambda p: wav(p, np.stack([VOICE, -VOICE], 1)),
        "silent or constant",
        "someone speaks",
    ),
}


def test_samples_without_a_header_are_refused(tmp_path):
    path = raw(tmp_path / "voice.raw", VOICE.tobytes())
    with pytest.raises(AudioError, match=r"voice\.raw cannot be decoded as sound .*convert it to wav"):
        audio.load(path)


@pytest.mark.parametrize("case", BAD_RECORDINGS)
def test_bad_recordings_are_refused(tmp_path, case):
    make, complaint, remedy = BAD_RECORDINGS[case]
    path = tmp_path / "input.wav"
    make(path)
    with pytest.raises(AudioError) as caught:
        audio.load(path)
    message = str(caught.value)
    assert str(path) in message and complaint in message and remedy in message and "\n" not in message


# The same for samples in memory.
BAD_SAMPLES: dict[str, tuple[object, int, str]] = {
    "none": (np.zeros(0), RATE, "holds no samples"),
    "silence": (np.zeros(RATE), RATE, "silent or constant"),
    "constant": (np.full(RATE, 7, dtype=np.int16), RATE, "silent or constant"),
    "0.1 s": (VOICE[: RATE // 10], RATE, "lasts 0.10 s"),
    "NaN": (with_nan(VOICE), RATE, "NaN"),
    "an hour": (np.zeros(3600 * 8000, dtype=np.uint8), 8000, "60.0 minutes"),
    "complex": (VOICE.astype(np.complex64), RATE, "complex64 samples"),
    "text": (np.array(["a", "b"]), RATE, "are not sound"),
    "three axes": (VOICE[None, None], RATE, "are not sound"),
    "a picture": (np.random.default_rng(0).random((9000, 9000), dtype=np.float32), RATE, "is not sound"),
    "rate 0": (VOICE, 0, "0 Hz is not plausible"),
    "rate in kHz": (VOICE, 24, "24 Hz is not plausible"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_bad_samples_are_refused(case):
    samples, rate, complaint = BAD_SAMPLES[case]
    with pytest.raises(AudioError, match=complaint) as caught:
        audio.check(samples, rate, "the take")
    assert str(caught.value).startswith("the take")


# Recordings that are treated: samples, rate, the warning (None: none), and the speech they must equal nearly.
TREATED: dict[str, tuple[np.ndarray, int, str | None]] = {
    "8 kHz": (audio.resample(VOICE, RATE, 8000), 8000, "recorded at 8000 Hz"),
    "48 kHz": (audio.resample(VOICE, RATE, 48_000), 48_000, None),
    "stereo": (np.stack([VOICE, VOICE], axis=1), RATE, None),
    "one ear": (np.stack([2 * VOICE, 0 * VOICE], axis=1), RATE, None),
    "16 bit": ((VOICE * 32_767).astype(np.int16), RATE, None),
    "clipped": (np.clip(20 * VOICE, -1, 1), RATE, "clipped"),
    "an offset": (VOICE + np.float32(0.2), RATE, None),
}


@pytest.mark.parametrize("case", TREATED)
def test_odd_recordings_are_treated_as_documented(case, recwarn):
    samples, rate, warning = TREATED[case]
    wave = audio.check(samples, rate, "the take")
    told = [str(w.message) for w in recwarn if issubclass(w.category, AudioWarning)]
    assert len(told) == (warning is not None) and all(warning in t for t in told)
    assert wave.dtype == np.float32 and wave.shape == (RATE,)
    assert np.corrcoef(wave, VOICE)[0, 1] > (0.6 if case == "clipped" else 0.97)


@pytest.mark.parametrize("case", ["noise", "a tone"])
def test_a_recording_in_which_nobody_speaks_is_refused(case):
    t = np.arange(RATE) / RATE
    wave = np.random.default_rng(0).standard_normal(RATE) if case == "noise" else np.sin(2 * np.pi * 440 * t)
    with pytest.raises(AudioError, match=r"no speech found in a\.wav; give a second in which someone speaks"):
        frontend.prepare((0.1 * wave).astype(np.float32), MINI.inference, "a.wav")


BAD_TEXTS: dict[str, tuple[object, str]] = {
    "empty": ("", "is empty; give the words"),
    "blank": (" \n\t ", "is empty; give the words"),
    "only punctuation": ("... !? --", "no letter that the model reads; give words"),
    "emoji": ("😀🎉👩‍👩‍👧", "no letter that the model reads; give words"),
    "Cyrillic": ("Привет, мир", "no letter that the model reads; give words"),
    "Chinese": ("你好，世界", "no letter that the model reads; give words"),
    "Arabic": ("مرحبا", "no letter that the model reads; give words"),
    "control characters": ("\x00\x07\u200b", "no letter that the model reads; give words"),
    "over 10,000 characters": (
        "a" * (MAX_TEXT_CHARS + 1),
        "10,001 characters; at most 10,000 are taken: split it",
    ),
    "not a string": (None, "is NoneType, not a string"),
    "bytes": (b"hello", "is bytes, not a string"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_bad_texts_are_refused(case):
    given, complaint = BAD_TEXTS[case]
    with pytest.raises(TextError) as caught:
        normalise(given, MINI.backbone.vocabulary)
    message = str(caught.value)
    assert (
        message.startswith("the text") and complaint in message and len(message) < 200 and "\n" not in message
    )


def test_ten_thousand_characters_are_taken():
    assert normalise("word " * 2000, MINI.backbone.vocabulary) == ("word " * 2000).strip()


def test_a_text_partly_in_another_script_is_spoken_in_part_and_says_so():
    with pytest.warns(TextWarning, match="'hello 你好 👋': not spoken: 你 好 👋"):
        assert normalise("hello 你好 👋", MINI.backbone.vocabulary) == "hello"


# Weights: what is done to a good file, and the complaint.
BAD_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "is missing"),
    "without a card": (lambda p: p.with_suffix(".json").unlink(), "is missing"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:1000]), "has 1000 bytes instead of"),
    "empty": (lambda p: p.write_bytes(b""), "has 0 bytes instead of"),
    "altered": (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"?"), "does not match the SHA-256"),
    "a damaged card": (lambda p: p.with_suffix(".json").write_text("{"), "is not a card of weights"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights_are_refused(tmp_path, monkeypatch, case):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    profile = replace(MINI, recognizer=replace(MINI.recognizer, channels=8, hidden=8))
    damage, complaint = BAD_WEIGHTS[case]
    state = recognizer.build(profile.recognizer).state_dict()
    damage(hub.save_weights("recognizer", profile, state, {}))
    with pytest.raises(hub.WeightsError) as caught:
        hub.load_recognizer(profile)
    message = str(caught.value)
    assert str(tmp_path / "mini" / "recognizer") in message and complaint in message
    assert "git checkout" in message and "pvlib train recognizer" in message and "\n" not in message


# Outputs: where to write, relative to a folder that holds a file `taken`.
BAD_OUTPUTS = {
    "below a file": ("taken/out.wav", "check that the folder is writable"),
    "a folder": ("folder.wav", "check that the folder is writable"),
    "no ending": ("out", "use .wav, .flac or .ogg"),
    "another ending": ("out.txt", "use .wav, .flac or .ogg"),
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_outputs_that_cannot_be_written(tmp_path, case):
    name, remedy = BAD_OUTPUTS[case]
    raw(tmp_path / "taken", b"")
    (tmp_path / "folder.wav").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AudioError) as caught:
        audio.write(tmp_path / name, VOICE)
    assert str(tmp_path / name) in str(caught.value) and remedy in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_full_disk_leaves_the_old_output(tmp_path, ending):
    """The disk is full after 5,000 bytes, in the middle of the file."""
    path = audio.write(tmp_path / f"out.{ending}", VOICE[:2400])
    before = path.read_bytes()
    noise = np.random.default_rng(0).uniform(-1, 1, 10 * RATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(AudioError, match="cannot write .*space"):
            audio.write(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_samples_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(AudioError, match=r"out\.wav: the samples to write are not finite"):
        audio.write(tmp_path / "out.wav", with_nan(VOICE))
    assert not list(tmp_path.iterdir())


def test_an_unwritable_checkpoint_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", raw(tmp_path / "taken", b""))
    with pytest.raises(hub.WeightsError, match="cannot write .*check that the folder is writable"):
        hub.save_weights("recognizer", MINI, {"a": torch.ones(1)}, {})


# Whole files


@pytest.mark.parametrize(
    "broken", [OSError("no space"), KeyboardInterrupt()], ids=["full disk", "interrupted"]
)
def test_a_file_appears_whole_or_not_at_all(tmp_path, broken):
    path = tmp_path / "new" / "a.csv"
    with paths.appearing(path) as partial:
        partial.write_text("first")
        assert not list(path.parent.glob("*.csv"))  # nobody takes it for a table yet
    assert path.read_text() == "first"
    with pytest.raises(type(broken)), paths.appearing(path) as partial:
        partial.write_text("sec")
        raise broken
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_an_output_may_have_a_name_as_long_as_the_disk_takes(tmp_path):
    path = tmp_path / ("a" * 251 + ".csv")
    assert rows.write_text(path, "a,b\n").read_text() == "a,b\n"
    with pytest.raises(rows.RowsError, match="cannot write .*writable and has space"):
        rows.write_text(tmp_path / ("a" * 252 + ".csv"), "a,b\n")
    assert list(tmp_path.iterdir()) == [path]


def test_weights_and_their_card_appear_with_nothing_beside_them(tmp_path, monkeypatch):
    """The weights first: where they cannot take their place, the card of the old ones stays."""
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    path = hub.save_weights("recognizer", MINI, {"a": torch.ones(1)}, {"steps": 1})
    card = path.with_suffix(".json")
    before = card.read_text()
    assert sorted(path.parent.iterdir()) == [card, path]
    path.unlink()
    path.mkdir()
    with pytest.raises(hub.WeightsError, match="cannot write"):
        hub.save_weights("recognizer", MINI, {"a": torch.zeros(1)}, {"steps": 2})
    assert card.read_text() == before and sorted(path.parent.iterdir()) == [card, path]

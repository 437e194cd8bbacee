"""One profile's models, read once, and what the page asks of them. One request computes at a time."""

from __future__ import annotations

import base64
import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from pvlib import __version__, audio, models, paths, persona, wishes
from pvlib.audio import AudioError, AudioWarning
from pvlib.config import get_profile
from pvlib.dashboard import graph
from pvlib.metrics.wer import EmptyReference, wer
from pvlib.text import TextWarning
from pvlib.voice import AdapterWarning, Job, PersonaVoice, Reference, Speech

DEMO = paths.SAMPLES / "demo.wav"
WAIT_SECONDS = 120.0  # for the request before
PIPELINES = 2  # kept: the usual one, and the last that other settings asked for
LOUD = 3.0  # natural logarithm of the mel magnitude that is drawn brightest
ADAPTED = ("film_gate", "env_weight")  # settings that ask for the adapters


class Busy(RuntimeError):
    """Another request has computed for so long that this one gave up; nothing was done."""


@dataclass(frozen=True)
class Order:
    """One clone that is asked for.

    recording: a sound file; name: what messages call it. chat, traits, emotion, strength: see `wishes.conditions`.
    settings: parameters of the inference table. Any wish, and any of `ADAPTED`, asks for the adapters.
    """

    text: str
    recording: Path = DEMO
    name: str = "the demo sample"
    seed: int = 0
    reference_text: str | None = None
    chat: str | Sequence[str] | None = None
    traits: Mapping[str, float] | None = None
    emotion: str | None = None
    strength: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Take:
    """One clone that was made: (s,) samples at 24 kHz, and what is told of it, ready for JSON."""

    wave: np.ndarray
    facts: dict[str, Any]


class Studio:
    """The models of a profile behind one lock."""

    def __init__(self, profile_name: str = "mini", **settings: Any) -> None:
        """settings: parameters of the inference table for all requests. Raises ConfigError."""
        self.profile = get_profile(profile_name)
        self.settings = settings
        self._working = threading.Lock()
        self._pipelines: dict[str, PersonaVoice] = {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._working.acquire(timeout=WAIT_SECONDS):
            raise Busy(f"another request has been computing for {WAIT_SECONDS:.0f} s; try again later")
        try:
            yield
        finally:
            self._working.release()

    def _voice(self, **settings: Any) -> PersonaVoice:
        """The pipeline under these settings, those of the studio behind them. Raises ConfigError, WeightsError."""
        wanted = self.settings | settings
        key = json.dumps(wanted, sort_keys=True, default=str)
        if key not in self._pipelines:
            if len(self._pipelines) >= PIPELINES:  # the first stays: it is the usual one
                del self._pipelines[list(self._pipelines)[1]]
            self._pipelines[key] = PersonaVoice.load(self.profile.name, **wanted)
        return self._pipelines[key]

    def load(self) -> None:
        """Read the models, so that the first request need not wait. Raises ConfigError, WeightsError."""
        with self._alone():
            self._voice()

    # What the page asks

    def health(self) -> dict[str, Any]:
        """Version, profile, device, whether the models are read, and the state of each weight file.

        status: "ok", or "not usable" where a network that every clone needs is missing or damaged.
        """
        states = models.states(self.profile)
        needed = [state["state"] for state in states.values()]
        good = all(state in ("present", "not trained") for state in needed)
        return {
            "status": "ok" if good else "not usable",
            "version": __version__,
            "profile": self.profile.name,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "loaded": bool(self._pipelines),
            "busy": self._working.locked(),
            "weights": states,
        }

    def architecture(self) -> dict[str, Any]:
        """`graph.architecture` of the usual pipeline, with the adapters where the profile has them."""
        adapted = models.states(self.profile).get("adapters", {}).get("state") == "present"
        with self._alone():
            return graph.architecture(self._voice(use_adapters=True) if adapted else self._voice())

    def clone(self, order: Order) -> Take:
        """Make one clone and listen to it with instruments: the recogniser's words, the speaker encoder's cosine.

        Raises AudioError, TextError, PersonaError, ConfigError, WeightsError, SynthesisError and Busy.
        """
        wish = wishes.conditions(
            chat=order.chat, traits=order.traits, emotion=order.emotion, strength=order.strength
        )
        settings = dict(order.settings)
        if wish or any(name in settings for name in ADAPTED):
            settings.setdefault("use_adapters", True)
        recording = _named(order, lambda: audio.load(order.recording))
        with self._alone(), _told() as told:
            voice = self._voice(**settings)
            reference = voice.reference(recording, text=order.reference_text, name=order.name)
            job = Job(reference, order.text, order.seed, **wish)
            speech = voice.synthesise([job])[0]
            facts = _facts(voice, job, speech)
            seconds = len(recording) / audio.SAMPLE_RATE
            used = len(reference.wave) / audio.SAMPLE_RATE
            active = graph.conditions(voice, speech, job.asks, seconds, used, reference.gain)
        return Take(speech.wave, facts | {"conditions": active, "warnings": told})

    def read(self, chat: str | Sequence[str], recalls: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Big Five and embeddings of one person's messages. Raises PersonaError, WeightsError, Busy."""
        persona.check_recalls(recalls or {})
        with self._alone():
            found = wishes.reader()(chat, recalls)
        return {
            "traits": found.traits,
            "sentences": found.sentences,
            "lexicon": found.lexicon,
            "words": found.words,
            "read_share": found.read_share,
            "persona_emb": found.persona_emb.tolist(),
            "text_style_emb": found.text_style_emb.tolist(),
            "note": "Traits that these messages show; nobody's personality was measured.",
        }

    def calibrate(self, traits: Mapping[str, float], feedback: str) -> dict[str, Any]:
        """Traits after feedback in plain words, and what it changed. Raises PersonaError."""
        after = persona.calibrate(traits, feedback)
        asked = persona.read_feedback(feedback)
        return {"traits": after, "asked": asked, "persona_emb": persona.persona_embedding(after).tolist()}

    def demo(self) -> dict[str, Any]:
        """The bundled clip, its picture, and the texts that the study says with it."""
        wave = audio.load(DEMO)
        texts = json.loads(DEMO.with_suffix(".json").read_text(encoding="utf-8"))["texts"]
        return {
            "seconds": len(wave) / audio.SAMPLE_RATE,
            "sample_rate": audio.SAMPLE_RATE,
            "texts": texts,
            "mel": picture(wave),
            "audio": encoded(wave),
        }


def _named(order: Order, load: Callable[[], np.ndarray]) -> np.ndarray:
    """What `load` reads; its errors call the recording by the name that the sender knows."""
    try:
        return load()
    except AudioError as error:
        raise AudioError(str(error).replace(str(order.recording), order.name)) from error


@contextmanager
def _told() -> Iterator[list[str]]:
    """The warnings of our own that the block gives, in words."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
        own = (AudioWarning, TextWarning, AdapterWarning)
        found += [str(warning.message) for warning in caught if issubclass(warning.category, own)]


def _facts(voice: PersonaVoice, job: Job, speech: Speech) -> dict[str, Any]:
    """What is told of one clone. `secs` is None of speech that the speaker encoder cannot hear, `wer` of a text that is
    no word to the Whisper normaliser, such as "hmm"."""
    seconds = len(speech.wave) / audio.SAMPLE_RATE
    heard = voice.recognizer.transcribe([speech.wave])[0]
    reference: Reference = job.reference
    return {
        "seconds": seconds,
        "sample_rate": audio.SAMPLE_RATE,
        "synthesis_seconds": speech.seconds,
        "rtf": speech.seconds / seconds,
        "seed": job.seed,
        "profile": voice.profile.name,
        "transcript": reference.text.strip(),
        "heard": heard,
        "wer": _errors(job.text, heard),
        "secs": _similarity(voice, reference, speech),
        "chunks": [
            {"text": c.text.strip(), "frames": c.frames, "cfg_strength": c.cfg_strength, "film": c.film}
            for c in speech.chunks
        ],
        "persona": None if job.persona is None else dict(job.persona),
        "reference_mel": picture(reference.wave),
        "mel": picture(speech.wave),
    }


def _errors(text: str, heard: str) -> float | None:
    try:
        return wer(text, heard)
    except EmptyReference:
        return None


def _similarity(voice: PersonaVoice, reference: Reference, speech: Speech) -> float | None:
    try:
        with torch.inference_mode():
            own = voice.speaker_encoder.embed([speech.wave])[0].cpu().float()
    except AudioError:
        return None
    return float(own @ reference.embedding)


def picture(wave: np.ndarray) -> dict[str, Any]:
    """A log-mel for a canvas: bands x frames bytes in base64, band 0 first, 0 the floor of a mel and 255 `LOUD`."""
    mel = audio.mel(torch.from_numpy(np.ascontiguousarray(wave)))[0].numpy()
    floor = float(np.log(audio.MEL_FLOOR))
    levels = np.clip(255 * (mel - floor) / (LOUD - floor), 0, 255).astype(np.uint8)
    return {
        "bands": levels.shape[0],
        "frames": levels.shape[1],
        "seconds": len(wave) / audio.SAMPLE_RATE,
        "levels": base64.b64encode(levels.tobytes()).decode(),
    }


def wav(wave: np.ndarray) -> bytes:
    """Samples at 24 kHz as a 16-bit wav file, scaled down to full scale where they are beyond it."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, wave / max(1.0, float(np.abs(wave).max(initial=0.0))), audio.SAMPLE_RATE, format="WAV"
    )
    return buffer.getvalue()


def encoded(wave: np.ndarray) -> str:
    """`wav` in base64."""
    return base64.b64encode(wav(wave)).decode()

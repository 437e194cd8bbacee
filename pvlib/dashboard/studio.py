"""One profile's models, read once, and what the page asks of them. One request computes at a time."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pvlib import __version__, audio, hub, models, paths, persona, wishes
from pvlib import voice as voices
from pvlib.audio import AudioError, AudioWarning
from pvlib.config import ConfigError, Inference, Profile, get_profile
from pvlib.dashboard import graph
from pvlib.hub import WeightsError
from pvlib.metrics.wer import EmptyReference, wer
from pvlib.text import TextError, TextWarning
from pvlib.voice import AdapterWarning, Job, PersonaVoice, Reference, Speech

DEMO = paths.SAMPLES / "demo.wav"
WAIT_SECONDS = 120.0  # for the requests before
MOST_WAITING = 4  # requests; one more is refused at once
MOST = {"steps": 128, "best_of_n": 8}  # of what makes a clone take long
MOST_CHARS = 2_000  # of a text: some two minutes of speech
LOUD = 3.0  # natural logarithm of the mel magnitude that is drawn brightest
ADAPTED = ("film_gate", "env_weight")  # settings that ask for the adapters


class Busy(RuntimeError):
    """Too many requests are before this one, or one has computed for long; nothing was done."""


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
    strength: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Take:
    """One clone that was made: (s,) samples at 24 kHz, and what is told of it, ready for JSON."""

    wave: np.ndarray
    facts: dict[str, Any]


class Studio:
    """The models of a profile behind one lock; pipelines of all settings share them."""

    def __init__(self, profile_name: str = "mini", **settings: Any) -> None:
        """settings: parameters of the inference table for all requests. Raises ConfigError."""
        self.profile = get_profile(profile_name)
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._working = threading.Lock()
        self._counting = threading.Lock()
        self._asking = 0
        self._networks: dict[str, nn.Module] = {}
        self._resolved({})

    @property
    def busy(self) -> bool:
        """Whether a request is being computed."""
        return self._working.locked()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The lock, waited for. Raises Busy where too many wait, or it is not had in time."""
        with self._counting:
            if self._asking > MOST_WAITING:
                raise Busy(f"{MOST_WAITING} requests are waiting already; try again later")
            self._asking += 1
        try:
            if not self._working.acquire(timeout=WAIT_SECONDS):
                raise Busy(f"another request has been computing for {WAIT_SECONDS:.0f} s; try again later")
            try:
                yield
            finally:
                self._working.release()
        finally:
            with self._counting:
                self._asking -= 1

    def _resolved(self, settings: Mapping[str, Any]) -> Profile:
        """The profile under these settings, those of the studio behind them. Raises ConfigError."""
        wanted = self.settings | dict(settings)
        known = [own.name for own in fields(Inference)]
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(f"no parameter {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
        # as `PersonaVoice.load` reads a `cfg_strength` that is given alone
        return get_profile(self.profile.name, **voices.with_laag_base(wanted))

    def _network(self, name: str, load: Callable[[], nn.Module]) -> Any:
        if name not in self._networks:
            self._networks[name] = load()
        return self._networks[name]

    def _voice(self, settings: Mapping[str, Any]) -> PersonaVoice:
        """The pipeline under these settings. Networks are read when one first needs them. Raises ConfigError,
        WeightsError."""
        profile, device = self._resolved(settings), self.device
        name, wanted = hub.backbone_name(profile), profile.inference
        backbone = self._network(name, lambda: hub.load_backbone(profile, device))
        others = {
            part: self._network(part, lambda load=load: load(profile, device))
            for part, load in (
                ("vocoder", hub.load_vocoder),
                ("recognizer", hub.load_recognizer),
                ("speaker_encoder", hub.load_speaker_encoder),
            )
        }
        if wanted.use_adapters and not wanted.padded_text:  # which belong to the first backbone
            own = self._network(hub.ADAPTERS, lambda: hub.load_adapters(profile, backbone))
            others["adapters"] = own
        if wanted.duration_predictor:
            load = hub.load_duration_predictor
            others["durations"] = self._network(hub.DURATION_PREDICTOR, lambda: load(profile, device))
        return PersonaVoice(profile, backbone, **others)

    def load(self) -> None:
        """Read the models, so that the first request need not wait. Raises ConfigError, WeightsError."""
        with self._alone():
            self._voice({})

    # What the page asks

    @cached_property
    def weights(self) -> dict[str, dict[str, str]]:
        """The state of each weight file, as it was when first asked for: `models.states`."""
        return models.states(self.profile)

    def health(self) -> dict[str, Any]:
        """Version, profile, device, whether the models are read, and the state of each weight file.

        status: "ok", or "not usable" where a network that every clone needs is missing or damaged.
        """
        good = all(self.weights[name]["state"] == "present" for name in hub.NAMES)
        return {
            "status": "ok" if good else "not usable",
            "version": __version__,
            "profile": self.profile.name,
            "device": self.device.type,
            "loaded": bool(self._networks),
            "busy": self.busy,
            "weights": self.weights,
        }

    def architecture(self) -> dict[str, Any]:
        """`graph.architecture` of the usual pipeline, with the adapters where they are there and admitted."""
        adapted = self.weights.get(hub.ADAPTERS, {}).get("state") == "present"
        with self._alone():
            try:
                voice = self._voice({"use_adapters": True} if adapted else {})
            except (ConfigError, WeightsError):  # adapters of another backbone too
                voice = self._voice({})
            return graph.architecture(voice)

    def clone(self, order: Order) -> Take:
        """Make one clone and listen to it with instruments: the recogniser's words, the speaker encoder's cosine.

        Raises AudioError, TextError, PersonaError, ConfigError, WeightsError, SynthesisError and Busy.
        """
        settings = _within_bounds(order)
        self._resolved(settings)
        with self._alone(), _told(order) as told:
            wish = wishes.conditions(
                self.profile,
                chat=order.chat,
                traits=order.traits,
                emotion=order.emotion,
                strength=order.strength,
            )
            if wish or any(name in settings for name in ADAPTED):
                settings.setdefault("use_adapters", True)
            voice = self._voice(settings)
            # a bad text is told before the recording is worked on
            voices.prepare_text(order.text, voice.backbone)
            recording = _decoded(order)
            reference = voice.reference(recording, text=order.reference_text, name=order.name)
            job = Job(reference, order.text, order.seed, **wish)
            speech = voice.synthesise([job])[0]
            facts = _facts(voice, job, speech) | {
                "recording": order.name,
                "conditions": graph.conditions(voice, job, speech, len(recording) / audio.SAMPLE_RATE),
                "took_part": graph.took_part(
                    voice, job, speech, heard=order.reference_text is None, chat=order.chat is not None
                ),
            }
        return Take(speech.wave, facts | {"warnings": told})

    def read(self, chat: str | Sequence[str], recalls: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Big Five and embeddings of one person's messages.

        Answers fields of `PersonaProfile`: traits, sentences, lexicon (trait -> -1..1), words, read_share, persona_emb
        and text_style_emb (64 numbers each), and a note. Raises PersonaError, WeightsError, Busy.
        """
        persona.check_recalls(recalls or {})
        persona.check_chat(chat)
        with self._alone():
            found = wishes.reader(self.profile, chat)(chat, recalls)
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
        """Traits after feedback in plain words: traits, asked (trait -> change, before -1..1 holds it), persona_emb.

        Raises PersonaError.
        """
        after = persona.calibrate(traits, feedback)
        asked = persona.read_feedback(feedback)
        return {"traits": after, "asked": asked, "persona_emb": persona.persona_embedding(after).tolist()}

    def demo(self) -> dict[str, Any]:
        """The bundled clip: seconds, sample_rate, mel (`picture`), audio (`encoded`); and texts, those of the study."""
        wave = audio.load(DEMO)
        texts = json.loads(DEMO.with_suffix(".json").read_text(encoding="utf-8"))["texts"]
        return {
            "seconds": len(wave) / audio.SAMPLE_RATE,
            "sample_rate": audio.SAMPLE_RATE,
            "texts": texts,
            "mel": picture(wave),
            "audio": encoded(wave),
        }


def _within_bounds(order: Order) -> dict[str, Any]:
    """The settings of an order. Raises TextError and ConfigError where it would compute for very long."""
    if len(order.text) > MOST_CHARS:
        raise TextError(
            f"the text has {len(order.text):,} characters, more than the {MOST_CHARS:,} that are said here at once; "
            "`pvlib clone` takes more"
        )
    for name, most in MOST.items():
        value = order.settings.get(name)
        if isinstance(value, int | float) and value > most:
            raise ConfigError(f"{name} = {value!r} is more than the {most} that are computed here")
    return dict(order.settings)


def _decoded(order: Order) -> np.ndarray:
    """(s,) samples at 24 kHz. Errors call the recording by the name that its sender knows."""
    try:
        return audio.load(order.recording)
    except AudioError as error:
        raise AudioError(str(error).replace(str(order.recording), order.name)) from error


@contextmanager
def _told(order: Order) -> Iterator[list[str]]:
    """The warnings of our own that the block gives, in words; for one thread at a time."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
        own = (AudioWarning, TextWarning, AdapterWarning)
        told = [str(warning.message) for warning in caught if issubclass(warning.category, own)]
        found += [words.replace(str(order.recording), order.name) for words in told]


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
        "reference_mel": picture(reference.wave / max(1.0, reference.gain)),  # at the level of the clone
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
    """Samples at 24 kHz as a 16-bit wav file. Raises AudioError where there is no space to write it."""
    with tempfile.TemporaryDirectory(prefix="pvlib-") as folder:
        return audio.write(Path(folder) / "speech.wav", wave).read_bytes()


def encoded(wave: np.ndarray) -> str:
    """`wav` in base64."""
    return base64.b64encode(wav(wave)).decode()

"""PersonaVoice, the one pipeline: reference and text in, waveform out.

file or array -> `frontend` -> Reference -> `laag.plan` -> chunks -> `backbone.sample`, all chunks of all jobs in
batches of like length -> vocoder -> `laag.splice` -> Speech.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jiwer
import numpy as np
import torch
from torch import Tensor

from pvlib import audio, ceag, frontend, hub, laag, persona, recognizer, retired
from pvlib.adapters import Conditions
from pvlib.audio import HOP_LENGTH, SAMPLE_RATE, AudioError, AudioWarning
from pvlib.backbone import Item
from pvlib.config import ConfigError, Inference, Profile, get_profile
from pvlib.text import MAX_TEXT_CHARS, TextError, TextWarning, normalise

if TYPE_CHECKING:
    from pvlib.adapters import Adapters
    from pvlib.backbone import Backbone
    from pvlib.durations import DurationPredictor
    from pvlib.recognizer import CTCRecognizer, WhisperRecognizer
    from pvlib.speaker import SpeakerEncoder
    from pvlib.vocoder import Vocoder

__all__ = [
    "MAX_TEXT_CHARS",
    "AdapterWarning",
    "Job",
    "PersonaVoice",
    "Reference",
    "Speech",
    "SynthesisError",
    "TextError",
    "TextWarning",
    "prepare_text",
]

MAX_REFERENCE_SECONDS = 12  # of a longer recording this much is used, as the official front end does
MAX_BATCH = 16  # chunks sampled together
MAX_BATCH_FRAMES = 24_000  # padded frames sampled together: what keeps memory under a gigabyte
# of a row, on a CPU: there a batch is no faster than its rows, and padding costs as much as speech
MAX_PADDING = 0.1
MAX_GUIDED_FRAMES = 4_000  # the same where entropy guidance keeps what it needs for its gradient
SEEDS_PER_JOB = 1000  # chunk k of a job draws its noise from seed * 1000 + k
# sample i of a job has the job's seed + i times this, whatever 32 bits the generator takes of it
SEEDS_APART = 1_000_003
TRAIN_ADAPTERS = "their weights come from `pvlib train adapters`"
LETTERS_PER_SECOND = 50  # of a transcript at most, twice of what a fast talker says
SWITCHED = {  # what a switch that is off leaves without effect
    "use_ceag": ("ceag_variant", "ceag_scale", "ceag_t_start", "ceag_t_end", "ceag_layers"),
    "letter_durations": ("letter_prior_seconds", "letter_pause_seconds", "letter_floor_seconds"),
    "use_silero_vad": (
        "silero_vad_threshold",
        "vad_min_speech_ms",
        "vad_min_silence_ms",
        "vad_trailing_silence_ms",
    ),
    "use_rms_normalize": ("rms_target", "rms_gain_range"),
    "boundary_hardening": ("lead_trim_ms", "lead_trim_peak"),
    "use_laag": ("laag_chunk_max_chars", "laag_chunk_min_chars"),
    "laag_chunking": ("laag_chunk_max_chars", "laag_chunk_min_chars"),
}
MIN_FRAMES = 2  # generated at least: the vocoder needs two

Progress = Callable[[int], None]  # called with the number of jobs just finished


class AdapterWarning(UserWarning):
    """A wish that FiLM's gate keeps from being heard."""


class SynthesisError(RuntimeError):
    """The model returned something that is no sound; the message names the text."""


@dataclass(frozen=True)
class Reference:
    """A voice to clone, ready for the backbone.

    wave: (s,) float32 at 24 kHz, trimmed and normalised; repeated by the retired enhancer. text: its transcript in the
    model's letters, closed off by a full stop and a space. mel: (n, 100) of the wave. embedding: (192,) unit norm, of
    the wave said once. gain: what the level normalisation multiplied the recording by.
    """

    wave: np.ndarray
    text: str
    mel: Tensor
    embedding: Tensor
    gain: float = 1.0


@dataclass(frozen=True)
class Job:
    """One utterance to make.

    The rest needs adapters. persona: the five traits, each -1..1; style: (64,), `PersonaProfile.text_style_emb`;
    emotion: one of `config.EMOTIONS`, at a strength in 0..1. None says nothing.
    """

    reference: Reference
    text: str
    seed: int = 0
    persona: Mapping[str, float] | None = None
    style: Tensor | None = None
    emotion: str | None = None
    strength: float = 1.0

    @property
    def asks(self) -> list[str]:
        """What of this job only adapters can do."""
        return [name for name in ("persona", "style", "emotion") if getattr(self, name) is not None]


@dataclass(frozen=True)
class Speech:
    """One utterance made.

    wave: (s,) float32 at 24 kHz, lead silence trimmed, at the level of the recording if that was below the target.
    mel: (n, 100), the chunks' mels cross-faded, before the trim and at the level of the reference.
    frames: mel frames generated, the overlaps counted twice. seconds: of computing; of a batch, its share by frames.
    """

    wave: np.ndarray
    mel: Tensor
    chunks: list[laag.Chunk]
    frames: int
    seconds: float

    def write(self, path: str | Path) -> Path:
        """Write the wave as .wav, .flac or .ogg. Raises AudioError naming the path."""
        return audio.write(path, self.wave)


def prepare_text(text: str, backbone: Backbone, name: str = "the text") -> str:
    """The text in the letters that this backbone reads. Raises TextError (see `text.normalise`)."""
    return normalise(text, backbone.cfm.vocab_char_map, name)


class PersonaVoice:
    """The pipeline over one profile's models."""

    def __init__(
        self,
        profile: Profile,
        backbone: Backbone,
        vocoder: Vocoder,
        recognizer: CTCRecognizer | WhisperRecognizer,
        speaker_encoder: SpeakerEncoder,
        *,
        adapters: Adapters | None = None,
        durations: DurationPredictor | None = None,
    ) -> None:
        """Raises ConfigError when a parameter asks for what this pipeline does not do."""
        _check_supported(profile.inference)
        conditioning = backbone.settings.text_conditioning
        if profile.inference.letter_durations and conditioning != "durations":
            raise ConfigError(
                f"letter_durations=True: a backbone with {conditioning} text does not know how "
                "long its letters last; set letter_durations=False"
            )
        if profile.inference.use_adapters and adapters is None:
            raise ConfigError("use_adapters=True: no adapters were handed in; " + TRAIN_ADAPTERS)
        if profile.inference.duration_predictor and durations is None:
            raise ConfigError(
                "duration_predictor=True: none was handed in; `pvlib train duration-predictor` makes it"
            )
        self.profile = profile
        self.backbone = backbone
        self.vocoder = vocoder
        self.recognizer = recognizer
        self.speaker_encoder = speaker_encoder
        self.adapters = adapters if profile.inference.use_adapters else None
        self.durations = durations if profile.inference.duration_predictor else None

    @classmethod
    def load(
        cls,
        profile_name: str = "mini",
        device: str | torch.device | None = None,
        **inference_overrides: object,
    ) -> PersonaVoice:
        """Models of a profile with their weights, on the GPU where there is one.

        inference_overrides: parameters of `config.Inference`. `cfg_strength` given alone is also LAAG's base, its
        limits widened to admit it.
        Raises ConfigError on an unknown profile or parameter, WeightsError on missing or damaged weights.
        """
        profile = get_profile(profile_name, **with_laag_base(inference_overrides))
        _check_supported(profile.inference)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        backbone = hub.load_backbone(profile, device)
        wanted = profile.inference
        adapters = hub.load_adapters(profile, backbone) if wanted.use_adapters else None
        durations = hub.load_duration_predictor(profile, device) if wanted.duration_predictor else None
        return cls(
            profile,
            backbone,
            hub.load_vocoder(profile, device),
            hub.load_recognizer(profile, device),
            hub.load_speaker_encoder(profile, device),
            adapters=adapters,
            durations=durations,
        )

    @property
    def inference(self) -> Inference:
        """The profile's table of parameters."""
        return self.profile.inference

    @property
    def device(self) -> torch.device:
        """Where the backbone lives."""
        return next(self.backbone.parameters()).device

    # In: a voice

    def reference(
        self,
        source: str | Path | np.ndarray,
        *,
        rate: int = SAMPLE_RATE,
        text: str | None = None,
        name: str | None = None,
    ) -> Reference:
        """Make a recording ready for cloning.

        source: a sound file, or samples at `rate` (see `audio.check`). One second is the paper's case; up to 12 s
        are used as they are, of more the first 12 s, with an AudioWarning. text: what the recording says; None:
        the recogniser listens, or with `oracle_transcript` a TextError says that the truth is missing.
        Raises AudioError (unusable sound, nobody speaks, a transcript given for more than 12 s) and TextError
        (transcript without letters, or with more than fit into its time; none recognised).
        """
        is_path = isinstance(source, str | Path)
        name = name or (str(source) if is_path else "the reference")
        wave = audio.load(source) if is_path else audio.check(source, rate, name)
        limit = MAX_REFERENCE_SECONDS * SAMPLE_RATE
        if len(wave) > limit:
            seconds = len(wave) / SAMPLE_RATE
            if text is not None:
                raise AudioError(
                    f"{name} lasts {seconds:.1f} s, more than the {MAX_REFERENCE_SECONDS} s that are used, so the "
                    "transcript would not fit; cut the recording, or leave the transcript out"
                )
            warnings.warn(
                f"{name} lasts {seconds:.1f} s; its first {MAX_REFERENCE_SECONDS} s are used",
                AudioWarning,
                stacklevel=2,
            )
            wave = wave[:limit]
        inference, seconds = self.inference, len(wave) / SAMPLE_RATE
        wave, gain = frontend.prepare_with_gain(wave, inference, name)
        if text is None and inference.oracle_transcript:
            raise TextError(
                f"oracle_transcript=True: give the true transcript of {name}, or set oracle_transcript=False"
            )
        if text is None:
            text = self.recognizer.transcribe([wave])[0]
            if not text.strip():
                raise TextError(
                    f"no words were recognised in {name}; give its transcript (--reference-text, text=...) or "
                    "another recording"
                )
        spoken = prepare_text(text, self.backbone, f"the transcript of {name}")
        if len(spoken) > LETTERS_PER_SECOND * seconds:
            raise TextError(
                f"the transcript of {name} has {len(spoken):,} letters for {seconds:.2f} s, more than anyone says; "
                "give the words of this recording alone"
            )
        with torch.inference_mode():
            embedding = self.speaker_encoder.embed([wave])[0].cpu()
        times = retired.repeats(len(wave), inference.enhancer_loop_seconds * SAMPLE_RATE)
        wave = np.tile(wave, times)
        mel = retired.bottleneck(audio.mel(torch.from_numpy(wave))[0].T, inference.ibop_rank)
        text = laag.boundary(spoken, inference.boundary_hardening) * times
        return Reference(wave, text, mel, embedding, gain)

    # Out: speech

    def plan(self, job: Job, generated_frames: int | None = None) -> list[laag.Chunk]:
        """How a job's text will be cut, timed and guided, without sampling it.

        Where FiLM acts, persona and emotion say how fast: a chunk lasts so many times as long as without them. However
        fast, a chunk of padded text lasts as long as its letters need (`CompanionCFM.room`).
        Raises TextError, also on a chunk that is longer than the backbone takes, and PersonaError.
        """
        known = len(job.reference.wave) // HOP_LENGTH
        chunks = laag.plan(
            known,
            job.reference.text,
            prepare_text(job.text, self.backbone),
            self.inference,
            gate_mode=self.inference.film_gate,
            generated_frames=generated_frames,
            seconds_of=self._seconds_of(),
        )
        if self.adapters is not None and generated_frames is None and chunks[0].film and job.asks:
            with torch.no_grad():
                stretch = float(self.adapters.stretch(self._conditions([job])))
            chunks = [replace(c, frames=known + max(1, round((c.frames - known) * stretch))) for c in chunks]
        cfm = self.backbone.cfm
        letters = [len(job.reference.text + c.text) for c in chunks]
        chunks = [replace(c, frames=cfm.room(n, c.frames)) for c, n in zip(chunks, letters, strict=True)]
        for c, n in zip(chunks, letters, strict=True):
            cfm.check_length(n, cfm.tokens(c.frames), repr(c.text.strip()[:40]))
        return chunks

    def _seconds_of(self) -> Callable[[str], float] | None:
        """What tells the expected seconds of a text; None: the official formula does without."""
        if self.durations:
            return self.durations.seconds_of
        return self.backbone.seconds_of if self.inference.letter_durations else None

    def synthesise(
        self,
        jobs: Sequence[Job],
        progress: Progress | None = None,
        duration_frames: Sequence[int | None] | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Speech]:
        """Make all utterances, in the order of the jobs.

        The chunks of all jobs are sorted by length and sampled at most 16 at a time. Each has a noise seed of its
        own, so a job's speech does not depend on its company (beyond rounding).
        progress: called with the number of jobs just finished. duration_frames: mel frames to generate, per job,
        instead of the official length formula (an oracle); the first of them is the clip's own last, and is cut off
        with it. errors="return": a job whose text cannot be spoken or
        whose sound is not finite yields its TextError or SynthesisError in place of a Speech, the others go on.
        With `best_of_n` so many samples are made of each job and one is kept (`_best`).
        Raises ConfigError with `oracle_duration` where a duration is missing, and on a job that asks for what only
        adapters do where there are none; PersonaError on a job's traits, emotion or strength.
        """
        self._check_conditions(jobs)
        durations = [None] * len(jobs) if duration_frames is None else list(duration_frames)
        if len(durations) != len(jobs):
            raise ValueError(f"{len(durations)} durations for {len(jobs)} jobs; give one each")
        if self.inference.oracle_duration and None in durations:
            raise ConfigError(
                "oracle_duration=True: only a study knows the true duration; give one for each job "
                "(duration_frames=...), or set oracle_duration=False"
            )
        count = self.inference.best_of_n
        if count == 1:
            return self._synthesise(jobs, durations, progress, errors)
        samples = [replace(job, seed=job.seed + i * SEEDS_APART) for job in jobs for i in range(count)]
        every = self._synthesise(samples, [d for d in durations for _ in range(count)], None, "return")
        made: dict[int, Speech | Exception] = {}
        for j, job in enumerate(jobs):
            best = self._best(job, every[j * count : (j + 1) * count])
            if isinstance(best, Speech):
                made[j] = best
            else:
                _keep(made, j, best, errors)
            if progress:
                progress(1)
        return [made[j] for j in range(len(jobs))]

    def _best(self, job: Job, samples: Sequence[Speech | Exception]) -> Speech | Exception:
        """The sample of a job that is kept, with the time of all of them; an error where every sample failed.

        Best-of-N: the one whose letters the recogniser mistakes least, the first of equals. With `grpo` the highest
        group-relative advantage over that and the similarity to the clip, by the speaker encoder. Both are the
        judges of the mini profile as well, so what is won here is won on their terms.
        """
        start = time.perf_counter()
        alphabet = self.profile.recognizer.alphabet
        good = [sample for sample in samples if isinstance(sample, Speech)]
        if not good:
            return samples[0]
        waves = [sample.wave for sample in good]
        said = recognizer.normalise(prepare_text(job.text, self.backbone), alphabet)
        if not said:
            return TextError(
                f"{job.text[:40]!r} has no letter that samples can be compared by; set best_of_n=1 for it"
            )
        heard = [recognizer.normalise(text, alphabet) for text in self.recognizer.transcribe(waves)]
        reward = -torch.tensor([jiwer.cer(said, text) for text in heard])
        if self.inference.grpo:
            try:
                with torch.inference_mode():
                    near = self.speaker_encoder.embed(waves).cpu().float() @ job.reference.embedding
            except AudioError as error:
                return error
            reward = retired.group_relative(torch.stack([reward, near], dim=1))
        spent = sum(sample.seconds for sample in good) + time.perf_counter() - start
        return replace(good[int(reward.argmax())], seconds=spent)

    def _synthesise(
        self,
        jobs: Sequence[Job],
        durations: Sequence[int | None],
        progress: Progress | None,
        errors: Literal["raise", "return"],
    ) -> list[Speech]:
        """One sample of each job; see `synthesise`."""
        made: dict[int, Speech | Exception] = {}
        plans: dict[int, list[laag.Chunk]] = {}
        for j, job in enumerate(jobs):
            try:
                plans[j] = self.plan(job, durations[j])
            except TextError as error:
                _keep(made, j, error, errors)
                continue
            if job.asks and not plans[j][0].film:
                warnings.warn(
                    f"{job.text[:40]!r}: FiLM's gate is off for it, so {', '.join(job.asks)} cannot be heard; "
                    "film_gate=always (--gate always) opens it",
                    AdapterWarning,
                    stacklevel=3,
                )
        if progress and made:
            progress(len(made))
        mels: dict[tuple[int, int], Tensor] = {}
        spent = dict.fromkeys(plans, 0.0)
        max_frames = MAX_GUIDED_FRAMES if self.inference.use_ceag else MAX_BATCH_FRAMES
        max_padding = MAX_PADDING if self.device.type == "cpu" else 1.0
        for batch in _batches(plans, max_frames, max_padding):
            start = time.perf_counter()
            for key, mel in zip(batch, self._sample(jobs, plans, batch), strict=True):
                mels[key] = mel
            seconds = time.perf_counter() - start
            frames = sum(len(mels[key]) for key in batch)
            for key in batch:
                spent[key[0]] += seconds * len(mels[key]) / frames
            ready = [
                j
                for j in dict.fromkeys(j for j, _ in batch)
                if all((j, k) in mels for k in range(len(plans[j])))
            ]
            for j in ready:
                parts = [mels.pop((j, k)) for k in range(len(plans[j]))]
                try:
                    made[j] = self._finish(jobs[j], plans[j], parts, spent[j])
                except SynthesisError as error:
                    _keep(made, j, error, errors)
            if progress and ready:
                progress(len(ready))
        return [made[j] for j in range(len(jobs))]

    def clone(
        self,
        source: str | Path | np.ndarray,
        text: str,
        seed: int = 0,
        text_of_reference: str | None = None,
        **conditions: object,
    ) -> Speech:
        """Say one text in the voice of one recording. conditions: persona, style, emotion, strength (see `Job`).

        Raises AudioError, TextError (see `reference`), ConfigError and PersonaError (see `synthesise`).
        """
        prepare_text(text, self.backbone)  # a bad text is told before the recording is worked on
        return self.synthesise(
            [Job(self.reference(source, text=text_of_reference), text, seed, **conditions)]
        )[0]

    # Adapters

    def _check_conditions(self, jobs: Sequence[Job]) -> None:
        """Raises ConfigError on a wish without adapters that hear it, PersonaError on one that does not exist."""
        if self.adapters is None:
            for job in jobs:
                if job.asks:
                    raise ConfigError(
                        f"{job.text[:40]!r} asks for {', '.join(job.asks)}, which needs use_adapters=True; "
                        + TRAIN_ADAPTERS
                    )
            return
        deaf = [part for part in ("persona", "emotion") if not self.adapters.hears(part)]
        for job in jobs:
            if asked := [part for part in deaf if part in job.asks]:
                raise ConfigError(
                    f"{job.text[:40]!r} asks for {', '.join(asked)}, of which these adapters learnt nothing: their "
                    "training speech had no such labels; leave it out, or use the profile `mini`"
                )
        if jobs:
            self._conditions(jobs)

    def _conditions(self, jobs: Sequence[Job]) -> Conditions:
        """What each job's row is conditioned on. Raises PersonaError."""
        sizes = self.profile.adapters
        settings = replace(self.profile.persona, keep_strength=True)
        nobody, plain = torch.zeros(sizes.persona_dim), torch.zeros(sizes.style_dim)
        rows = [
            (
                job.reference.embedding.float(),
                nobody if job.persona is None else persona.persona_embedding(job.persona, settings),
                plain if job.style is None else job.style.float(),
                persona.emotion_embedding(job.emotion, job.strength),
            )
            for job in jobs
        ]
        return Conditions(*(torch.stack(column).to(self.device) for column in zip(*rows, strict=True)))

    def _adapted(self, jobs: Sequence[Job], chunks: Sequence[laag.Chunk]) -> AbstractContextManager[None]:
        """The adapters at work on these rows, each by its own gate; nothing where none is on."""
        active = torch.tensor([chunk.film for chunk in chunks])
        if self.adapters is None or not active.any():
            return nullcontext()
        inference = self.inference
        with torch.no_grad():
            condition = self.adapters.condition(
                self._conditions(jobs), inference.env_weight, use_oes=inference.use_oes
            )
        return self.adapters.modulating(self.backbone.transformer, condition, active)

    def _sample(
        self, jobs: Sequence[Job], plans: dict[int, list[laag.Chunk]], batch: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Generated mels [(n, 100)] of a batch of (job, chunk), the reference cut off."""
        inference, items = self.inference, []
        for j, k in batch:
            reference, chunk = jobs[j].reference, plans[j][k]
            items.append(
                Item(
                    mel=reference.mel,
                    reference_text=reference.text,
                    text=chunk.text,
                    frames=max(chunk.frames, len(reference.mel) + MIN_FRAMES),
                    seed=jobs[j].seed * SEEDS_PER_JOB + k,
                    cfg_strength=chunk.cfg_strength,
                    ceag_lambda=chunk.ceag_lambda * inference.ceag_scale,
                )
            )
        with self._adapted([jobs[j] for j, _ in batch], [plans[j][k] for j, k in batch]):
            sampled = self.backbone.sample(
                items,
                steps=inference.steps,
                sway_coef=inference.sway_coef,
                integrator=retired.Integrator(
                    inference.am_ode_momentum, inference.td_cfg_decay, inference.sbm_noise
                ),
                guidance=entropy_guidance(inference),
            )
        return [mel[len(item.mel) :].float() for mel, item in zip(sampled, items, strict=True)]

    def _finish(self, job: Job, chunks: list[laag.Chunk], mels: list[Tensor], seconds: float) -> Speech:
        """Vocode each chunk, join, trim the lead, return to the recording's level."""
        start = time.perf_counter()
        with torch.inference_mode():
            waves = [
                self.vocoder.decode(mel.T[None].to(self.device))[0].float().cpu().numpy() for mel in mels
            ]
        overlap = laag.overlap_frames(self.inference.cross_fade_seconds) * HOP_LENGTH / SAMPLE_RATE
        wave = laag.splice_wave(waves, overlap)
        if not np.isfinite(wave).all():
            raise SynthesisError(
                f"{job.text[:40]!r}: the generated samples are not finite; check the reference and the weights "
                "(`pvlib info`)"
            )
        wave = laag.trim_lead(wave, self.inference) / np.float32(max(1.0, job.reference.gain))
        mel = laag.splice_mel([mel.cpu() for mel in mels], self.inference.cross_fade_seconds)
        frames = sum(len(part) for part in mels)
        return Speech(wave, mel, chunks, frames, seconds + time.perf_counter() - start)


def entropy_guidance(inference: Inference) -> ceag.Guidance | None:
    """CEAG as the table of parameters has it; None where it is off. Raises ConfigError on an empty window."""
    if not inference.use_ceag:
        return None
    return ceag.Guidance(
        inference.ceag_variant, inference.ceag_t_start, inference.ceag_t_end, inference.ceag_layers
    )


def _batches(
    plans: dict[int, list[laag.Chunk]], max_frames: int = MAX_BATCH_FRAMES, max_padding: float = 1.0
) -> list[list[tuple[int, int]]]:
    """All (job, chunk), longest first, in batches of at most 16, of bounded padded length and padding per row."""
    keys = [(j, k) for j, chunks in plans.items() for k in range(len(chunks))]
    keys.sort(key=lambda key: -plans[key[0]][key[1]].frames)
    batches: list[list[tuple[int, int]]] = []
    for key in keys:
        longest = plans[batches[-1][0][0]][batches[-1][0][1]].frames if batches else 0
        room = batches and len(batches[-1]) < MAX_BATCH and (len(batches[-1]) + 1) * longest <= max_frames
        if room and plans[key[0]][key[1]].frames >= (1 - max_padding) * longest:
            batches[-1].append(key)
        else:
            batches.append([key])
    return batches


def _keep(made: dict[int, Speech | Exception], j: int, error: Exception, errors: str) -> None:
    if errors == "raise":
        raise error
    made[j] = error


def with_laag_base(overrides: dict[str, object]) -> dict[str, object]:
    """`cfg_strength` alone also sets LAAG's base and admits it within LAAG's limits."""
    strength = overrides.get("cfg_strength")
    if not isinstance(strength, int | float) or "laag_cfg_base" in overrides:
        return overrides
    defaults = {f.name: f.default for f in fields(Inference)}
    limits = {
        "laag_cfg_min": min(defaults["laag_cfg_min"], strength),
        "laag_cfg_max": max(defaults["laag_cfg_max"], strength),
    }
    return {**limits, **overrides, "laag_cfg_base": strength}


def _check_supported(inference: Inference) -> None:
    """Refuse parameters that would have no effect. Raises ConfigError naming them."""
    usual = Inference()
    for switch, names in SWITCHED.items():
        if switch == "letter_durations" and inference.duration_predictor:
            continue  # which is steadied by the same formula
        for name in names:
            if not getattr(inference, switch) and getattr(inference, name) != getattr(usual, name):
                raise ConfigError(
                    f"{name}={getattr(inference, name)!r} has no effect with {switch}=False; set {switch}=True"
                )
    if inference.oes_env_scale_init != usual.oes_env_scale_init:
        raise ConfigError(
            f"oes_env_scale_init={inference.oes_env_scale_init} has no effect: adapters that are trained have learnt "
            "their scale; leave it out"
        )
    if inference.ceag_lambda_max != usual.ceag_lambda_max:
        raise ConfigError(
            f"ceag_lambda_max={inference.ceag_lambda_max} has no effect: lambda(L) sets the strength; "
            "multiply it by ceag_scale"
        )
    entropy_guidance(inference)
    if inference.grpo and inference.best_of_n == 1:
        raise ConfigError("grpo=True has no effect on a single sample; set best_of_n to 2 or more")
    if inference.letter_durations and inference.oracle_duration:
        raise ConfigError("letter_durations=True has no effect beside oracle_duration=True; set one of them")
    if inference.duration_predictor and (inference.letter_durations or inference.oracle_duration):
        other = "letter_durations" if inference.letter_durations else "oracle_duration"
        raise ConfigError(f"duration_predictor=True and {other}=True both set the length; choose one of them")
    if inference.letter_durations or inference.oracle_duration or inference.duration_predictor:
        guided = inference.short_text_cfg is not None  # then the bytes still say which text is short
        for name in ("short_text_speed",) if guided else ("short_text_speed", "short_text_bytes"):
            if getattr(inference, name) != getattr(usual, name):
                raise ConfigError(
                    f"{name}={getattr(inference, name)!r} has no effect: only the official formula of lengths slows "
                    "down for a short text; set letter_durations=False and leave oracle_duration and "
                    "duration_predictor out"
                )
    if not inference.laag_chunking and not inference.use_laag:
        raise ConfigError(
            "laag_chunking=False has no effect without LAAG; leave it out, or set use_laag=True"
        )
    if inference.film_gate not in laag.GATE_MODES:
        raise ConfigError(f"no film_gate {inference.film_gate!r}: choose one of {', '.join(laag.GATE_MODES)}")
    if not inference.use_adapters:
        usual = Inference()
        for name in ("env_weight", "use_oes", "film_gate"):
            if getattr(inference, name) != getattr(usual, name):
                raise ConfigError(
                    f"{name}={getattr(inference, name)!r} has no effect without the adapters; set use_adapters=True "
                    f"({TRAIN_ADAPTERS}), or leave it out"
                )
    if inference.use_adapters and inference.padded_text:
        raise ConfigError(
            "padded_text=True together with use_adapters=True: the adapters were trained on the first backbone; leave "
            "one out"
        )
    if inference.use_adapters and inference.use_ceag:
        raise ConfigError(
            "use_ceag=True together with use_adapters=True: entropy guidance reads the plain blocks, which the "
            "adapters replace; leave one out"
        )
    if inference.use_adapters and not inference.use_laag and inference.film_gate != "off":
        raise ConfigError(
            "use_adapters=True: LAAG holds FiLM's gate, and without it the gate is off; set use_laag=True, or "
            "film_gate=off"
        )
    if not inference.use_oes and inference.env_weight:
        raise ConfigError(
            f"env_weight={inference.env_weight} has no effect with use_oes=False; leave one out"
        )
    if inference.use_laag and inference.cfg_strength not in (usual.cfg_strength, inference.laag_cfg_base):
        raise ConfigError(
            f"cfg_strength={inference.cfg_strength} has no effect while LAAG guides with laag_cfg_base="
            f"{inference.laag_cfg_base}; set both, or use_laag=False"
        )

"""Every parameter of the companion, in frozen dataclasses: the single source of truth.

`MINI` is trained in this repository and runs anywhere; `PAPER` names the official weights and LibriTTS. They
differ in configuration and weights only: no other module than `hub` asks which one it serves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real

from pvlib.audio import N_MELS

# The Big Five, each from -1 to 1 with the average person at 0
TRAITS = ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism")
EMOTIONS = ("neutral", "happy", "sad", "angry")
CEAG_VARIANTS = ("ceag", "ieag", "random", "published")  # what entropy guidance follows (`ceag.Guidance`)


class ConfigError(ValueError):
    """A profile or parameter that does not exist, or a value out of its range."""


@dataclass(frozen=True)
class Inference:
    """The paper's parameter table (seed, "Inference Parameters"), with its defaults and names."""

    steps: int = 32  # ODE integration steps (NFE)
    sway_coef: float = -1.0  # sway sampling, F5-TTS default
    cfg_strength: float = 2.5  # classifier-free guidance
    use_adapters: bool = False  # OES and FiLM; needs the weights of `pvlib train adapters`
    use_oes: bool = True  # of the adapters: whether FiLM is told of the voice
    film_gate: str = "auto"  # of the adapters: auto (from two chunks on), always, off
    env_weight: float = 0.0  # OES: 0 studio, 1 the original microphone
    oes_env_scale_init: float = 0.1
    use_ceag: bool = False
    ceag_variant: str = "ceag"  # one of CEAG_VARIANTS; the paper's is "ceag"
    ceag_scale: float = 1.0  # multiplies lambda(L) of `laag.lambda_ceag`, for studies
    ceag_lambda_max: float = 0.20  # printed; lambda(L) has no place for it
    ceag_t_start: float = 0.1
    ceag_t_end: float = 0.4
    ceag_layers: tuple[int, ...] = (-2, -1)
    use_laag: bool = True
    laag_chunking: bool = True  # False: one piece whatever its length, guidance and gate as before
    laag_chunk_max_chars: int = 135
    laag_chunk_min_chars: int = 10  # shorter chunks join their neighbour (architecture document)
    laag_cfg_base: float = 2.5
    laag_cfg_alpha: float = 0.0
    laag_cfg_min: float = 1.0
    laag_cfg_max: float = 4.0
    laag_reference_tokens: int = 10  # L_ref of the guidance formulas
    boundary_hardening: bool = True  # full stop behind the clip's text, leading space, lead trim (`laag`)
    best_of_n: int = 1  # samples drawn of each utterance; the one whose words are heard best is kept
    use_silero_vad: bool = True
    silero_vad_threshold: float = 0.5
    vad_min_speech_ms: int = 100
    vad_min_silence_ms: int = 50
    vad_trailing_silence_ms: int = 50
    use_rms_normalize: bool = True
    rms_target: float = 0.1
    rms_gain_range: tuple[float, float] = (0.1, 10.0)
    cross_fade_seconds: float = 0.15
    lead_trim_ms: int = 300  # lead silence removed at most
    lead_trim_peak: float = 0.02  # share of the peak below which the lead counts as silence
    short_text_bytes: int = 10  # under this the official flow slows down to `short_text_speed`
    short_text_speed: float = 0.3
    speed: float = 1.0
    # The remedy for short texts: lengths from the letters in place of the official formula (`laag.letter_duration`).
    letter_durations: bool = False
    # Chosen on development speakers (`training.durations`).
    letter_prior_seconds: float = 2.0  # of average speech, by which the clip's own speaking rate is steadied
    letter_pause_seconds: float = 0.12  # around the words
    letter_floor_seconds: float = 0.5  # no piece lasts less
    # Modules that the paper tried and retired (`retired`). Off by default: the result is the same to the bit.
    ibop_rank: int = 0  # principal components kept of the clip's mel; 0 keeps all
    am_ode_momentum: float | None = None  # weight of the last direction; None: Euler, 0.0: as initialised
    td_cfg_decay: float = 0.0  # share of the guidance that fades out over the sampling time
    sbm_noise: float = 0.0  # sigma of the Brownian bridge in the sampler
    enhancer_loop_seconds: float = 0.0  # a shorter clip is repeated until it lasts so long
    grpo: bool = False  # of `best_of_n` samples keep the one with the best group-relative reward
    duration_predictor: bool = (
        False  # lengths from a trained network (`durations`) in place of the official formula
    )
    short_text_cfg: float | None = None  # guidance under `short_text_bytes`; None: as for any text
    padded_text: bool = False  # by the second backbone, which reads text as F5-TTS v1 does
    # Oracles: what nobody has who only has a clip and a text. A study gives the truth with each request.
    oracle_transcript: bool = False  # the clip's true words in place of the recognised ones
    oracle_duration: bool = False  # the true recording's length in place of the official formula

    def __post_init__(self) -> None:
        ranges = {
            "steps": (1, 1000),
            "cfg_strength": (0, 20),
            "sway_coef": (-1, 1.75),  # beyond them time would not run from 0 to 1
            "laag_cfg_alpha": (-20, 20),
            "laag_cfg_min": (0, 20),
            "laag_cfg_max": (self.laag_cfg_min, 20),
            "ceag_t_start": (0, 1),
            "ceag_t_end": (0, 1),
            "env_weight": (0, 1),
            "laag_chunk_max_chars": (20, 1000),
            "silero_vad_threshold": (0, 1),
            "rms_target": (1e-3, 1),
            "speed": (0.1, 10),
            "best_of_n": (1, 64),
            "ibop_rank": (0, N_MELS),
            "am_ode_momentum": (0, 0.99),
            "td_cfg_decay": (0, 1),
            "sbm_noise": (0, 1),
            "enhancer_loop_seconds": (0, 12),
            "short_text_cfg": (0, 20),
            "ceag_scale": (0, 1e6),
            "letter_prior_seconds": (0, 100),
            "letter_pause_seconds": (0, 1),
            "letter_floor_seconds": (0, 5),
            "laag_cfg_base": (0, 20),
            "laag_reference_tokens": (1, 1000),
            "vad_min_speech_ms": (0, 5000),
            "vad_min_silence_ms": (0, 5000),
            "vad_trailing_silence_ms": (0, 5000),
            "cross_fade_seconds": (0, 2),
            "lead_trim_ms": (0, 5000),
            "lead_trim_peak": (0, 1),
            "short_text_bytes": (0, 1000),
            "short_text_speed": (0.05, 10),
        }
        for own in fields(self):
            value = getattr(self, own.name)
            optional = own.default is None and value is None
            if type(own.default) is int and not isinstance(value, Integral):
                raise ConfigError(f"{own.name} = {value!r} is not a whole number")
            if own.name in ranges and not (optional or isinstance(value, Real)):
                raise ConfigError(f"{own.name} = {value!r} is not a number")
            if type(own.default) is bool and not isinstance(value, bool):
                raise ConfigError(f"{own.name} = {value!r} is neither True nor False")
            if type(own.default) is tuple and not _like(value, own.default):
                raise ConfigError(f"{own.name} = {value!r} is not like {own.default!r}")
        if self.ceag_variant not in CEAG_VARIANTS:
            raise ConfigError(
                f"no ceag_variant {self.ceag_variant!r}: choose one of {', '.join(CEAG_VARIANTS)}"
            )
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is None:
                continue  # of those that may be left out
            if not low <= value <= high:
                raise ConfigError(f"{name} = {value!r} is outside {low} to {high}")
        if not 0 < 2 * self.laag_chunk_min_chars <= self.laag_chunk_max_chars:
            raise ConfigError(
                f"laag_chunk_min_chars = {self.laag_chunk_min_chars!r} is outside 1 to half of laag_chunk_max_chars = "
                f"{self.laag_chunk_max_chars!r}"
            )
        if len(self.rms_gain_range) != 2 or not 0 < self.rms_gain_range[0] <= self.rms_gain_range[1]:
            raise ConfigError(f"rms_gain_range = {self.rms_gain_range!r}: give lowest,highest, both above 0")


def _like(value: object, default: tuple) -> bool:
    """Whether a value is a tuple of numbers of the kind that a default holds."""
    kind = Integral if isinstance(default[0], int) else Real
    return isinstance(value, tuple) and all(isinstance(part, kind) for part in value)


@dataclass(frozen=True)
class Backbone:
    """Size of the DiT and how text meets sound.

    text_conditioning: "padded" (F5-TTS v1: characters first, filler behind), "average" (the official option of
    uniform upsampling) or "durations" (each character stretched over its expected share of the frames; a
    departure from F5-TTS, see the README).
    stack: mel frames side by side in one transformer token; 1 is the official layout.
    local_kernel: tokens that a convolution in front of each block reaches over (`backbone.LocalBlock`); 0: none.
    input_skip: the layers make the velocity plus their input, not the velocity (`backbone.SkipDiT`).
    """

    dim: int = 256
    depth: int = 8
    heads: int = 4
    dim_head: int = 64
    ff_mult: int = 2
    text_dim: int = 128
    conv_layers: int = 3
    stack: int = 2
    text_conditioning: str = "durations"
    local_kernel: int = 7
    input_skip: bool = True
    pe_attn_head: int | None = None
    attn_mask_enabled: bool = True
    vocabulary: str = " abcdefghijklmnopqrstuvwxyz,.'?!-"  # "" takes the checkpoint's vocab.txt

    @property
    def mel_dim(self) -> int:
        """Channels of one transformer token."""
        return N_MELS * self.stack


@dataclass(frozen=True)
class Vocoder:
    """Vocos: ConvNeXt backbone and inverse-STFT head."""

    dim: int = 224
    intermediate_dim: int = 672
    num_layers: int = 7


@dataclass(frozen=True)
class SpeakerEncoder:
    """ECAPA-TDNN (SpeechBrain's class), 192-d."""

    n_mels: int = 80
    channels: tuple[int, ...] = (256, 256, 256, 256, 768)
    embedding_dim: int = 192


@dataclass(frozen=True)
class Recognizer:
    """CTC recogniser of the mini profile: greedy, no lexicon, no language model."""

    channels: int = 256
    hidden: int = 768  # inner width of a block
    layers: int = 6
    alphabet: str = " abcdefghijklmnopqrstuvwxyz'"


@dataclass(frozen=True)
class GE2ENetwork:
    """The small GE2E speaker encoder trained here: LSTM layers over log-mels (Wan et al., 2018), 256-d.

    An utterance is heard through windows of `window_frames`, a new one every `step_frames`; the last one may reach
    past the end when at least `min_coverage` of it is filled.
    """

    hidden: int = 192
    layers: int = 2
    embedding_dim: int = 256
    window_frames: int = 150  # 1.6 s
    step_frames: int = 72  # 0.77 s, as Resemblyzer's 1.3 windows a second
    min_coverage: float = 0.75


@dataclass(frozen=True)
class Synthesizer:
    """Tacotron 2 (torchaudio's class) of SV2TTS, with `frames_per_step` mel frames per decoder step."""

    vocabulary: str = " abcdefghijklmnopqrstuvwxyz,.'?!-"
    speaker_dim: int = 256
    text_dim: int = 192
    encoder_layers: int = 3
    mix_dim: int = 512  # of the layer where text and voice meet
    prenet_dim: int = 128
    attention_rnn_dim: int = 288
    attention_dim: int = 96
    location_filters: int = 16
    location_kernel: int = 21
    decoder_dim: int = 288
    postnet_dim: int = 192
    postnet_layers: int = 4
    frames_per_step: int = 4  # 43 ms
    max_chars: int = 135  # longest text of its training; longer ones are split
    min_chars: int = 10


@dataclass(frozen=True)
class WaveRNN:
    """WaveRNN (torchaudio's class) over what linear prediction leaves of each sample: 16 bits in two 8-bit parts."""

    n_rnn: int = 192
    n_fc: int = 192
    order: int = 24  # of the linear prediction, about one for each kHz
    heard: int = 16  # of the last samples, how many tell what was new in them
    upsample_scales: tuple[int, ...] = (4, 8, 8)  # their product is the hop
    res_blocks: int = 4
    res_hidden: int = 64
    sparsity: float = 0.5  # share of zeros in the recurrent weights at the end of training
    sparse_block: tuple[int, int] = (16, 1)  # weights that fall together (Kalchbrenner et al., 2018)


@dataclass(frozen=True)
class Folding:
    """How WaveRNN speaks a long mel: as many short folds in one batch, cross-faded.

    Neighbours share `overlap_hops`; during the first `warm_up_hops` of them the later fold is not heard yet, since
    its memory starts empty. hops_at_once: the low-memory mode, conditioning computed so many hops at a time (0: all
    at once).
    """

    enabled: bool = True
    fold_hops: int = 8  # 0.09 s between the overlaps
    overlap_hops: int = 2
    warm_up_hops: int = 1
    hops_at_once: int = 0
    temperature: float = 0.8  # of the sampling, chosen on dev speakers; 0 takes the likeliest part each time


@dataclass(frozen=True)
class DurationPredictor:
    """FastSpeech's predictor over characters (`pvlib.durations`)."""

    vocabulary: str = " abcdefghijklmnopqrstuvwxyz,.'?!-"
    dim: int = 64
    kernel: int = 3
    layers: int = 2


@dataclass(frozen=True)
class Adapters:
    """OES, FiLM and the emotion's embedding (`pvlib.adapters`); `blocks` of the DiT are tuned and modulated."""

    speaker_dim: int = 192
    environment_dim: int = 32
    env_scale_init: float = 0.1
    persona_dim: int = 64
    style_dim: int = 64
    emotion_dim: int = 64
    film_width: int = 128
    blocks: int = 2


@dataclass(frozen=True)
class Persona:
    """How traits are read off a chat and recalls, and how they become embeddings (`pvlib.persona`).

    Of the chat, similarity to anchor messages and the lexicon are added with their weights, chosen on
    data/personas/dev.yaml; where there is a recall of a trait, it and the chat are averaged with `recall_weight`.
    """

    sentence_weight: float = 0.75
    lexicon_weight: float = 0.25
    recall_weight: float = 0.5  # the paper's released code
    min_words: int = 3  # a chat of fewer says nothing
    max_chars: int = 200_000
    calibration_step: float = 0.2  # one "more" or "less"
    embedding_dim: int = 64
    embedding_norm: float = 0.1
    keep_strength: bool = (
        False  # False: every persona has the norm above; True: the extreme ones, others less
    )
    projection_seed: int = 42


@dataclass(frozen=True)
class AttentionLimits:
    """From when on an alignment counts as failed (`systems.sv2tts.attention.failures`)."""

    skip_chars: int = 4  # characters in a row that nobody looked at
    skip_mass: float = 0.1  # attention over all steps below which a character was not looked at
    back_chars: int = 4  # a repeat goes back at least so far
    back_steps: int = 2  # and stays there for so many decoder steps
    stall_seconds: float = 1.0  # a runaway rests so long on one place
    seconds_per_char: float = 0.25  # decoding stops at so much per character
    seconds_more: float = 1.0  # and this


@dataclass(frozen=True)
class Externals:
    """How long the process of a system from outside may take (`systems.external`), in seconds."""

    question_seconds: float = 120.0  # to say which versions it has
    start_seconds: float = 3600.0  # to load its models; the first time it may fetch them
    request_seconds: float = 900.0  # for one utterance
    stop_seconds: float = 10.0  # to end when it is asked to; then it is killed


@dataclass(frozen=True)
class Sources:
    """Where weights come from. An empty repository means: embedded, `data/checkpoints/<profile>`."""

    backbone: str = ""
    vocoder: str = ""
    speaker_encoder: str = ""
    recognizer: str = ""


@dataclass(frozen=True)
class Profile:
    """One configuration of everything."""

    name: str
    manifest: str  # data/manifests/<manifest>.csv
    samples: int  # utterances of a full study
    default_samples: int  # utterances of `make reproduce`
    ultra_short: str = ""  # a second manifest, of texts of at most 4 words; "" where there is none
    reads_chinese: bool = False  # personas off Chinese messages, by bert-base-chinese (`persona_chinese`)
    proxies: tuple[str, ...] = ()  # further judges, `metrics.proxies`: utmos, sim_o
    seed: int = 42
    inference: Inference = field(default_factory=Inference)
    backbone: Backbone = field(default_factory=Backbone)
    backbone_padded: Backbone | None = None  # a second one, for questions about how text meets sound
    vocoder: Vocoder = field(default_factory=Vocoder)
    speaker_encoder: SpeakerEncoder = field(default_factory=SpeakerEncoder)
    recognizer: Recognizer = field(default_factory=Recognizer)
    adapters: Adapters = field(default_factory=Adapters)
    duration_predictor: DurationPredictor = field(default_factory=DurationPredictor)
    persona: Persona = field(default_factory=Persona)
    sv2tts_encoder: GE2ENetwork = field(default_factory=GE2ENetwork)
    sv2tts_synthesizer: Synthesizer = field(default_factory=Synthesizer)
    sv2tts_vocoder: WaveRNN = field(default_factory=WaveRNN)
    sources: Sources = field(default_factory=Sources)

    def __post_init__(self) -> None:
        depth, layers = self.backbone.depth, self.inference.ceag_layers
        if self.inference.use_ceag and not (layers and all(-depth <= layer < depth for layer in layers)):
            raise ConfigError(f"ceag_layers = {layers!r}: give blocks from {-depth} to {depth - 1}")

    def part(self, samples: int, one_in: int, quick: int) -> int:
        """How many of a study's utterances a costly measurement takes: one in so many of a complete study, else `quick`
        at most."""
        return samples // one_in if samples >= self.samples else min(samples, quick)

    def with_padded_text(self) -> Profile:
        """The same with the second backbone in the place of the first. Raises ConfigError where there is none."""
        if self.backbone_padded is None:
            raise ConfigError(
                f"padded_text=True: the profile {self.name} has no second backbone; leave padded_text out"
                + (", its own reads padded text" if self.backbone.text_conditioning == "padded" else "")
            )
        return replace(self, backbone=self.backbone_padded)

    @property
    def embedded(self) -> bool:
        """Whether all weights were trained in this repository."""
        return self.sources == Sources()


MINI = Profile(
    name="mini",
    manifest="mini-test",
    samples=200,
    default_samples=40,
    ultra_short="mini-ultra-short",
    backbone_padded=Backbone(text_conditioning="padded"),
)

PAPER = Profile(
    name="paper",
    manifest="libritts-test",
    samples=200,
    default_samples=200,
    reads_chinese=True,
    proxies=("utmos", "sim_o"),
    backbone=Backbone(
        dim=1024,
        depth=22,
        heads=16,
        ff_mult=2,
        text_dim=512,
        conv_layers=4,
        stack=1,
        text_conditioning="padded",
        local_kernel=0,
        input_skip=False,
        vocabulary="",
    ),
    vocoder=Vocoder(dim=512, intermediate_dim=1536, num_layers=8),
    speaker_encoder=SpeakerEncoder(channels=(1024, 1024, 1024, 1024, 3072)),
    sources=Sources(
        backbone="SWivid/F5-TTS",
        vocoder="charactr/vocos-mel-24khz",
        speaker_encoder="speechbrain/spkrec-ecapa-voxceleb",
        recognizer="openai/whisper-large-v3-turbo",
    ),
)

PROFILES = {p.name: p for p in (MINI, PAPER)}


def get_profile(name: str, **inference: object) -> Profile:
    """A profile by name, with parameters of its inference table replaced.

    Raises ConfigError on an unknown profile or parameter, or a value out of range or of another type.
    """
    if name not in PROFILES:
        raise ConfigError(f"no profile {name!r}: choose one of {', '.join(PROFILES)}")
    known = {f.name for f in fields(Inference)}
    if unknown := set(inference) - known:
        raise ConfigError(f"no parameter {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    profile = PROFILES[name]
    return replace(profile, inference=replace(profile.inference, **inference))

"""What can be counted or seen in this implementation, without any sound: sizes, identities, invariants.

Each entry answers one claim about a mechanism. Everything is computed when it is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pvlib import audio, ceag, config, frontend, laag, persona
from pvlib.film import FiLM
from pvlib.oes import EMBEDDING_DIM, OES
from pvlib.study import endpoints, manifest, measure, reported
from pvlib.study.architecture import parameters_of

PROFILE = "paper"  # sizes are those of the official weights
TOLERANCE = 1e-5


class FactError(ValueError):
    """A fact that nobody wrote a computation for."""


def counted(name: str) -> float:
    """A number read off the configuration, the networks or the paper's tables. Raises FactError on another name."""
    if name not in COUNTS:
        raise FactError(f"nothing counts {name!r}: choose one of {', '.join(COUNTS)}")
    with _own_dice():
        return float(COUNTS[name]())


def seen(name: str) -> tuple[bool, str]:
    """Whether a property holds, and what was computed to tell. Raises FactError on another name."""
    if name not in PROPERTIES:
        raise FactError(f"nothing shows {name!r}: choose one of {', '.join(PROPERTIES)}")
    with _own_dice():
        return PROPERTIES[name]()


@contextmanager
def _own_dice() -> Iterator[None]:
    """Untrained networks are drawn from a fixed seed, and the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@lru_cache(maxsize=1)
def _official() -> Any:
    """The official backbone at full size, without its weights: 22 blocks that take no memory."""
    from pvlib import backbone, hub

    with torch.device("meta"):
        return backbone.build(config.get_profile(PROFILE).backbone, hub.packaged_vocabulary())


@lru_cache(maxsize=1)
def _ge2e() -> Any:
    """Resemblyzer's GE2E encoder: the first of SV2TTS's three networks, with its published weights."""
    with warnings.catch_warnings():  # its imports warn of packages grown old
        warnings.simplefilter("ignore")
        from resemblyzer import VoiceEncoder
    return VoiceEncoder("cpu", verbose=False).eval()


def _speaker_embeddings(n: int = 8) -> torch.Tensor:
    return _numbers((n, EMBEDDING_DIM))


def _persona_sizes() -> float:
    """Numbers of a persona embedding, of which a text style embedding has as many; NaN where they differ."""
    one = persona.persona_embedding(dict.fromkeys(config.TRAITS, 1.0))
    other = persona.text_style_embedding(["Any message will do."], torch.ones(EMBEDDING_DIM))
    return len(one) if len(one) == len(other) else float("nan")


def _emotion_size() -> float:
    """Numbers of an emotion embedding; NaN where no emotion has another number of them or is not zeros."""
    none, some = persona.emotion_embedding(None), persona.emotion_embedding(persona.EMOTIONS[-1])
    return len(some) if len(none) == len(some) and not none.any() and some.any() else float("nan")


def _official_sway() -> float:
    from pvlib.systems import f5

    return f5.official().sway_sampling_coef


COUNTS: dict[str, Callable[[], float]] = {
    "mel frames of one second": lambda: audio.mel(torch.zeros(audio.CLIP_SAMPLES)).shape[-1],
    "hop length": lambda: audio.HOP_LENGTH,
    "backbone blocks": lambda: len(_official().transformer.transformer_blocks),
    "parameters of a block": lambda: parameters_of(_official().transformer.transformer_blocks[-1]),
    "parameters of the backbone": lambda: parameters_of(_official()),
    "rows of the environment basis": lambda: OES().basis().shape[0],
    "columns of the environment basis": lambda: OES().basis().shape[1],
    "retired modules": lambda: reported.read("retired_modules")["system"].nunique(),
    "size of a persona embedding and of a text style embedding": _persona_sizes,
    "size of an emotion embedding, zeros for none": _emotion_size,
    "sway coefficient of F5-TTS's inference by default": _official_sway,
    "size of a GE2E embedding": lambda: _ge2e().linear.out_features,
}


def _film_identity() -> tuple[bool, str]:
    film, rng = FiLM(64, 128), torch.Generator().manual_seed(0)
    h, condition = torch.randn(2, 5, 128, generator=rng), torch.randn(2, 64, generator=rng)
    change = float((film(h, condition) - h).abs().max().detach())
    return change == 0, f"largest change by an untrained FiLM: {change:g}"


def _film_gate() -> tuple[bool, str]:
    one, two = laag.gate(["short"]), laag.gate(["first", "second"])
    return not one and two, f"one chunk: {'on' if one else 'off'}; two chunks: {'on' if two else 'off'}"


def _cosine_of_parts(scale: float) -> float:
    timbre, environment = OES(env_scale_init=scale).split(_speaker_embeddings())
    return float(torch.nn.functional.cosine_similarity(timbre, environment).abs().max().detach())


def _oes_orthogonal() -> tuple[bool, str]:
    scale = config.Inference().oes_env_scale_init
    cosine, whole = _cosine_of_parts(scale), _cosine_of_parts(1.0)
    evidence = f"cosine of timbre and environment: {cosine:.3f} at env_scale = {scale:g}, {whole:.3f} at 1"
    return cosine < TOLERANCE, evidence


def _oes_basis() -> tuple[bool, str]:
    module = OES()
    with torch.no_grad():
        module.env_basis += _speaker_embeddings(module.env_basis.shape[1]).T  # as if trained out of shape
    basis = module.basis().detach()
    error = float((basis.T @ basis - torch.eye(basis.shape[1])).abs().max())
    return error < TOLERANCE, f"largest error of B'B against the identity: {error:.1e}"


def _oes_weight() -> tuple[bool, str]:
    z, module = _speaker_embeddings(), OES()
    error = float((module(z, env_weight=1.0) - z).abs().max().detach())
    return error < TOLERANCE, f"largest difference from the whole embedding at env_weight = 1: {error:.1e}"


def _chunks() -> tuple[bool, str]:
    inference = config.Inference()
    texts = manifest.read(config.MINI.manifest).table["text"]
    lengths = [len(piece) for text in texts for piece in laag.chunk(text, inference.laag_chunk_max_chars)]
    evidence = f"{len(texts)} texts, {len(lengths)} chunks, the longest of {max(lengths)} characters"
    return max(lengths) <= inference.laag_chunk_max_chars, evidence


def _guidance() -> tuple[bool, str]:
    inference = config.Inference()
    short, long = laag.guidance("Go.", inference), laag.guidance("one " * 30, inference)
    return short != long, f"guidance of a short text {short:g}, of a long one {long:g}"


def _splice() -> tuple[bool, str]:
    parts = [torch.full((frames, audio.N_MELS), float(frames)) for frames in (50, 60)]
    whole = laag.splice_mel(parts)
    overlap = laag.overlap_frames(config.Inference().cross_fade_seconds)
    ends = bool((whole[: 50 - overlap] == 50).all() and (whole[50:] == 60).all())
    right = tuple(whole.shape) == (110 - overlap, audio.N_MELS)
    return right and ends, f"50 and 60 frames become {whole.shape[0]} of {whole.shape[1]} channels"


def _boundary() -> tuple[bool, str]:
    closed = laag.boundary("the clip says this")
    plan = laag.plan(93, closed, "Now the target.", config.Inference())
    good = closed.endswith(". ") and all(chunk.text.startswith(" ") for chunk in plan)
    return good, f"the reference text ends in {closed[-2:]!r}, the new text begins with {plan[0].text[:4]!r}"


def _lead() -> tuple[bool, str]:
    silence = np.zeros(audio.SAMPLE_RATE // 5, dtype=np.float32)
    tone = np.sin(np.arange(audio.SAMPLE_RATE) / 20).astype(np.float32)
    left = len(laag.trim_lead(np.concatenate([silence, tone]), config.Inference())) - len(tone)
    return left <= 1, f"of {len(silence)} silent samples {max(left, 0)} are left"


def _level() -> tuple[bool, str]:
    inference = config.Inference()
    tone = np.sin(np.arange(audio.SAMPLE_RATE) / 20).astype(np.float32)
    loud = [tone * level for level in (0.05, 0.3, 0.9)]
    levels = [float(np.sqrt(np.mean((w * frontend.loudness_gain(w, inference)) ** 2))) for w in loud]
    good = np.allclose(levels, inference.rms_target, rtol=1e-4)
    return good, f"root mean square after normalisation: {', '.join(f'{level:.4f}' for level in levels)}"


def _masked_entropy() -> tuple[bool, str]:
    scores = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(scores, (0, 4), value=float("-inf")).requires_grad_()
    keys, queries = torch.arange(10)[None] < 6, torch.ones(1, 6, dtype=torch.bool)
    short, long = (
        ceag.masked_entropy(scores, keys[:, :6], queries),
        ceag.masked_entropy(padded, keys, queries),
    )
    finite = bool(torch.autograd.grad(long.sum(), padded)[0].isfinite().all())
    error, bare = float((short - long).abs().detach()), float(ceag.unmasked_entropy(padded.detach()))
    words = f"padding changes the entropy by {error:.1e}; its gradient is finite: {finite}; without masks it is {bare}"
    return error < TOLERANCE and finite, words


def _cross_attention() -> tuple[bool, str]:
    blocks = _official().transformer.transformer_blocks
    crossing = sum(block.attn.context_dim is not None for block in blocks)
    return crossing > 0, f"{crossing} of {len(blocks)} attention layers take a second sequence"


def _recurrent() -> tuple[bool, str]:
    lstm = [module for module in _ge2e().modules() if isinstance(module, torch.nn.LSTM)]
    return bool(
        lstm
    ), f"{sum(module.num_layers for module in lstm)} LSTM layers over {lstm[0].input_size} mel bands"


def _partials() -> tuple[bool, str]:
    wave = np.random.default_rng(0).normal(0, 0.1, 4 * 16_000).astype(np.float32)
    whole, parts, _ = _ge2e().embed_utterance(wave, return_partials=True)
    mean = parts.mean(axis=0)
    error = float(np.abs(whole - mean / np.linalg.norm(mean)).max())
    return (
        len(parts) > 1 and error < TOLERANCE,
        f"{len(parts)} windows in 4 s of sound, difference from their mean {error:.1e}",
    )


def _voice_beside_text() -> tuple[bool, str]:
    from pvlib.systems.sv2tts import synthesizer

    network = synthesizer.build(config.MINI.sv2tts_synthesizer).eval()
    tokens, lengths = network.encode(["a lamp.", "the river"])
    voices = torch.nn.functional.normalize(torch.randn(2, 256), dim=-1)
    with torch.no_grad():
        beside = network.beside(tokens, lengths, voices)[..., -256:]
    same = bool((beside == synthesizer.VOICE_GAIN * voices[:, None]).all())
    return (
        same,
        f"the last {beside.shape[-1]} channels of all {beside.shape[1]} characters are the voice, "
        f"{synthesizer.VOICE_GAIN:g} times as loud: {same}",
    )


def _chinese_reader() -> tuple[bool, str]:
    from pvlib.persona_chinese import BilingualExtractor

    read: dict[str, list[str]] = {"English": [], "Chinese": []}

    def encoder(name: str, width: int) -> Callable[[Any], torch.Tensor]:
        def encode(texts: Any) -> torch.Tensor:
            read[name] += texts
            return torch.nn.functional.normalize(_numbers((len(texts), width)), dim=-1)

        return encode

    extractor = BilingualExtractor(encoder("English", 384), encoder("Chinese", 768))
    for texts in read.values():
        texts.clear()  # the anchors
    extractor.batch(["Bring everyone along!", "把大家都叫来吧！"])
    good = config.PAPER.reads_chinese and read == {
        "English": ["Bring everyone along!"],
        "Chinese": ["把大家都叫来吧！"],
    }
    where = "; in the profile mini all-MiniLM-L6-v2 reads English, and of Chinese the lexicon alone speaks"
    return (
        good,
        f"a Chinese chat goes to the Chinese encoder of the profile {config.PAPER.name}: {good}{where}",
    )


def _numbers(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _evaluator() -> tuple[bool, str]:
    from pvlib.metrics.proxies import ProxyVerdict

    judged = {field.name for field in fields(ProxyVerdict)} & set(measure.METRICS) | set(config.PAPER.proxies)
    wanted = {"secs_ecapa_clip", "wer", "utmos", "sim_o"}  # seconds are on every row
    return (
        wanted <= judged,
        f"the profile {config.PAPER.name} is judged by {', '.join(sorted(judged))}, and timed",
    )


PROPERTIES: dict[str, Callable[[], tuple[bool, str]]] = {
    "an untrained FiLM is the identity": _film_identity,
    "FiLM is off for one chunk and on for more": _film_gate,
    "timbre and environment are orthogonal": _oes_orthogonal,
    "the environment basis is orthonormal": _oes_basis,
    "env_weight 1 restores the embedding": _oes_weight,
    "no chunk exceeds the cap": _chunks,
    "guidance depends on the length of the text": _guidance,
    "chunks are spliced along time": _splice,
    "reference and new text are parted": _boundary,
    "lead silence is cut": _lead,
    "every clip gets the same level": _level,
    "padding neither changes nor breaks the entropy": _masked_entropy,
    "the backbone has attention from sound to text": _cross_attention,
    "the GE2E encoder is recurrent": _recurrent,
    "a GE2E embedding is the mean of its windows": _partials,
    "the voice stands beside every character that the decoder reads": _voice_beside_text,
    "Chinese messages are read with bert-base-chinese": _chinese_reader,
    "the profile paper is judged by SECS, WER, UTMOS, RTF and SIM-o": _evaluator,
} | endpoints.PROPERTIES
